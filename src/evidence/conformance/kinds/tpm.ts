import { createPublicKey } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { MalformedError } from "../../../bytes/error.ts"
import { encodeHex, parseHex } from "../../../bytes/text.ts"
import { certificateKey, parseCertificate, parsePemCertificates } from "../../../pki/certificate.ts"
import type { Certificate } from "../../../pki/certificate.ts"
import { hash, verifySignature } from "../../../pki/signatures.ts"
import type { HashName } from "../../../pki/signatures.ts"
import { parseEventLog } from "../../eventlog/format.ts"
import { verifyEventLog } from "../../eventlog/verify.ts"
import type { QuoteClaims } from "../../tpm/claims.ts"
import { parseAttest, parseTpmSignature } from "../../tpm/format.ts"
import { publicKeyOf, tpmName } from "../../tpm/keys.ts"
import { parsePublicArea, parseSizedPublicArea } from "../../tpm/public-area.ts"
import type { PublicArea } from "../../tpm/public-area.ts"
import { parseQuote, unverifiedQuoteClaims } from "../../tpm/quote.ts"
import type { PcrValues, QuoteExpectation, QuoteKey } from "../../tpm/quote.ts"
import type { TpmSignature } from "../../tpm/format.ts"
import { parseTpm2ToolsPcrs } from "../../tpm/tpm2-tools.ts"
import { verifyEndorsementCertificate, verifyQuote } from "../../tpm/verify.ts"
import { isObject } from "../vector.ts"
import type { VectorCase } from "../vector.ts"
import { compareWithTpm, judgeLogFacts, tpmValues } from "./eventlog.ts"

/** `accept`: every quote of the case verifies, what is stated agrees, another nonce is refused, and the log explains the registers it covers. */
export function judgeAccept(vector: VectorCase): void {
  for (const quote of quotesOf(vector)) judgeQuote(vector, quote, false)
  judgeLogs(vector)
  judgeOtherForms(vector)
}

/** `accept-if-sha1-allowed`: refused as weak by default, accepted where the caller lets SHA-1 pass. */
export function judgeSha1(vector: VectorCase): void {
  for (const quote of quotesOf(vector)) {
    vector.refused("without leave for SHA-1", () => verifyQuote(quote, expectation(vector)), "weak-algorithm")
    judgeQuote(vector, quote, true)
  }
  judgeLogs(vector)
  judgeCreation(vector)
}

/** `accept-sha256-reject-sha1-log`: the quote verifies; the log explains the SHA-256 bank, and is refused for SHA-1. */
export function judgeSha256Only(vector: VectorCase): void {
  for (const quote of quotesOf(vector)) judgeQuote(vector, quote, true)
  judgeLogs(vector)
  const log = parseEventLog(vector.file("eventlog.bin"))
  const sha256 = compareWithTpm(log, "sha256", valuesOf(vector).get("sha256") ?? new Map<number, string>())
  vector.equal("registers that the log does not explain in SHA-256", sha256.mismatch, [])
  const sha1 = new Map([...(valuesOf(vector).get("sha1") ?? [])].filter(([pcr]) => pcr <= 7))
  const verify = (): unknown => verifyEventLog(vector.file("eventlog.bin"), { bank: "sha1", quotedPcrs: sha1, insecureAllowSha1: true })
  vector.refused("the SHA-1 bank of the log", verify, "pcr-mismatch")
}

/** `quote-ok-log-reject`: quote, nonce and digest are right, the log is not that of this boot. */
export function judgeLogRejected(vector: VectorCase): void {
  for (const quote of quotesOf(vector)) judgeQuote(vector, quote, false)
  judgeLogs(vector)
  const bytes = vector.file("eventlog.bin")
  for (const [bank, values] of valuesOf(vector)) {
    if (bank !== "sha256") continue
    vector.facts.check("mismatchPcrs", () => compareWithTpm(parseEventLog(bytes), bank, values).mismatch)
    const quotedPcrs = new Map([...values].filter(([pcr]) => pcr <= 7))
    vector.refused("the log", () => verifyEventLog(bytes, { bank, quotedPcrs }), "pcr-mismatch")
  }
}

