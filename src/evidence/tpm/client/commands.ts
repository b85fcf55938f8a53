import { bytesEqual, concatBytes } from "../../../bytes/compare.ts"
import { UnavailableError } from "../../../bytes/error.ts"
import { readAll, type ByteReader } from "../../../bytes/reader.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash } from "../../../pki/signatures.ts"
import { algorithmId, type BankName } from "../algorithms.ts"
import { encodePcrSelections, readPcrSelections, type PcrSelection } from "../format.ts"
import { tpmName } from "../keys.ts"
import { parsePublicArea, readHash, readSized, type PublicArea } from "../public-area.ts"
import type { TpmConnection, TpmEntity } from "./connection.ts"
import { permanentHandles } from "./constants.ts"
import { TpmError } from "./errors.ts"
import { freshNonce, makeSalt, sessionHash, sessionSymmetric, TpmSession, type BindEntity, type SessionUse } from "./sessions.ts"

/** A key or sealed object in the TPM's memory; disposing of it flushes it. */
export interface LoadedObject extends TpmEntity, AsyncDisposable {
  /** TPMT_PUBLIC as the TPM gave it; `name` is computed from these bytes. */
  readonly publicBytes: Uint8Array
  readonly publicArea: PublicArea
}

/** Largest TPM2B of any structure here: a TPM2B_PRIVATE of an RSA-4096 key with SHA-512 stays below. */
const maxSized = 2048

const empty = new Uint8Array(0)

/** The entity of a permanent handle (a hierarchy) or a register: its name is its handle. TPM 2.0 Library Part 1, 16. */
export function handleEntity(handle: number): TpmEntity {
  return { handle, name: new ByteWriter().u32be(handle).take() }
}

/** Authorization by the empty authValue, as hierarchies and our keys have it; there is nothing to keep from the bus. */
export function passwordUse(): SessionUse {
  return { session: "password", authValue: empty }
}

// Capabilities

/**
 * TPM2_GetCapability(TPM_CAP_HANDLES): the handles of one kind, e.g. from 0x81000000 (persistent), 0x80000000 (transient), 0x02000000 (loaded sessions, which
 * gives policy sessions by their own handles 0x03…).
 */
export async function getHandles(tpm: TpmConnection, first: number): Promise<readonly number[]> {
  return await getCapability(
    tpm,
    0x1,
    first,
    (reader) => reader.u32be("handle"),
    (handle) => handle + 1,
    () => true,
  )
}

/** TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES): TPM_PT and value, from TPM_PT_FIXED (0x100) on. */
export async function getProperties(tpm: TpmConnection): Promise<ReadonlyMap<number, number>> {
  const pairs = await getCapability(
    tpm,
    0x6,
    0x100,
    (reader) => [reader.u32be("property"), reader.u32be("value")] as const,
    ([property]) => property + 1,
    ([property]) => property < 0x200,
  )
  return new Map(pairs)
}

/** TPM2_GetCapability(TPM_CAP_PCRS): the banks that are allocated and their registers. */
export async function getPcrBanks(tpm: TpmConnection): Promise<readonly PcrSelection[]> {
  const { parameters } = await tpm.execute({ command: "GetCapability", parameters: new ByteWriter().u32be(0x5).u32be(0).u32be(1).take() })
  return readAll("GetCapability", parameters, (reader) => {
    reader.u8("moreData")
    if (reader.u32be("capability") !== 0x5) throw reader.error("malformed", "capability", "is not the one that was asked for")
    return readPcrSelections(reader).filter(({ pcrs }) => pcrs.length > 0)
  })
}

/** Lists of handles and properties come in parts. */
async function getCapability<T>(
  tpm: TpmConnection,
  capability: number,
  first: number,
  readItem: (reader: ByteReader) => T,
  next: (item: T) => number,
  isWanted: (item: T) => boolean,
): Promise<readonly T[]> {
  const items: T[] = []
  for (let property = first; ;) {
    const { parameters } = await tpm.execute({
      command: "GetCapability",
      parameters: new ByteWriter().u32be(capability).u32be(property).u32be(capabilityCount).take(),
    })
    const part = readAll("GetCapability", parameters, (reader) => {
      const moreData = reader.u8("moreData")
      if (reader.u32be("capability") !== capability) throw reader.error("malformed", "capability", "is not the one that was asked for")
      const count = reader.u32be("count")
      if (count > capabilityCount) throw reader.error("too-large", "count", `${count} items, at most ${capabilityCount} were asked for`)
      return { moreData: moreData !== 0, items: Array.from({ length: count }, () => readItem(reader)) }
    })
    items.push(...part.items.filter(isWanted))
    const last = part.items.at(-1)
    if (!part.moreData || last === undefined || !isWanted(last)) return items
    if (next(last) <= property) throw new TpmError("forged-response", "GetCapability: the list does not go on")
    property = next(last)
  }
}

