import type { ByteReader } from "../../bytes/reader.ts"
import { readAll } from "../../bytes/reader.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import type { HashName } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { algorithmId, algorithmName, isBankName } from "./algorithms.ts"
import type { BankName } from "./algorithms.ts"
import type { ClockInfo } from "./claims.ts"
import { readHash, readSized } from "./public-area.ts"

/** PCRs of one hash bank. TPMS_PCR_SELECTION, TPM 2.0 Library Part 2, 10.6.2. */
export interface PcrSelection {
  readonly bank: BankName
  /** Register indices, ascending, each 0 to 23. */
  readonly pcrs: readonly number[]
}

/** TPMS_ATTEST, TPM 2.0 Library Part 2, 10.12.12. */
export interface Attest {
  /** TPM2B_NAME of the signing key's qualified name. */
  readonly qualifiedSigner: Uint8Array
  readonly extraData: Uint8Array
  readonly clockInfo: ClockInfo
  readonly firmwareVersion: bigint
  readonly attested: AttestedQuote | AttestedCertify | AttestedCreation
}

/** TPMS_QUOTE_INFO; TPM_ST_ATTEST_QUOTE. */
export interface AttestedQuote {
  readonly type: "quote"
  readonly selection: readonly PcrSelection[]
  readonly pcrDigest: Uint8Array
}

/** TPMS_CERTIFY_INFO; TPM_ST_ATTEST_CERTIFY. */
export interface AttestedCertify {
  readonly type: "certify"
  readonly name: Uint8Array
  readonly qualifiedName: Uint8Array
}

/** TPMS_CREATION_INFO; TPM_ST_ATTEST_CREATION. */
export interface AttestedCreation {
  readonly type: "creation"
  readonly objectName: Uint8Array
  readonly creationHash: Uint8Array
}

/** TPMT_SIGNATURE, TPM 2.0 Library Part 2, 11.3.4: RSASSA, RSAPSS and ECDSA. */
export type TpmSignature =
  | { readonly algorithm: "rsassa" | "rsapss"; readonly hash: HashName; readonly signature: Uint8Array }
  | {
      readonly algorithm: "ecdsa"
      readonly hash: HashName
      /** Big-endian; a TPM may leave out leading zero bytes. */
      readonly r: Uint8Array
      readonly s: Uint8Array
    }

/** TPMS_ID_OBJECT: a credential wrapped for one key on one TPM. TPM 2.0 Library Part 2, 12.4.2. */
export interface IdObject {
  readonly integrityHmac: Uint8Array
  readonly encIdentity: Uint8Array
}

/** TPM_GENERATED_VALUE: a TPM never signs data from outside that starts with it under a restricted key. */
const generatedValue = 0xff544347

const attestTypes: ReadonlyMap<number, "quote" | "certify" | "creation"> = new Map([
  [0x8017, "certify"],
  [0x8018, "quote"],
  [0x801a, "creation"],
])

/** Handle or algorithm and SHA-512 digest. */
const maxNameBytes = 66
/** sizeof(TPMT_HA): TPM2B_DATA is no larger. */
const maxExtraDataBytes = 66
const maxDigestBytes = 64
/** RSA 4096. */
const maxSignatureBytes = 512
const maxEccBytes = 66
/** HASH_COUNT of the reference implementation; each bank once. */
const maxSelections = 16
/** PC Client TPMs have 24 registers, so their bitmap has 3 bytes; other lengths are refused. */
const bitmapBytes = 3
/** HMAC with its size, and a secret of at most a SHA-512 digest with its size. */
const maxIdObjectBytes = 2 * (2 + maxDigestBytes)

/**
 * Reads a whole TPMS_ATTEST.
 * @throws {MalformedError} form; @throws {EvidenceError} `not-a-quote` without TPM_GENERATED_VALUE or of a type unknown here
 */
export function parseAttest(bytes: Uint8Array): Attest {
  return readAll("TPMS_ATTEST", bytes, readAttest)
}

/** Reads a whole TPMT_SIGNATURE. @throws {MalformedError} form; @throws {EvidenceError} `unsupported` */
export function parseTpmSignature(bytes: Uint8Array): TpmSignature {
  return readAll("TPMT_SIGNATURE", bytes, readTpmSignature)
}

/** Reads a whole TPML_PCR_SELECTION. @throws {MalformedError} form; @throws {EvidenceError} `unsupported` */
export function parsePcrSelections(bytes: Uint8Array): readonly PcrSelection[] {
  return readAll("TPML_PCR_SELECTION", bytes, readPcrSelections)
}

/** Reads a whole TPM2B_ID_OBJECT. @throws {MalformedError} form */
export function parseIdObject(bytes: Uint8Array): IdObject {
  return readAll("TPM2B_ID_OBJECT", bytes, (reader) => {
    const size = reader.u16be("size")
    if (size > maxIdObjectBytes) throw reader.error("too-large", "size", `${size} bytes, at most ${maxIdObjectBytes} are allowed`)
    const inner = reader.sub(size, "credential")
    return { integrityHmac: readSized(inner, maxDigestBytes, "integrityHMAC"), encIdentity: inner.rest("encIdentity") }
  })
}

export function encodeIdObject(object: IdObject): Uint8Array {
  return new ByteWriter().sized16be(new ByteWriter().sized16be(object.integrityHmac).bytes(object.encIdentity).take()).take()
}

