import { bytesEqual } from "../../../bytes/compare.ts"
import { readAll } from "../../../bytes/reader.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash } from "../../../pki/signatures.ts"
import type { BankName } from "../algorithms.ts"
import { encodePcrSelections, readPcrSelections, type PcrSelection } from "../format.ts"
import { encodePublicArea, readSized, type KeyedHashPublicArea, type ObjectAttribute } from "../public-area.ts"
import { create, load, policyPcr, readPcrs, startSession, unseal, type PcrValues } from "./commands.ts"
import type { TpmConnection } from "./connection.ts"
import { commandCodes } from "./constants.ts"
import { TpmError } from "./errors.ts"
import { openStorageKey } from "./keys.ts"

/** Bytes that only this TPM opens, and only while the registers are as they were; safe to keep on any disk. */
export interface SealedBytes {
  /** Name of the storage key that wraps them: another TPM, or a cleared one, has another. */
  readonly parentName: Uint8Array
  readonly selection: PcrSelection
  /** Content of the TPM2B_PRIVATE. */
  readonly privateBytes: Uint8Array
  /** TPMT_PUBLIC. */
  readonly publicBytes: Uint8Array
}

/** MAX_SYM_DATA of the reference implementation: what a sealed data object holds. */
export const maxSealedBytes = 128

const sealedAttributes: ReadonlySet<ObjectAttribute> = new Set<ObjectAttribute>(["fixedTPM", "fixedParent", "noDA"])

/**
 * Seals up to 128 bytes to the registers as they are now, or to the values given for them. There is no way around the registers: userWithAuth is clear.
 * The bytes cross the bus encrypted, in a session salted to the storage key.
 * @throws {TypeError} for too much or too little data
 */
export async function sealToPcrs(tpm: TpmConnection, data: Uint8Array, selection: PcrSelection, values?: PcrValues): Promise<SealedBytes> {
  if (data.length === 0 || data.length > maxSealedBytes) throw new TypeError(`${data.length} bytes to seal, 1 to ${maxSealedBytes} fit`)
  const authPolicy = pcrPolicy(selection, values ?? (await readPcrs(tpm, selection)))
  const template: KeyedHashPublicArea = { type: "keyedhash", nameAlg: "sha256", attributes: sealedAttributes, authPolicy, unique: new Uint8Array(0) }
  await using parent = await openStorageKey(tpm)
  await using session = await startSession(tpm, { kind: "hmac", saltKey: parent })
  const use = { session, authValue: new Uint8Array(0), entityName: parent.name, decrypt: true }
  const object = await create(tpm, parent, use, encodePublicArea(template), data)
  return { parentName: parent.name, selection, ...object }
}

/**
 * Opens sealed bytes, in sessions salted to the storage key, with the answer encrypted.
 * @throws {TpmError} `policy-failed` where a register has another value than it was sealed to; `wrong-credential` on another TPM, or where the bytes were changed
 */
export async function unsealFromPcrs(tpm: TpmConnection, sealed: SealedBytes): Promise<Uint8Array> {
  await using parent = await openStorageKey(tpm)
  if (!bytesEqual(parent.name, sealed.parentName))
    throw new TpmError("wrong-credential", "unseal: sealed by another TPM, or before this one was cleared")
  await using object = await loadSealed(tpm, parent, sealed)
  await using session = await startSession(tpm, { kind: "policy", saltKey: parent })
  await policyPcr(tpm, session, [sealed.selection])
  return await unseal(tpm, object, { session, authValue: new Uint8Array(0), entityName: object.name, encrypt: true })
}

async function loadSealed(tpm: TpmConnection, parent: Awaited<ReturnType<typeof openStorageKey>>, sealed: SealedBytes): ReturnType<typeof load> {
  await using session = await startSession(tpm, { kind: "hmac", saltKey: parent })
  return await load(tpm, parent, { session, authValue: new Uint8Array(0), entityName: parent.name }, sealed)
}

/** The policy that PolicyPCR alone leaves in a session. TPM 2.0 Library Part 3, 23.7.1. */
export function pcrPolicy(selection: PcrSelection, values: PcrValues): Uint8Array {
  const digests = selection.pcrs.map((pcr) => {
    const value = values.get(pcr)
    if (value === undefined) throw new TypeError(`no value for register ${pcr}`)
    return value
  })
  const start = new ByteWriter().bytes(new Uint8Array(32)).u32be(commandCodes.PolicyPcr).take()
  return hash("sha256", start, encodePcrSelections([selection]), hash("sha256", ...digests))
}

/** Sealed bytes as one blob: each part behind its length. */
export function encodeSealedBytes({ parentName, selection, privateBytes, publicBytes }: SealedBytes): Uint8Array {
  return new ByteWriter()
    .sized16be(parentName)
    .sized16be(encodePcrSelections([selection]))
    .sized16be(privateBytes)
    .sized16be(publicBytes)
    .take()
}

/** @throws {MalformedError} for a blob that `encodeSealedBytes` does not make */
export function parseSealedBytes(bytes: Uint8Array): SealedBytes {
  return readAll("sealed bytes", bytes, (reader) => {
    const parentName = readSized(reader, maxPartBytes, "parentName")
    const selections = readAll("selection", readSized(reader, maxPartBytes, "selection"), readPcrSelections)
    const [selection] = selections
    if (selection === undefined || selections.length !== 1) throw reader.error("malformed", "selection", "is not of exactly one bank")
    const privateBytes = readSized(reader, maxPartBytes, "private")
    return { parentName, selection, privateBytes, publicBytes: readSized(reader, maxPartBytes, "public") }
  })
}

/** A TPM2B_PRIVATE of 128 sealed bytes has about 230. */
const maxPartBytes = 1024

/** What a register is capped with: any digest that nobody extends for another reason will do. */
const capText = "perun cap"

/** The value to extend a register with so that nothing sealed to it opens again before the next reset. */
export function capDigest(bank: BankName & ("sha256" | "sha384" | "sha512")): Uint8Array {
  return hash(bank, new TextEncoder().encode(capText))
}