/** MAX_CAP_HANDLES is 254 in the reference implementation, MAX_TPM_PROPERTIES 127. */
const capabilityCount = 127

// Random numbers

/**
 * TPM2_GetRandom, as often as it takes.
 * @throws {UnavailableError} `unavailable` where the TPM gives no bytes
 */
export async function getRandom(tpm: TpmConnection, sizeBytes: number, encryption?: SessionUse): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for (let missing = sizeBytes; missing > 0;) {
    const sessions = encryption === undefined ? [] : [encryption]
    const { parameters } = await tpm.execute({ command: "GetRandom", sessions, parameters: new ByteWriter().u16be(Math.min(missing, 32)).take() })
    const part = readAll("GetRandom", parameters, (reader) => readSized(reader, Math.min(missing, 32), "randomBytes"))
    if (part.length === 0) throw new UnavailableError("unavailable", `${tpm.name}: the TPM has no entropy`)
    parts.push(part)
    missing -= part.length
  }
  return concatBytes(...parts)
}

// Registers

/** Values of registers by index, e.g. of the SHA-256 bank. */
export type PcrValues = ReadonlyMap<number, Uint8Array>

/**
 * TPM2_PCR_Read of one bank: all values from between two changes, reading again where one changed in between.
 * @throws {TpmError} `unsupported` where a register or bank does not exist, `busy` where the registers never rest
 */
export async function readPcrs(tpm: TpmConnection, selection: PcrSelection): Promise<PcrValues> {
  for (let attempt = 0; attempt < 5; attempt++) {
    const values = await readPcrsOnce(tpm, selection)
    if (values !== undefined) return values
  }
  throw new TpmError("busy", "PCR_Read: the registers change all the time")
}

async function readPcrsOnce(tpm: TpmConnection, { bank, pcrs }: PcrSelection): Promise<PcrValues | undefined> {
  const values = new Map<number, Uint8Array>()
  let counter: number | undefined
  for (let missing = pcrs; missing.length > 0; missing = pcrs.filter((pcr) => !values.has(pcr))) {
    const { parameters } = await tpm.execute({ command: "PcrRead", parameters: encodePcrSelections([{ bank, pcrs: missing }]) })
    const part = readAll("PCR_Read", parameters, (reader) => {
      const updateCounter = reader.u32be("pcrUpdateCounter")
      const read = readPcrSelections(reader).flatMap((part) => (part.bank === bank ? part.pcrs : []))
      const count = reader.u32be("count")
      if (count !== read.length || read.some((pcr) => !missing.includes(pcr)))
        throw reader.error("malformed", "pcrValues", "do not fit the selection")
      return { updateCounter, digests: read.map((pcr) => [pcr, readSized(reader, 64, `pcr${pcr}`)] as const) }
    })
    if (part.digests.length === 0) throw new TpmError("unsupported", `PCR_Read: the TPM has no bank ${bank} with registers ${missing.join(", ")}`)
    counter ??= part.updateCounter
    if (part.updateCounter !== counter) return undefined
    for (const [pcr, digest] of part.digests) values.set(pcr, digest)
  }
  return values
}

/** TPM2_PCR_Extend of one register in one bank; `digest` has the size of the bank's hash. */
export async function extendPcr(tpm: TpmConnection, pcr: number, bank: BankName, digest: Uint8Array): Promise<void> {
  const parameters = new ByteWriter().u32be(1).u16be(algorithmId(bank)).bytes(digest).take()
  const { parameters: answer } = await tpm.execute({ command: "PcrExtend", handles: [handleEntity(pcr)], sessions: [passwordUse()], parameters })
  readAll("PCR_Extend", answer, () => undefined)
}

// Non-volatile memory

/** TPMS_NV_PUBLIC in the parts that reading needs. TPM 2.0 Library Part 2, 13.5. */
export interface NvPublic extends TpmEntity {
  /** TPMA_NV. */
  readonly attributes: number
  readonly sizeBytes: number
}

