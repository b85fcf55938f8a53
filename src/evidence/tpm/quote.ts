import type { KeyObject } from "node:crypto"
import { bytesEqual, concatBytes } from "../../bytes/compare.ts"
import { encodeHex, parseHex } from "../../bytes/text.ts"
import { hash, hashSizes, isSignatureScheme, verifySignature } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { isHashName } from "./algorithms.ts"
import { checkAttestationKey } from "./attestation-key.ts"
import type { PcrSelectionClaim, QuoteClaims } from "./claims.ts"
import { parseAttest, parseTpmSignature } from "./format.ts"
import type { AttestedQuote, Attest, PcrSelection, TpmSignature } from "./format.ts"
import { padStart, tpmNameText } from "./keys.ts"
import { asEvidence } from "./pki-errors.ts"
import type { PublicArea } from "./public-area.ts"

/** The checks of a quote; `verify.ts` joins them to a proof. */

/** Register values by bank and index, lower-case hexadecimal. */
export type PcrValues = ReadonlyMap<string, ReadonlyMap<number, string>>

export interface QuoteExpectation {
  /** What the quote must carry as extraData: the session digest, 32 bytes; other evidence may use up to 64. */
  readonly extraData: Uint8Array
  /** The registers that must be quoted, exactly; `as-signed` takes what the signed structure says, for evidence whose reader judges coverage itself. */
  readonly selection: readonly PcrSelectionClaim[] | "as-signed"
  /** Values computed from logs, or read from the TPM where no log explains them; all that are quoted must be there. */
  readonly pcrs: PcrValues
  /** Lets SHA-1 pass, as bank and in the signature; the claims then say so. */
  readonly insecureAllowSha1?: boolean
}

/** The key that a quote must be signed with. */
export type QuoteKey =
  /** With its public area, whose attributes are checked. */
  | { readonly kind: "attestation-key"; readonly area: PublicArea }
  /** Without: then nothing says that the key is in a TPM, nor that it signs quotes only. */
  | { readonly kind: "bare-key"; readonly key: KeyObject }

export interface SignedQuote {
  readonly attest: Attest
  readonly quote: AttestedQuote
  readonly signature: TpmSignature
  /** `rsassa-sha256`, … */
  readonly scheme: string
  /** Name of the signing key, lower-case hexadecimal, where its public area was given. */
  readonly keyName?: string
}

/**
 * Parses a quote and checks its signature.
 * @throws {MalformedError} form; @throws {EvidenceError} `not-a-quote`, `wrong-key`, `weak-algorithm`, `wrong-signature`, `unsupported`
 */
export function checkQuoteSignature(bytes: Uint8Array, signature: Uint8Array | TpmSignature, key: QuoteKey, insecureAllowSha1: boolean): SignedQuote {
  const { attest, quote } = parseQuote(bytes)
  const parsed = signature instanceof Uint8Array ? parseTpmSignature(signature) : signature
  const scheme = `${parsed.algorithm}-${parsed.hash}`
  if (key.kind === "attestation-key") checkSchemeFits(key.area, parsed)
  const publicKey = key.kind === "attestation-key" ? checkAttestationKey(key.area) : key.key
  if (!isSignatureScheme(scheme)) throw new EvidenceError("weak-algorithm", `signature scheme ${scheme}`, { path: "TPMT_SIGNATURE" })
  const options = { ecdsa: "raw", insecureAllowSha1 } as const
  asEvidence("TPMT_SIGNATURE", () => verifySignature(scheme, publicKey, bytes, signatureBytes(parsed, publicKey), options))
  return { attest, quote, signature: parsed, scheme, ...(key.kind === "attestation-key" ? { keyName: tpmNameText(key.area) } : {}) }
}

/** @throws {EvidenceError} `not-a-quote` */
export function parseQuote(bytes: Uint8Array): { readonly attest: Attest; readonly quote: AttestedQuote } {
  const attest = parseAttest(bytes)
  if (attest.attested.type !== "quote") throw new EvidenceError("not-a-quote", `type ${attest.attested.type}`, { path: "TPMS_ATTEST.type" })
  return { attest, quote: attest.attested }
}

/**
 * Compares nonce and selection of a parsed quote with what is expected: everything that can be said before register values are computed.
 * @throws {EvidenceError} `wrong-nonce`, `wrong-selection`
 */
export function checkQuoteBinding(attest: Attest, quote: AttestedQuote, expectation: Pick<QuoteExpectation, "extraData" | "selection">): void {
  if (!bytesEqual(attest.extraData, expectation.extraData)) {
    throw new EvidenceError("wrong-nonce", `extraData ${encodeHex(attest.extraData)}, expected ${encodeHex(expectation.extraData)}`, {
      path: "TPMS_ATTEST.extraData",
    })
  }
  checkSelection(quote.selection, expectation.selection)
}

/**
 * Compares nonce, selection and registers of a parsed quote with what is expected, and gives the claims. Proves nothing without the signature.
 * @throws {EvidenceError} `wrong-nonce`, `wrong-selection`, `weak-algorithm`, `unsupported`, `missing-piece`, `pcr-mismatch`
 */
