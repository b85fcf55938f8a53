import { sha256 } from "../../../bytes/digest.ts"
import { MalformedError, PerunError } from "../../../bytes/error.ts"
import type { JsonValue } from "../../../bytes/json.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { encodeHex, parseBase64, parseUtf8 } from "../../../bytes/text.ts"
import { certificateFingerprint, certificateKey, parseCertificate, parsePemCertificates } from "../../../pki/certificate.ts"
import type { Certificate } from "../../../pki/certificate.ts"
import { parseRevocationList } from "../../../pki/crl.ts"
import { verifySignature } from "../../../pki/signatures.ts"
import type { SnpClaims } from "../../snp/claims.ts"
import { readCertifiedIdentity } from "../../snp/endorsements.ts"
import type { SnpEndorsements } from "../../snp/endorsements.ts"
import { parseSnpReport } from "../../snp/format.ts"
import type { SnpReport } from "../../snp/format.ts"
import { productOfCpu, snpProducts, tcbOf } from "../../snp/products.ts"
import type { SnpProduct, Tcb } from "../../snp/products.ts"
import { loadAmdRoots } from "../../snp/roots.ts"
import { verifySnpReport } from "../../snp/verify.ts"
import type { VectorCase } from "../vector.ts"

/** `accept`: the report verifies under the pinned root at the stated time and says what is stated; other report data, other keys and a changed bit are refused. */
export function judgeAccept(vector: VectorCase): void {
  const claims = verifyCase(vector)
  judgeFacts(vector, claims.product)
  judgeNegatives(vector)
  judgeSurroundings(vector, claims)
}

/** `signature-ok-policy-reject`: genuine, and the claims show what a policy refuses: debugging is allowed. */
export function judgeDebug(vector: VectorCase): void {
  judgeAccept(vector)
  vector.equal("claim policy.debug", verifyCase(vector).policy.debug, true)
}

/** `reject`: not genuine, for the stated reason; what the report and the certificate say is as stated all the same, where they can be read. */
export function judgeReject(vector: VectorCase): void {
  vector.refused("the report", () => verifyCase(vector), ...reasonCodes(vector.facts.text("reason")))
  try {
    const { cpu } = parseSnpReport(vector.file("report.bin"))
    const stated = loadAmdRoots().find(({ product }) => product === vector.facts.text("product"))?.product
    judgeFacts(vector, stated ?? productOfCpu(cpu ?? { family: 0, model: 0, stepping: 0 }))
  } catch (error) {
    if (!(error instanceof PerunError)) throw error
    for (const key of vector.facts.keys) vector.facts.value(key)
    vector.note(`facts are not compared: ${error.message}`)
  }
}

/** Words for reasons, and the codes that each may end in: of several faults the first that is found is told. */
const reasons: Readonly<Record<string, readonly string[]>> = {
  "vcek-invalid": ["wrong-signature", "wrong-chain", "wrong-binding", "wrong-certificate"],
  "vcek-of-other-chip": ["wrong-signature", "wrong-binding"],
}

export function reasonCodes(reason: string | undefined): readonly string[] {
  return reason === undefined ? [] : (reasons[reason] ?? [reason])
}

function verifyCase(vector: VectorCase, reportData: Uint8Array | "as-signed" = "as-signed"): SnpClaims {
  const endorsements = endorsementsOf(vector)
  const time = timeOf(vector, endorsements)
  return verifySnpReport({ report: vector.file("report.bin"), endorsements }, { reportData, roots: loadAmdRoots(), time }).claims
}

/** The stated time; a case that states none is judged on the day of its key's certificate. */
export function timeOf(vector: VectorCase, { signer }: SnpEndorsements): number {
  const stated = vector.facts.text("verifyTime")
  return stated === undefined ? signer.notBefore : Date.parse(stated)
}

export function endorsementsOf(vector: VectorCase): SnpEndorsements {
  const issuers = ["ask.pem", "asvk.pem", "ark.pem", "cert_chain.pem"].filter((name) => vector.optional(name) !== undefined)
  const list = vector.optional("crl.der")
  return {
    signer: leafOf(vector),
    intermediates: issuers.flatMap((name) => parsePemCertificates(vector.text(name))),
    revocationLists: list === undefined ? [] : [parseRevocationList(list)],
  }
}