/** TPM2_NV_ReadPublic. @throws {TpmError} `no-such-handle` where the index is not defined; `forged-response` where its name is wrong */
export async function readNvPublic(tpm: TpmConnection, index: number): Promise<NvPublic> {
  const { parameters } = await tpm.execute({ command: "NvReadPublic", parameters: new ByteWriter().u32be(index).take() })
  const { publicBytes, name } = readAll("NV_ReadPublic", parameters, (reader) => ({
    publicBytes: readSized(reader, maxSized, "nvPublic"),
    name: readSized(reader, 66, "nvName"),
  }))
  return readAll("TPMS_NV_PUBLIC", publicBytes, (reader) => {
    const nvIndex = reader.u32be("nvIndex")
    const nameAlg = readHash(reader, "nameAlg")
    const attributes = reader.u32be("attributes")
    readSized(reader, 64, "authPolicy")
    const sizeBytes = reader.u16be("dataSize")
    const expected = concatBytes(new ByteWriter().u16be(algorithmId(nameAlg)).take(), hash(nameAlg, publicBytes))
    if (nvIndex !== index || !bytesEqual(expected, name)) throw new TpmError("forged-response", "NV_ReadPublic: the index has another name")
    return { handle: index, name, attributes, sizeBytes }
  })
}

/** TPM2_NV_Read of a whole index that may be read with an empty authValue: its own (TPMA_NV_AUTHREAD) or the owner's. */
export async function readNv(tpm: TpmConnection, index: NvPublic): Promise<Uint8Array> {
  const mayReadItself = Math.floor(index.attributes / 2 ** 18) % 2 === 1
  const authority = mayReadItself ? index : handleEntity(permanentHandles.owner)
  const parts: Uint8Array[] = []
  for (let offset = 0; offset < index.sizeBytes;) {
    const length = Math.min(index.sizeBytes - offset, nvChunkBytes)
    const parameters = new ByteWriter().u16be(length).u16be(offset).take()
    const { parameters: answer } = await tpm.execute({ command: "NvRead", handles: [authority, index], sessions: [passwordUse()], parameters })
    const part = readAll("NV_Read", answer, (reader) => readSized(reader, length, "data"))
    if (part.length !== length) throw new TpmError("forged-response", "NV_Read: the TPM gives less than asked for")
    parts.push(part)
    offset += length
  }
  return concatBytes(...parts)
}

/** TPM_PT_NV_BUFFER_MAX is at least 512 on PC clients (PC Client Platform TPM Profile, 3.3); asking for it would cost more than it saves. */
const nvChunkBytes = 512

// Objects

/** TPM2_ReadPublic. @throws {TpmError} `no-such-handle`; `forged-response` where the name is wrong */
export async function readPublic(tpm: TpmConnection, handle: number): Promise<LoadedObject> {
  const { parameters } = await tpm.execute({ command: "ReadPublic", parameters: new ByteWriter().u32be(handle).take() })
  return readAll("ReadPublic", parameters, (reader) => {
    const publicBytes = readSized(reader, maxSized, "outPublic")
    const name = readSized(reader, 66, "name")
    readSized(reader, 66, "qualifiedName")
    // Persistent objects stay; a transient one belongs to whoever loaded it.
    return loadedObject("ReadPublic", handle, publicBytes, name, async () => undefined)
  })
}

/**
 * TPM2_CreatePrimary without sensitive data: the same key each time for the same hierarchy seed and template. The hierarchy's
 * authValue must be empty; `template` is a TPMT_PUBLIC.
 */
export async function createPrimary(tpm: TpmConnection, hierarchy: number, template: Uint8Array): Promise<LoadedObject> {
  const parameters = new ByteWriter().sized16be(emptySensitive).sized16be(template).u16be(0).u32be(0).take()
  const sessions = [passwordUse()]
  const answer = await tpm.execute({ command: "CreatePrimary", handles: [handleEntity(hierarchy)], sessions, parameters })
  return await keepOrFlush(tpm, answer.handle, () =>
    readAll("CreatePrimary", answer.parameters, (reader) => {
      const publicBytes = readSized(reader, maxSized, "outPublic")
      readCreation(reader)
      return loadedObject("CreatePrimary", answer.handle, publicBytes, readSized(reader, 66, "name"), () => tpm.flush(answer.handle))
    }),
  )
}

/** TPMS_SENSITIVE_CREATE with an empty authValue and no data. */
const emptySensitive = new ByteWriter().u16be(0).u16be(0).take()