export function checkQuoteContents(
  attest: Attest,
  quote: AttestedQuote,
  signature: { readonly hash: HashName; readonly scheme: string; readonly keyName?: string },
  expectation: QuoteExpectation,
): QuoteClaims {
  checkQuoteBinding(attest, quote, expectation)
  const usesSha1 = signature.hash === "sha1" || quote.selection.some(({ bank }) => bank === "sha1")
  if (usesSha1 && expectation.insecureAllowSha1 !== true)
    throw new EvidenceError("weak-algorithm", "sha-1 bank or signature", { path: "TPMS_ATTEST" })
  const pcrs = selectedValues(quote.selection, expectation.pcrs)
  const computed = pcrDigest(signature.hash, pcrs)
  if (!bytesEqual(computed, quote.pcrDigest)) {
    throw new EvidenceError(
      "pcr-mismatch",
      `the quoted registers hash to ${encodeHex(quote.pcrDigest)}, the given values to ${encodeHex(computed)}`,
      {
        path: "TPMS_ATTEST.pcrDigest",
      },
    )
  }
  return {
    selection: quote.selection,
    pcrDigest: encodeHex(quote.pcrDigest),
    pcrs,
    clockInfo: attest.clockInfo,
    firmwareVersion: attest.firmwareVersion,
    qualifiedSigner: encodeHex(attest.qualifiedSigner),
    scheme: signature.scheme,
    usesSha1,
    ...(signature.keyName === undefined ? {} : { keyName: signature.keyName }),
  }
}

/**
 * What a quote says whose signature nobody can check (no key is known): proves nothing, is for inspection only and is never `Genuine`.
 * @throws as checkQuoteContents
 */
export function unverifiedQuoteClaims(attestBytes: Uint8Array, signature: Uint8Array, expectation: QuoteExpectation): QuoteClaims {
  const { attest, quote } = parseQuote(attestBytes)
  const parsed = parseTpmSignature(signature)
  return checkQuoteContents(attest, quote, { hash: parsed.hash, scheme: `unverified-${parsed.algorithm}-${parsed.hash}` }, expectation)
}

/** A scheme that the key fixes binds the signature: TPM 2.0 Library Part 1, 27.3 (a restricted key signs with its own scheme only). */
function checkSchemeFits(area: PublicArea, signature: TpmSignature): void {
  const own = area.scheme
  if (own !== undefined && (own.scheme !== signature.algorithm || own.hash !== signature.hash)) {
    throw new EvidenceError("wrong-key", `signature ${signature.algorithm}-${signature.hash} by a key for ${own.scheme}-${own.hash}`, {
      path: "TPMT_SIGNATURE",
    })
  }
}

/** Field sizes of the curves that may sign quotes, in bytes. */
const fieldSizes: ReadonlyMap<string, number> = new Map([
  ["prime256v1", 32],
  ["secp384r1", 48],
])

function signatureBytes(signature: TpmSignature, key: KeyObject): Uint8Array {
  if (signature.algorithm !== "ecdsa") return signature.signature
  const size = fieldSizes.get(key.asymmetricKeyDetails?.namedCurve ?? "")
  if (size === undefined) throw new EvidenceError("wrong-key", "ecdsa signature by a key that is not on P-256 or P-384", { path: "TPMT_SIGNATURE" })
  return concatBytes(padStart(signature.r, size), padStart(signature.s, size))
}

function checkSelection(signed: readonly PcrSelection[], expected: readonly PcrSelectionClaim[] | "as-signed"): void {
  if (signed.every(({ pcrs }) => pcrs.length === 0))
    throw new EvidenceError("wrong-selection", "no register is quoted", { path: "TPMS_ATTEST.pcrSelect" })
  if (expected === "as-signed") return
  const [found, wanted] = [describeSelection(signed), describeSelection(expected)]
  if (found !== wanted) throw new EvidenceError("wrong-selection", `${found} quoted, ${wanted} required`, { path: "TPMS_ATTEST.pcrSelect" })
}

/** One text per selection, whatever the order of banks: `sha1:0,1 sha256:0`. */
function describeSelection(selection: readonly PcrSelectionClaim[]): string {
  return selection
    .map(({ bank, pcrs }) => `${bank}:${[...pcrs].sort((a, b) => a - b).join(",")}`)
    .sort()
    .join(" ")
}

function selectedValues(selection: readonly PcrSelection[], values: PcrValues): Map<string, Map<number, string>> {
  const result = new Map<string, Map<number, string>>()
  for (const { bank, pcrs } of selection) {
    if (!isHashName(bank)) throw new EvidenceError("unsupported", `bank ${bank}`, { path: "TPMS_ATTEST.pcrSelect" })
    const chosen = new Map<number, string>()
    for (const pcr of pcrs) {
      const value = values.get(bank)?.get(pcr)
      if (value === undefined) throw new EvidenceError("missing-piece", `register ${bank}:${pcr} is quoted, but no value is known for it`)
      if (parseHex(value, `pcr ${bank}:${pcr}`).length !== hashSizes[bank])
        throw new EvidenceError("pcr-mismatch", `value of register ${bank}:${pcr} has not the length of its bank`)
      chosen.set(pcr, value)
    }
    result.set(bank, chosen)
  }
  return result
}

/** Digest over the values in the order of the signed selection. TPM 2.0 Library Part 3, TPM2_Quote: with the hash of the signing scheme. */
function pcrDigest(algorithm: HashName, pcrs: PcrValues): Uint8Array {
  return hash(algorithm, ...[...pcrs.values()].flatMap((bank) => [...bank.values()].map((value) => parseHex(value))))
}
