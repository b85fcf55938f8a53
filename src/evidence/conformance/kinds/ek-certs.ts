import { MalformedError } from "../../../bytes/error.ts"
import { encodeHex } from "../../../bytes/text.ts"
import { parseCertificate, parsePemCertificates } from "../../../pki/certificate.ts"
import type { Certificate } from "../../../pki/certificate.ts"
import { parseStoredCertificate } from "../../tpm/endorsements.ts"
import type { EndorsementQuirk } from "../../tpm/endorsements.ts"
import { verifyEndorsementCertificate } from "../../tpm/verify.ts"
import type { VectorCase } from "../vector.ts"

/** `accept`: the certificate chains to the case's root at the stated time, as an endorsement certificate. */
export function judgeAccept(vector: VectorCase): void {
  const material = materialOf(vector)
  const { claims } = verify(vector, material, [], false)
  judgeStorage(vector, material.stored)
  vector.note(`${claims.manufacturer} ${claims.model}, quirks: ${claims.quirks.join(", ") || "none"}`)
  vector.refused("a chain without its root", () => verify(vector, { ...material, roots: [] }, [], false), "wrong-chain")
}

/** `accept-if-sha1-and-oaep-allowed`: refused unless the caller names both weaknesses. */
export function judgeOld(vector: VectorCase): void {
  const material = materialOf(vector)
  const quirks = ["oaep-key", "no-key-usage"] as const
  vector.refused("without leave", () => verify(vector, material, [], false), "unsupported", "weak-algorithm")
  vector.refused("without leave for SHA-1", () => verify(vector, material, quirks, false), "weak-algorithm")
  vector.refused("without leave for the key's type", () => verify(vector, material, [], true), "unsupported")
  const { claims } = verify(vector, material, quirks, true)
  vector.equal("usesSha1", claims.usesSha1, true)
  vector.equal("quirks", [...claims.quirks].includes("oaep-key"), true)
  judgeStorage(vector, material.stored)
}

/** `reject`: the certificate does not verify. */
export function judgeReject(vector: VectorCase): void {
  vector.refused("the certificate", () => verify(vector, materialOf(vector), [], false))
}

/** `load`: every certificate of a bundle can be read. */
export function judgeLoad(vector: VectorCase): void {
  const certificates = vector.names(/\.pem$/).flatMap((name) => parsePemCertificates(vector.text(name)))
  vector.facts.check("count", () => certificates.length)
}

interface Material {
  readonly stored: Uint8Array
  readonly intermediates: readonly Certificate[]
  readonly roots: readonly Certificate[]
}

/** The endorsement certificate by its name; of the others, one called root and those that issue themselves are what the case trusts. */
function materialOf(vector: VectorCase): Material {
  const [name, ...more] = vector.names(/^(ek-?)?cert(ificate)?(-nv)?\.(pem|der|bin)$/)
  if (name === undefined || more.length > 0) throw new MalformedError("malformed", "expected one endorsement certificate", { path: vector.name })
  const [leaf] = name.endsWith(".pem") ? parsePemCertificates(vector.text(name)) : []
  const others = vector.names(/\.(pem|der)$/).filter((other) => other !== name)
  const certificates = others.flatMap((other) => readCertificates(vector, other).map((certificate) => ({ other, certificate })))
  const isRoot = ({ other, certificate }: { other: string; certificate: Certificate }): boolean =>
    other.startsWith("root.") || encodeHex(certificate.issuer) === encodeHex(certificate.subject)
  return {
    stored: leaf === undefined ? vector.file(name) : leaf.der,
    roots: certificates.filter(isRoot).map(({ certificate }) => certificate),
    intermediates: certificates.filter((candidate) => !isRoot(candidate)).map(({ certificate }) => certificate),
  }
}

function readCertificates(vector: VectorCase, name: string): readonly Certificate[] {
  return name.endsWith(".pem") ? parsePemCertificates(vector.text(name)) : [parseCertificate(vector.file(name))]
}

function verify(
  vector: VectorCase,
  material: Material,
  quirks: readonly EndorsementQuirk[],
  insecureAllowSha1: boolean,
): ReturnType<typeof verifyEndorsementCertificate> {
  const roots = material.roots.map((certificate) => ({ certificate, kind: "laboratory", name: "stated by the case", isCloud: false }) as const)
  const time = Date.parse(vector.facts.text("verifyTime") ?? "")
  const evidence = { certificate: material.stored, intermediates: material.intermediates, publicArea: "not-given" } as const
  return verifyEndorsementCertificate(evidence, { role: "endorsement", roots, time, revocationLists: [], quirks, insecureAllowSha1 })
}

/** Bytes in front of the certificate and behind it, as read from a TPM. */
function judgeStorage(vector: VectorCase, stored: Uint8Array): void {
  const { certificate, quirks } = parseStoredCertificate(stored)
  const headerBytes = quirks.includes("nv-header") ? nvHeaderBytes : 0
  vector.facts.check("headerBytes", () => headerBytes)
  vector.facts.check("trailingBytes", () => stored.length - headerBytes - certificate.der.length)
}

/** TCG_PCCLIENT_STORED_CERT: tag, type, size, and the tag of TCG_FULL_CERT. */
const nvHeaderBytes = 7
