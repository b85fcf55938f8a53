import { bytesEqual } from "../../../bytes/compare.ts"
import { readAll } from "../../../bytes/reader.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { algorithmId } from "../algorithms.ts"
import { readSized } from "../public-area.ts"
import { handleEntity, type NvPublic, readNvPublic, startSession } from "./commands.ts"
import type { TpmConnection } from "./connection.ts"
import { permanentHandles } from "./constants.ts"
import { TpmError } from "./errors.ts"
import { openStorageKey } from "./keys.ts"

/**
 * A counter in the TPM's non-volatile memory, which only goes up, also across restarts and across its own deletion: a counter that is defined anew starts at the highest value that any of this TPM
 * had (TPM 2.0 Library Part 1, 37.2.2). Its answers are proved by a value that only its owner knows, so that nobody between the two makes them up.
 */
export interface CounterBinding {
  /** NV index, 0x01a00000 to 0x01afffff of the owner's range. */
  readonly index: number
  /** Name of the index: hash over what it is, so that another index under the same number is found. */
  readonly name: Uint8Array
  /** Its authValue, 32 bytes; secret. */
  readonly authValue: Uint8Array
}

/** TPMA_NV of it: AUTHWRITE, counter, AUTHREAD, NO_DA. TPM 2.0 Library Part 2, 13.4. Not ORDERLY: that one jumps ahead when the power fails. */
const attributes = 2 ** 2 + 2 ** 4 + 2 ** 18 + 2 ** 25
const written = 2 ** 29

/**
 * Defines a counter under an index that is free, and counts once, without which it has no value. The authValue crosses the bus encrypted, in a session salted to the storage key.
 * @throws {TpmError} `no-resources` where the TPM has no room; `auth-failed` where its owner has set a password
 */
export async function defineCounter(tpm: TpmConnection, index: number, authValue: Uint8Array): Promise<CounterBinding> {
  const publicArea = new ByteWriter().u32be(index).u16be(algorithmId("sha256")).u32be(attributes).u16be(0).u16be(8).take()
  const parameters = new ByteWriter().sized16be(authValue).sized16be(publicArea).take()
  const owner = handleEntity(permanentHandles.owner)
  await using storageKey = await openStorageKey(tpm)
  await using session = await startSession(tpm, { kind: "hmac", saltKey: storageKey })
  const use = { session, authValue: new Uint8Array(0), entityName: owner.name, decrypt: true }
  await tpm.execute({ command: "NvDefineSpace", handles: [owner], sessions: [use], parameters })
  const defined = await readNvPublic(tpm, index)
  if (defined.attributes !== attributes) throw new TpmError("forged-response", "NV_DefineSpace: the index is another than was asked for")
  await countUp(tpm, defined, authValue)
  const { name, attributes: found } = await readNvPublic(tpm, index)
  if (found !== attributes + written) throw new TpmError("forged-response", "NV_Increment: the index is another than was asked for")
  return { index, name, authValue }
}

/** TPM2_NV_Increment. @throws {TpmError} `auth-failed`, `no-such-handle`, `forged-response` for another counter under its index */
export async function incrementCounter(tpm: TpmConnection, binding: CounterBinding): Promise<void> {
  await countUp(tpm, await boundIndex(tpm, binding), binding.authValue)
}

async function countUp(tpm: TpmConnection, index: NvPublic, authValue: Uint8Array): Promise<void> {
  await using session = await startSession(tpm, { kind: "hmac" })
  const sessions = [{ session, authValue, entityName: index.name }]
  const { parameters } = await tpm.execute({ command: "NvIncrement", handles: [index, index], sessions })
  readAll("NV_Increment", parameters, () => undefined)
}

/** TPM2_NV_Read of a counter. @throws as incrementCounter */
export async function readCounter(tpm: TpmConnection, binding: CounterBinding): Promise<number> {
  const index = await boundIndex(tpm, binding)
  await using session = await startSession(tpm, { kind: "hmac" })
  const sessions = [{ session, authValue: binding.authValue, entityName: index.name }]
  const parameters = new ByteWriter().u16be(8).u16be(0).take()
  const answer = await tpm.execute({ command: "NvRead", handles: [index, index], sessions, parameters })
  return readAll("NV_Read", answer.parameters, (reader) =>
    readAll("counter", readSized(reader, 8, "data"), (data) => {
      const value = data.u64be("value")
      if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw data.error("too-large", "value", `${value} is more than any counter of ours reaches`)
      return Number(value)
    }),
  )
}

async function boundIndex(tpm: TpmConnection, { index, name }: CounterBinding): Promise<NvPublic> {
  const found = await readNvPublic(tpm, index)
  if (!bytesEqual(found.name, name)) throw new TpmError("forged-response", "NV_ReadPublic: another index lies where the counter was")
  return found
}