export function readAttest(reader: ByteReader): Attest {
  const magic = reader.u32be("magic")
  if (magic !== generatedValue) throw new EvidenceError("not-a-quote", `magic 0x${magic.toString(16)}`, { path: "TPMS_ATTEST.magic" })
  const typeId = reader.u16be("type")
  const type = attestTypes.get(typeId)
  if (type === undefined) throw new EvidenceError("not-a-quote", `type 0x${typeId.toString(16)}`, { path: "TPMS_ATTEST.type" })
  return {
    qualifiedSigner: readSized(reader, maxNameBytes, "qualifiedSigner"),
    extraData: readSized(reader, maxExtraDataBytes, "extraData"),
    clockInfo: readClockInfo(reader),
    firmwareVersion: reader.u64be("firmwareVersion"),
    attested: readAttested(reader, type),
  }
}

/** Everything that a TPM would have written; for laboratory devices and tests. */
export function encodeAttest(attest: Attest): Uint8Array {
  const { attested, clockInfo } = attest
  const typeId = [...attestTypes].find(([, name]) => name === attested.type)?.[0] ?? 0
  const writer = new ByteWriter()
    .u32be(generatedValue)
    .u16be(typeId)
    .sized16be(attest.qualifiedSigner)
    .sized16be(attest.extraData)
    .u64be(clockInfo.clock)
    .u32be(clockInfo.resetCount)
    .u32be(clockInfo.restartCount)
    .u8(clockInfo.safe ? 1 : 0)
    .u64be(attest.firmwareVersion)
  switch (attested.type) {
    case "quote":
      return writer.bytes(encodePcrSelections(attested.selection)).sized16be(attested.pcrDigest).take()
    case "certify":
      return writer.sized16be(attested.name).sized16be(attested.qualifiedName).take()
    case "creation":
      return writer.sized16be(attested.objectName).sized16be(attested.creationHash).take()
  }
}

export function readTpmSignature(reader: ByteReader): TpmSignature {
  const id = reader.u16be("sigAlg")
  const algorithm = algorithmName(id)
  switch (algorithm) {
    case "rsassa":
    case "rsapss":
      return { algorithm, hash: readHash(reader, "hash"), signature: readSized(reader, maxSignatureBytes, "sig") }
    case "ecdsa":
      return {
        algorithm,
        hash: readHash(reader, "hash"),
        r: readSized(reader, maxEccBytes, "signatureR"),
        s: readSized(reader, maxEccBytes, "signatureS"),
      }
    default:
      throw new EvidenceError("unsupported", `signature algorithm 0x${id.toString(16)}`, { path: "TPMT_SIGNATURE.sigAlg" })
  }
}

export function encodeTpmSignature(signature: TpmSignature): Uint8Array {
  const writer = new ByteWriter().u16be(algorithmId(signature.algorithm)).u16be(algorithmId(signature.hash))
  if (signature.algorithm === "ecdsa") return writer.sized16be(signature.r).sized16be(signature.s).take()
  return writer.sized16be(signature.signature).take()
}

export function readPcrSelections(reader: ByteReader): readonly PcrSelection[] {
  const count = reader.u32be("count")
  if (count > maxSelections) throw reader.error("too-large", "count", `${count} selections, at most ${maxSelections} are allowed`)
  const selections: PcrSelection[] = []
  for (let index = 0; index < count; index++) {
    const selection = readPcrSelection(reader)
    if (selections.some(({ bank }) => bank === selection.bank)) throw reader.error("duplicate", "hash", `bank ${selection.bank} is selected twice`)
    selections.push(selection)
  }
  return selections
}

export function encodePcrSelections(selections: readonly PcrSelection[]): Uint8Array {
  const writer = new ByteWriter().u32be(selections.length)
  for (const { bank, pcrs } of selections) {
    writer.u16be(algorithmId(bank)).u8(bitmapBytes)
    for (let byte = 0; byte < bitmapBytes; byte++)
      writer.u8([...new Set(pcrs)].filter((pcr) => Math.floor(pcr / 8) === byte).reduce((sum, pcr) => sum + 2 ** (pcr % 8), 0))
  }
  return writer.take()
}

function readPcrSelection(reader: ByteReader): PcrSelection {
  const id = reader.u16be("hash")
  const bank = algorithmName(id)
  if (!isBankName(bank)) throw new EvidenceError("unsupported", `bank 0x${id.toString(16)}`, { path: "TPMS_PCR_SELECTION.hash" })
  const size = reader.u8("sizeofSelect")
  if (size !== bitmapBytes) throw reader.error("malformed", "sizeofSelect", `${size} bytes, expected ${bitmapBytes}`)
  const bitmap = reader.bytes(bitmapBytes, "pcrSelect")
  const pcrs: number[] = []
  bitmap.forEach((byte, place) => {
    for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) pcrs.push(place * 8 + bit)
  })
  return { bank, pcrs }
}

function readClockInfo(reader: ByteReader): ClockInfo {
  return {
    clock: reader.u64be("clockInfo.clock"),
    resetCount: reader.u32be("clockInfo.resetCount"),
    restartCount: reader.u32be("clockInfo.restartCount"),
    safe: readYesNo(reader, "clockInfo.safe"),
  }
}

function readYesNo(reader: ByteReader, field: string): boolean {
  const value = reader.u8(field)
  if (value > 1) throw reader.error("malformed", field, `${value} is neither yes nor no`)
  return value === 1
}

function readAttested(reader: ByteReader, type: "quote" | "certify" | "creation"): Attest["attested"] {
  switch (type) {
    case "quote":
      return { type, selection: readPcrSelections(reader), pcrDigest: readSized(reader, maxDigestBytes, "pcrDigest") }
    case "certify":
      return { type, name: readSized(reader, maxNameBytes, "name"), qualifiedName: readSized(reader, maxNameBytes, "qualifiedName") }
    case "creation":
      return { type, objectName: readSized(reader, maxNameBytes, "objectName"), creationHash: readSized(reader, maxDigestBytes, "creationHash") }
  }
}
