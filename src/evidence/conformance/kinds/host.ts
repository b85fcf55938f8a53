import { MalformedError } from "../../../bytes/error.ts"
import { encodeHex, parseHex } from "../../../bytes/text.ts"
import { parseCertificate, parsePemCertificates } from "../../../pki/certificate.ts"
import { EvidenceError } from "../../errors.ts"
import type { HostClaims } from "../../host/claims.ts"
import { verifyHost } from "../../host/verify.ts"
import type { ImaEntry } from "../../ima/claims.ts"
import type { PcrSelectionClaim } from "../../tpm/claims.ts"
import { parseSizedPublicArea } from "../../tpm/public-area.ts"
import { verifyEndorsementCertificate } from "../../tpm/verify.ts"
import type { Facts, VectorCase } from "../vector.ts"
import { keyOf } from "./tpm.ts"

/** `accept`: endorsement certificate, quote, boot log and IMA list verify and belong together; the stated claims agree. */
export function judgeAccept(vector: VectorCase): void {
  const claims = verifyCase(vector)
  const stated = vector.facts.object("claims")
  if (stated !== undefined) judgeClaims(stated, claims)
  vector.note("that this endorsement key's TPM holds the attestation key is not provable from files")
}

/** `reject`: one of them does not. */
export function judgeReject(vector: VectorCase): void {
  vector.facts.value("claims")
  vector.refused("the host", () => verifyCase(vector))
}

function verifyCase(vector: VectorCase): HostClaims {
  judgeEndorsement(vector)
  const key = keyOf(vector)
  if (key.kind !== "attestation-key") throw new MalformedError("malformed", "the case has no public area of its key", { path: vector.name })
  if (vector.problems.length > 0) throw new EvidenceError("wrong-binding", vector.problems.join("; "))
  const eventLog = vector.file("eventlog.bin")
  const bundle = {
    quote: vector.file("quote.msg"),
    signature: vector.file("quote.sig"),
    akPublic: vector.file("ak.tpm2b-public", "ak.tpm2b_public"),
    eventLog,
    ima: { from: 0, list: vector.file("ima.bin") },
  }
  return verifyHost(bundle, {
    extraData: parseHex(vector.facts.text("nonce") ?? ""),
    requiredPcrs: requiredPcrs(vector.facts.text("requiredPcrs") ?? ""),
    quirks: [],
    identity: "unproved",
    previous: "none",
  }).claims
}

/** ek-certificate.der is of the key in ek.tpm2b-public and chains to the laboratory roots that the case names. */
function judgeEndorsement(vector: VectorCase): void {
  const roots = parsePemCertificates(vector.text(vector.facts.text("roots") ?? ""))
  const isRoot = (issuer: Uint8Array, subject: Uint8Array): boolean => encodeHex(issuer) === encodeHex(subject)
  const certificate = vector.file("ek-certificate.der")
  parseCertificate(certificate)
  verifyEndorsementCertificate(
    {
      certificate,
      intermediates: roots.filter((root) => !isRoot(root.issuer, root.subject)),
      publicArea: parseSizedPublicArea(vector.file("ek.tpm2b-public", "ek.tpm2b_public")),
    },
    {
      role: "endorsement",
      roots: roots
        .filter((root) => isRoot(root.issuer, root.subject))
        .map((root) => ({ certificate: root, kind: "laboratory", name: "stated by the case", isCloud: false })),
      time: Date.parse(vector.facts.text("verifyTime") ?? ""),
      revocationLists: [],
      quirks: [],
    },
  )
}

/** `sha256:0-10,14`, and words behind it. */
function requiredPcrs(text: string): PcrSelectionClaim {
  const [, bank = "", list = ""] = /^([a-z0-9]+):([0-9,-]+)/.exec(text) ?? []
  const pcrs = list.split(",").flatMap((range) => {
    const [first = Number.NaN, last = first] = range.split("-").map(Number)
    return Array.from({ length: last - first + 1 }, (_, place) => first + place)
  })
  return { bank, pcrs }
}

function judgeClaims(stated: Facts, claims: HostClaims): void {
  const { boot, ima, quote } = claims
  const all = [...ima.entries, ...ima.uncertified]
  const nameOf = (entry: ImaEntry | undefined): string => (entry === undefined ? "" : encodeHex(entry.name))
  stated.check("imaEntries", () => all.length)
  stated.check("imaCertifiedEntries", () => ima.certifiedCount)
  stated.check("imaTemplate", () => ima.entries[0]?.template ?? "")
  stated.check("imaViolations", () => ima.violations)
  stated.check("pcrSelection", () => quote.selection.map(({ bank, pcrs }) => [bank, [...pcrs]]))
  stated.check("violationFilesHex", () => all.filter((entry) => entry.violation).map(nameOf))
  stated.check("firstFilesHex", () => all.map(nameOf).filter((_name, place) => place < firstFiles))
  stated.check("lastFileHex", () => nameOf(all.at(-1)))
  stated.check("uefiEvents", () => boot.events.length)
}

/** The vectors state the names of the first four entries. */
const firstFiles = 4