/** `pcr-digest-ok`: no key is known, so nothing is verified; selection, digest over all banks and log are as stated. */
export function judgeDigestOnly(vector: VectorCase): void {
  for (const { attest, signature } of quotesOf(vector)) {
    if (!(signature instanceof Uint8Array)) return vector.problem("the signature has no TPM form")
    judgeQuoteFacts(vector, unverifiedQuoteClaims(attest, signature, { ...expectation(vector), insecureAllowSha1: true }))
  }
  judgeLogs(vector)
  vector.note("no key is known: the signature is not verified")
}

/** `reject`: what stands where a quote is required is refused, for the stated reason. */
export function judgeReject(vector: VectorCase): void {
  const reason = vector.facts.text("reason")
  const codes = reason === undefined ? [] : [reason]
  const attest = vector.optional("attest.msg")
  if (attest !== undefined) {
    vector.refused("as a quote", () => parseQuote(attest), ...codes)
    judgeCertified(vector, attest)
    return
  }
  vector.refused(
    "the quote",
    () => {
      for (const quote of quotesOf(vector)) verifyQuote(quote, expectation(vector))
    },
    ...codes,
  )
}

interface CaseQuote {
  readonly attest: Uint8Array
  readonly signature: Uint8Array | TpmSignature
  readonly key: QuoteKey
}

/** `quote.msg` or `quote-<bank>.msg`, with `.sig` (TPMT_SIGNATURE) or `.sig.raw` (an RSASSA-SHA-256 value). */
function quotesOf(vector: VectorCase): readonly CaseQuote[] {
  const names = vector.names(/^quote(-[a-z0-9]+)?\.msg$/)
  if (names.length === 0) throw new MalformedError("malformed", "the case has no quote", { path: vector.name })
  const key = keyOf(vector)
  return names.map((name) => {
    const base = name.replace(/\.msg$/, "")
    const raw = vector.optional(`${base}.sig.raw`)
    const signature = raw === undefined ? vector.file(`${base}.sig`) : ({ algorithm: "rsassa", hash: "sha256", signature: raw } as const)
    return { attest: vector.file(name), signature, key }
  })
}

/** The attestation key in whatever forms the case has it; all must be the same key, and one with a public area is preferred. */
export function keyOf(vector: VectorCase): QuoteKey {
  const area = publicAreaOf(vector)
  const keys: KeyObject[] = area === undefined ? [] : [publicKeyOf(area)]
  for (const name of vector.names(/^(ak|aik)(\.pub)?\.pem$/)) keys.push(createPublicKey(vector.text(name)))
  for (const certificate of attestationCertificates(vector)) keys.push(certificateKey(certificate))
  const [first, ...others] = keys
  if (first === undefined) return { kind: "bare-key", key: noKey }
  if (others.some((key) => !first.equals(key))) vector.problem("the case's forms of the attestation key differ")
  return area === undefined ? { kind: "bare-key", key: first } : { kind: "attestation-key", area }
}

function publicAreaOf(vector: VectorCase): PublicArea | undefined {
  const plain = vector.firstOf("ak.tpmt_public", "ak.tpmt-public")
  if (plain !== undefined) return parsePublicArea(plain)
  const sized = vector.firstOf("ak.tpm2b_public", "ak.tpm2b-public")
  return sized === undefined ? undefined : parseSizedPublicArea(sized)
}

function attestationCertificates(vector: VectorCase): readonly Certificate[] {
  const der = vector.optional("ak-cert.der")
  const pem = vector.optional("aik-cert.pem")
  return [...(der === undefined ? [] : [parseCertificate(der)]), ...(pem === undefined ? [] : parsePemCertificates(vector.text("aik-cert.pem")))]
}

function expectation(vector: VectorCase): QuoteExpectation {
  return { extraData: parseHex(vector.facts.text("nonce") ?? ""), selection: "as-signed", pcrs: valuesOf(vector) }
}

/** Register values: pcrs.json, or the register file of tpm2-tools. */
function valuesOf(vector: VectorCase): PcrValues {
  const tools = vector.optional("quote.pcrs")
  return tools === undefined ? tpmValues(vector.json("pcrs.json")) : parseTpm2ToolsPcrs(tools)
}