function leafOf(vector: VectorCase): Certificate {
  const der = vector.firstOf("vcek.der", "vlek.der")
  if (der !== undefined) return parseCertificate(der)
  const [leaf] = parsePemCertificates(parseUtf8(vector.file("vcek.pem", "vlek.pem")))
  if (leaf === undefined) throw new MalformedError("malformed", "the case has no certificate of its key", { path: vector.name })
  return leaf
}

/** What is stated of the report and of the key's certificate, whether they fit or not. */
function judgeFacts(vector: VectorCase, product: SnpProduct): void {
  const bytes = vector.file("report.bin")
  const report = parseSnpReport(bytes)
  const leaf = leafOf(vector)
  vector.facts.check("product", () => product)
  vector.facts.check("leafValidity", () => [leaf.notBefore, leaf.notAfter].map((time) => new Date(time).toISOString().substring(0, 10)))
  judgeReport(vector, report, bytes)
  vector.facts.check("reportedTcbDecoded", () => tcbFact(tcbOf(product, report.reportedTcb, "REPORTED_TCB")))
  vector.facts.check("certTcb", () => certificateFact(leaf, report, product))
  vector.facts.check("policyDebugAllowed", () => report.policy.debug)
  vector.facts.check("policyMigrateMa", () => report.policy.migrateMa)
  judgeChecks(vector, report, leaf, product)
}

function judgeReport(vector: VectorCase, report: SnpReport, bytes: Uint8Array): void {
  const facts = vector.facts.object("report")
  if (facts === undefined) return
  const raw = new ByteReader("report", bytes)
  raw.bytes(8, "VERSION, GUEST_SVN")
  const policy = raw.u64le("POLICY")
  raw.bytes(0x30, "up to PLATFORM_INFO")
  const platformInfo = raw.u64le("PLATFORM_INFO")
  facts.check("version", () => report.version)
  facts.check("guest_svn", () => report.guestSvn)
  facts.check("policy", () => `0x${policy.toString(16)}`)
  facts.check("vmpl", () => report.vmpl)
  facts.check("signing_key", () => report.signingKey.toUpperCase())
  facts.check("report_data", () => encodeHex(report.reportData))
  facts.check("measurement", () => encodeHex(report.measurement))
  facts.check("host_data", () => encodeHex(report.hostData))
  facts.check("id_key_digest", () => encodeHex(report.idKeyDigest))
  facts.check("author_key_digest", () => encodeHex(report.authorKeyDigest))
  facts.check("report_id", () => encodeHex(report.reportId))
  facts.check("chip_id", () => encodeHex(report.chipId))
  facts.check("cpuid_fms", () => cpuFact(report))
  facts.check("platform_info", () => `0x${platformInfo.toString(16)}`)
  facts.check("reported_tcb", () => encodeHex(report.reportedTcb))
  facts.check("committed_tcb", () => encodeHex(report.committedTcb))
  facts.check("current_tcb", () => encodeHex(report.currentTcb))
  facts.check("launch_tcb", () => encodeHex(report.launchTcb))
}

export function cpuFact({ cpu }: Pick<SnpReport, "cpu">): string {
  return cpu === undefined ? "000000" : encodeHex(Uint8Array.of(cpu.family, cpu.model, cpu.stepping))
}

export function tcbFact(tcb: Tcb): { readonly [name: string]: number } {
  const names = { fmc: "fmc", bootLoader: "bl", tee: "tee", snp: "snp", microcode: "ucode" } as const
  return Object.fromEntries(Object.entries(tcb).map(([component, level]) => [names[component as keyof Tcb], level]))
}

function certificateFact(leaf: Certificate, report: SnpReport, product: SnpProduct): JsonValue {
  const identity = readCertifiedIdentity(leaf, report.signingKey === "vlek" ? "vlek" : "vcek", product)
  return {
    struct: snpProducts[product].structVersion,
    product: identity.productName,
    ...tcbFact(identity.tcb),
    ...(identity.cspId === undefined ? {} : { csp: identity.cspId }),
  }
}