/** A new object, wrapped by its parent: what `load` takes. */
export interface WrappedObject {
  /** Content of the TPM2B_PRIVATE: encrypted by the parent. */
  readonly privateBytes: Uint8Array
  /** TPMT_PUBLIC. */
  readonly publicBytes: Uint8Array
}

/** TPM2_Create of a sealed data object or a key under `parent`; `parentUse` should encrypt the command where there is data. */
export async function create(
  tpm: TpmConnection,
  parent: TpmEntity,
  parentUse: SessionUse,
  template: Uint8Array,
  data: Uint8Array = empty,
): Promise<WrappedObject> {
  const sensitive = new ByteWriter().u16be(0).sized16be(data).take()
  const parameters = new ByteWriter().sized16be(sensitive).sized16be(template).u16be(0).u32be(0).take()
  const answer = await tpm.execute({ command: "Create", handles: [parent], sessions: [parentUse], parameters })
  return readAll("Create", answer.parameters, (reader) => {
    const privateBytes = readSized(reader, maxSized, "outPrivate")
    const publicBytes = readSized(reader, maxSized, "outPublic")
    readCreation(reader)
    return { privateBytes, publicBytes }
  })
}

/** creationData, creationHash and creationTicket: nobody uses them here. TPM 2.0 Library Part 3, 12.1 and 24.1. */
function readCreation(reader: ByteReader): void {
  readSized(reader, maxSized, "creationData")
  readSized(reader, 64, "creationHash")
  reader.u16be("creationTicket.tag")
  reader.u32be("creationTicket.hierarchy")
  readSized(reader, 64, "creationTicket.digest")
}

/** TPM2_Load. @throws {TpmError} `wrong-credential` where the object was made under another parent or was changed */
export async function load(tpm: TpmConnection, parent: TpmEntity, parentUse: SessionUse, object: WrappedObject): Promise<LoadedObject> {
  const parameters = new ByteWriter().sized16be(object.privateBytes).sized16be(object.publicBytes).take()
  const answer = await tpm.execute({ command: "Load", handles: [parent], sessions: [parentUse], parameters })
  return await keepOrFlush(tpm, answer.handle, () =>
    readAll("Load", answer.parameters, (reader) => {
      const name = readSized(reader, 66, "name")
      return loadedObject("Load", answer.handle, object.publicBytes, name, () => tpm.flush(answer.handle))
    }),
  )
}

/** TPM2_Unseal; `use` should encrypt the response. @throws {TpmError} `policy-failed` where the registers are others than when it was sealed */
export async function unseal(tpm: TpmConnection, object: TpmEntity, use: SessionUse): Promise<Uint8Array> {
  const { parameters } = await tpm.execute({ command: "Unseal", handles: [object], sessions: [use] })
  return readAll("Unseal", parameters, (reader) => readSized(reader, 256, "outData"))
}

function loadedObject(command: string, handle: number, publicBytes: Uint8Array, name: Uint8Array, dispose: () => Promise<void>): LoadedObject {
  const publicArea = parsePublicArea(publicBytes)
  if (!bytesEqual(tpmName(publicArea), name)) throw new TpmError("forged-response", `${command}: the object has another name than its public area`)
  return { handle, name, publicBytes, publicArea, [Symbol.asyncDispose]: dispose }
}

/** An object whose response cannot be believed must not stay in the TPM's few slots. */
async function keepOrFlush<T>(tpm: TpmConnection, handle: number, read: () => T): Promise<T> {
  try {
    return read()
  } catch (error) {
    await tpm.flush(handle)
    throw error
  }
}

// Attestation

/** What TPM2_Quote gives: TPMS_ATTEST and TPMT_SIGNATURE, exact bytes. */
export interface Quote {
  readonly attest: Uint8Array
  readonly signature: Uint8Array
}

/** TPM2_Quote by a key with a scheme of its own and an empty authValue. @throws {TypeError} for more than 32 bytes of `extraData`: some TPMs refuse more */
export async function quote(tpm: TpmConnection, key: TpmEntity, extraData: Uint8Array, selections: readonly PcrSelection[]): Promise<Quote> {
  if (extraData.length > 32) throw new TypeError(`extraData of ${extraData.length} bytes, at most 32`)
  const parameters = new ByteWriter().sized16be(extraData).u16be(0x0010).bytes(encodePcrSelections(selections)).take()
  const { parameters: answer } = await tpm.execute({ command: "Quote", handles: [key], sessions: [passwordUse()], parameters })
  return readAll("Quote", answer, (reader) => ({ attest: readSized(reader, maxSized, "quoted"), signature: reader.rest("signature") }))
}