/** SHA-1 banks are part of many quotes; leave for them is given where the quote has one, and the claims must then say so. */
function judgeQuote(vector: VectorCase, quote: CaseQuote, insecureAllowSha1: boolean): void {
  const hasSha1 = parseQuote(quote.attest).quote.selection.some(({ bank }) => bank === "sha1")
  const expected = { ...expectation(vector), insecureAllowSha1: insecureAllowSha1 || hasSha1 }
  const { claims } = verifyQuote(quote, expected)
  vector.equal("usesSha1", claims.usesSha1, hasSha1 || claims.scheme.endsWith("sha1"))
  judgeQuoteFacts(vector, claims)
  const negative = vector.facts.text("negativeNonce")
  const others = [...(negative === undefined ? [] : [parseHex(negative)]), new Uint8Array(20).fill(1)]
  for (const extraData of others) vector.refused("another nonce", () => verifyQuote(quote, { ...expected, extraData }), "wrong-nonce")
}

function judgeQuoteFacts(vector: VectorCase, claims: QuoteClaims): void {
  vector.facts.check("selection", () => claims.selection.map(({ bank, pcrs }) => ({ bank, pcrs: [...pcrs] })))
  vector.facts.check("pcrDigest", () => claims.pcrDigest)
  vector.facts.check("qualifiedSigner", () => claims.qualifiedSigner)
  vector.facts.check("firmwareVersion", () => `0x${claims.firmwareVersion.toString(16)}`)
}

/** The boot logs: as stated below `logs`, else every register that a log covers must be explained by it. */
function judgeLogs(vector: VectorCase): void {
  const values = valuesOf(vector)
  const stated = vector.facts.object("logs")
  for (const name of vector.names(/eventlog.*\.bin$/)) {
    const log = parseEventLog(vector.file(name))
    const facts = stated?.object(name)
    if (facts === undefined) {
      for (const [bank, registers] of values) {
        const { match, mismatch } = compareWithTpm(log, bank, registers)
        vector.equal(`registers that ${name} does not explain (${bank})`, mismatch, [])
        if (match.length > 0) vector.note(`${bank}: the log explains ${match.join(", ")}`)
      }
      continue
    }
    judgeLogFacts(vector, facts, log)
    const replay = facts.object("replay")
    for (const bank of replay?.keys ?? []) replay?.check(bank, () => compareWithTpm(log, bank, values.get(bank) ?? new Map<number, string>()))
  }
}

/** Other files of accepted cases: certificate chains of the key, and the same evidence in the wire form of its source. */
function judgeOtherForms(vector: VectorCase): void {
  judgeAttestationChain(vector)
  const blob = vector.optional("quote-blob.bin")
  if (blob !== undefined && !encodeHex(blob).startsWith(sizedHex(vector.file("quote.msg")) + encodeHex(vector.file("quote.sig"))))
    vector.problem("quote-blob.bin is not made of the case's quote and signature")
  if (vector.optional("evidence.json") !== undefined) judgeTrusteeEvidence(vector)
  if (vector.optional("aik-cert.pem") !== undefined) vector.note("the certificate of the key is issued by an authority that nobody here trusts")
}

function sizedHex(bytes: Uint8Array): string {
  return bytes.length.toString(16).padStart(4, "0") + encodeHex(bytes)
}

/** ak-cert.der under ek-intermediate.der and ek-root.der: verifies at the stated time; not without the intermediate, not for another key. */
function judgeAttestationChain(vector: VectorCase): void {
  const certificate = vector.optional("ak-cert.der")
  const root = vector.optional("ek-root.der")
  const intermediate = vector.optional("ek-intermediate.der")
  const area = publicAreaOf(vector)
  if (certificate === undefined || root === undefined || intermediate === undefined || area === undefined) return
  const time = Date.parse(vector.facts.text("verifyTime") ?? "")
  const roots = [{ certificate: parseCertificate(root), kind: "laboratory", name: "stated by the case", isCloud: true } as const]
  const verify = (intermediates: readonly Certificate[], publicArea: PublicArea): unknown =>
    verifyEndorsementCertificate({ certificate, intermediates, publicArea }, { role: "attestation", roots, time, revocationLists: [], quirks: [] })
  verify([parseCertificate(intermediate)], area)
  vector.refused("without the intermediate certificate", () => verify([], area), "wrong-chain")
  if (area.type !== "rsa") return
  const other = { ...area, unique: Uint8Array.from(area.unique, (byte, place) => (place === 5 ? byte ^ 1 : byte)) }
  vector.refused("the certificate of another key", () => verify([parseCertificate(intermediate)], other), "wrong-binding")
}