function judgeChecks(vector: VectorCase, report: SnpReport, leaf: Certificate, product: SnpProduct): void {
  const facts = vector.facts.object("checks")
  if (facts === undefined) return
  const [issuer] = parsePemCertificates(vector.text(report.signingKey === "vlek" ? "asvk.pem" : "ask.pem"))
  const [ark] = parsePemCertificates(vector.text("ark.pem"))
  if (issuer === undefined || ark === undefined) return vector.problem("the case has no chain")
  const identity = readCertifiedIdentity(leaf, report.signingKey === "vlek" ? "vlek" : "vcek", product)
  const { hwId } = identity
  facts.check("signature", () =>
    holds(() => verifySignature("ecdsa-sha384", certificateKey(leaf), report.signedBytes, report.signature, { ecdsa: "raw" })),
  )
  facts.check("tcbMatchesCert", () => JSON.stringify(tcbFact(identity.tcb)) === JSON.stringify(tcbFact(tcbIn(product, report, identity.tcb))))
  facts.check("chipIdMatchesCert", () => hwId !== undefined && encodeHex(report.chipId) === encodeHex(hwId).padEnd(128, "0"))
  facts.check("chain", () => [
    holds(() => verifySignature("rsapss-sha384", certificateKey(issuer), leaf.tbs, leaf.signature)),
    holds(() => verifySignature("rsapss-sha384", certificateKey(ark), issuer.tbs, issuer.signature)),
    holds(() => verifySignature("rsapss-sha384", certificateKey(ark), ark.tbs, ark.signature)),
  ])
}

/** The reported levels in the order of the certificate's. */
function tcbIn(product: SnpProduct, report: SnpReport, order: Tcb): Tcb {
  const tcb = tcbOf(product, report.reportedTcb, "REPORTED_TCB")
  return Object.fromEntries(Object.keys(order).map((component) => [component, tcb[component as keyof Tcb] ?? 0]))
}

function holds(check: () => void): boolean {
  try {
    check()
    return true
  } catch (error) {
    // A wrong signature is the answer, not a fault; anything else is.
    if (!(error instanceof PerunError)) throw error
    return false
  }
}

/** What must not pass, made of what does. */
function judgeNegatives(vector: VectorCase): void {
  vector.refused("other report data", () => verifyCase(vector, new Uint8Array(64).fill(0xa5)), "wrong-nonce")
  const report = vector.file("report.bin")
  const endorsements = endorsementsOf(vector)
  const time = timeOf(vector, endorsements)
  const verify = (change: Partial<SnpEndorsements>, bytes = report, at = time): unknown =>
    verifySnpReport({ report: bytes, endorsements: { ...endorsements, ...change } }, { reportData: "as-signed", roots: loadAmdRoots(), time: at })
  const flipped = Uint8Array.from(report, (byte, place) => (place === measurementOffset ? byte ^ 1 : byte))
  vector.refused("a changed bit", () => verify({}, flipped), "wrong-signature")
  vector.refused("after the key's certificate expired", () => verify({}, report, endorsements.signer.notAfter + 1), "expired")
  for (const name of vector.names(/^(vcek|vlek)-.*\.der$/))
    vector.refused(`${name} as the key`, () => verify({ signer: parseCertificate(vector.file(name)) }))
  const ark = vector.optional("ark.pem")
  const pinned = loadAmdRoots().map(({ certificate }) => certificateFingerprint(certificate))
  if (ark !== undefined && parsePemCertificates(vector.text("ark.pem")).some((root) => !pinned.includes(certificateFingerprint(root))))
    vector.problem("ark.pem is not a pinned root")
}

/** MEASUREMENT. */
const measurementOffset = 0x90

/** What a container's host put beside the report. */
function judgeSurroundings(vector: VectorCase, claims: SnpClaims): void {
  const policy = vector.optional("security-policy.base64")
  if (policy !== undefined) {
    const digest = sha256(parseBase64(vector.text("security-policy.base64").trim(), "security-policy.base64"))
    vector.equal("HOST_DATA", claims.hostData, encodeHex(digest))
  }
  const reference = vector.optional("uvm-reference-info.cose")
  if (reference === undefined) return
  // Its payload is JSON; the signature is COSE, which is not verified here.
  if (!Buffer.from(reference).includes(claims.measurement)) vector.problem("uvm-reference-info.cose does not name the launch measurement")
  vector.note("uvm-reference-info.cose names the measurement; its COSE signature is not verified")
}