/**
 * TPM2_ActivateCredential. Give the attestation key a salted session that encrypts the response: the answer is a secret.
 * @throws {TpmError} `wrong-credential` where it was made for another key or TPM
 */
export async function activateCredential(
  tpm: TpmConnection,
  attestationKey: { readonly key: TpmEntity; readonly use: SessionUse },
  endorsementKey: { readonly key: TpmEntity; readonly use: SessionUse },
  credentialBlob: Uint8Array,
  secret: Uint8Array,
): Promise<Uint8Array> {
  const parameters = new ByteWriter().sized16be(credentialBlob).sized16be(secret).take()
  const handles = [attestationKey.key, endorsementKey.key]
  const answer = await tpm.execute({ command: "ActivateCredential", handles, sessions: [attestationKey.use, endorsementKey.use], parameters })
  return readAll("ActivateCredential", answer.parameters, (reader) => readSized(reader, 64, "certInfo"))
}

// Sessions

export interface SessionOptions {
  readonly kind: "hmac" | "policy"
  /** The decryption key that the salt is sent to; without it the session keeps nothing secret from the bus. */
  readonly saltKey?: LoadedObject
  readonly bind?: TpmEntity & BindEntity
}

/** TPM2_StartAuthSession; the session is flushed at the end of its scope. */
export async function startSession(tpm: TpmConnection, { kind, saltKey, bind }: SessionOptions): Promise<TpmSession & AsyncDisposable> {
  const salt = saltKey === undefined ? { salt: empty, encrypted: empty } : makeSalt(saltKey.publicArea)
  const nonceCaller = freshNonce()
  const parameters = new ByteWriter()
    .sized16be(nonceCaller)
    .sized16be(salt.encrypted)
    .u8(kind === "hmac" ? 0x00 : 0x01)
    .bytes(sessionSymmetric)
    .u16be(algorithmId(sessionHash))
    .take()
  const nullEntity = handleEntity(permanentHandles.null)
  const answer = await tpm.execute({ command: "StartAuthSession", handles: [saltKey ?? nullEntity, bind ?? nullEntity], parameters })
  return await keepOrFlush(tpm, answer.handle, () => {
    const nonceTpm = readAll("StartAuthSession", answer.parameters, (reader) => readSized(reader, 64, "nonceTPM"))
    if (nonceTpm.length < 16) throw new TpmError("forged-response", "StartAuthSession: the nonce of the TPM is too short")
    const session = new TpmSession({ handle: answer.handle, kind, salt: salt.salt, bind, nonceCaller, nonceTpm })
    return Object.assign(session, { [Symbol.asyncDispose]: () => tpm.flush(answer.handle) })
  })
}

/** TPM2_PolicySecret over a hierarchy with an empty authValue; the policy of the endorsement keys. */
export async function policySecret(tpm: TpmConnection, session: TpmSession, hierarchy: number): Promise<void> {
  const parameters = new ByteWriter().sized16be(session.nonceTpm).u16be(0).u16be(0).u32be(0).take()
  const handles = [handleEntity(hierarchy), handleEntity(session.handle)]
  const { parameters: answer } = await tpm.execute({ command: "PolicySecret", handles, sessions: [passwordUse()], parameters })
  readAll("PolicySecret", answer, (reader) => {
    readSized(reader, 64, "timeout")
    reader.u16be("policyTicket.tag")
    reader.u32be("policyTicket.hierarchy")
    readSized(reader, 64, "policyTicket.digest")
  })
}

/** TPM2_PolicyPCR over the registers as they are; the later use of the session fails where they are not those of the object's policy. */
export async function policyPcr(tpm: TpmConnection, session: TpmSession, selections: readonly PcrSelection[]): Promise<void> {
  const parameters = new ByteWriter().u16be(0).bytes(encodePcrSelections(selections)).take()
  const { parameters: answer } = await tpm.execute({ command: "PolicyPcr", handles: [handleEntity(session.handle)], parameters })
  readAll("PolicyPCR", answer, () => undefined)
}

/** TPM2_PolicyGetDigest: the policy that the session fulfils so far. */
export async function policyDigest(tpm: TpmConnection, session: TpmSession): Promise<Uint8Array> {
  const { parameters } = await tpm.execute({ command: "PolicyGetDigest", handles: [handleEntity(session.handle)] })
  return readAll("PolicyGetDigest", parameters, (reader) => readSized(reader, 64, "policyDigest"))
}