/** evidence.json of Confidential Containers: base64 of key, message and signature, and the registers as a list. */
function judgeTrusteeEvidence(vector: VectorCase): void {
  const document = vector.json("evidence.json")
  const quote = isObject(document) ? document["tpm_quote"] : undefined
  if (!isObject(document) || !isObject(quote)) return vector.problem("evidence.json has another form")
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64")
  const key = keyOf(vector)
  if (key.kind === "bare-key")
    vector.equal("ak_public", document["ak_public"] ?? null, base64(new Uint8Array(key.key.export({ format: "der", type: "spki" }))))
  vector.equal("message", quote["message"] ?? null, base64(vector.file("quote.msg")))
  vector.equal("signature", quote["signature"] ?? null, base64(vector.file("quote.sig")))
  vector.equal("pcrs", quote["pcrs"] ?? null, [...(valuesOf(vector).get("sha256") ?? new Map<number, string>()).values()])
}

/** TPM2_CertifyCreation of the key: right by itself, never a quote. */
function judgeCreation(vector: VectorCase): void {
  const attest = vector.optional("ak.creation-attest")
  if (attest === undefined) return
  vector.refused("the key's creation as a quote", () => parseQuote(attest), "not-a-quote")
  const { attested } = parseAttest(attest)
  const area = publicAreaOf(vector)
  if (attested.type !== "creation" || area === undefined) return vector.problem("ak.creation-attest is no certificate of creation")
  vector.equal("name of the created key", encodeHex(attested.objectName), encodeHex(tpmName(area)))
  vector.equal("creation hash", encodeHex(attested.creationHash), encodeHex(hash(area.nameAlg, vector.file("ak.creation-data"))))
  const signature = parseTpmSignature(vector.file("ak.creation-sig"))
  if (signature.algorithm !== "rsassa") return vector.problem("ak.creation-sig has another scheme")
  verifySignature(`rsassa-${signature.hash}`, publicKeyOf(area), attest, signature.signature, { insecureAllowSha1: true })
}

/** TPM2_Certify of a key, signed raw by a certified attestation key: right by itself. */
function judgeCertified(vector: VectorCase, attest: Uint8Array): void {
  vector.facts.check("attestType", () => `0x${encodeHex(attest.slice(4, 6))}`)
  const { attested } = parseAttest(attest)
  const key = vector.optional("certified-key.tpmt_public")
  if (attested.type !== "certify") return vector.problem(`attest.msg is of type ${attested.type}`)
  if (key !== undefined) vector.equal("name of the certified key", encodeHex(attested.name), encodeHex(tpmName(parsePublicArea(key))))
  const leaf = parseCertificate(vector.file("aik-leaf.der"))
  const issuer = parseCertificate(vector.file("aik-ca-1.der"))
  vector.equal("issuer of the key's certificate", encodeHex(leaf.issuer), encodeHex(issuer.subject))
  const signature = vector.file("attest.sig.raw")
  const fits = (["sha256", "sha1"] as const).filter((name) => isSignedBy(certificateKey(leaf), name, attest, signature))
  vector.equal("hashes under which the signature is right", fits.length, 1)
}

function isSignedBy(key: KeyObject, name: HashName & ("sha1" | "sha256"), message: Uint8Array, signature: Uint8Array): boolean {
  try {
    verifySignature(`rsassa-${name}`, key, message, signature, { insecureAllowSha1: true })
    return true
  } catch {
    // The other hash is tried; what counts is that exactly one fits.
    return false
  }
}

/** Stands in where a case has no key: a quote can then only be looked at, and nothing verifies under it. */
const noKey = createPublicKey({
  key: { kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
  format: "jwk",
})
