import { ByteReader } from "../../src/bytes/reader.ts"
import { encodeHex } from "../../src/bytes/text.ts"
import { LabError } from "../error.ts"
import { globalVariableGuid, imageSecurityGuid } from "./measured-events.ts"

/** Contents of the variables that decide about Secure Boot; empty where a variable is not there. */
export type SecureBootVariables = Readonly<Record<"SecureBoot" | "PK" | "KEK" | "db" | "dbx", Uint8Array>>

/**
 * Reads them from OVMF's variable store, as they are before the first boot: EFI_FIRMWARE_VOLUME_HEADER (PI 1.7, volume 3, 3.2.1), then EDK2's authenticated
 * VARIABLE_STORE_HEADER and AUTHENTICATED_VARIABLE_HEADER (MdeModulePkg/Include/Guid/VariableFormat.h).
 * @throws {LabError} `build-failed` for a store of another form, and for one with a platform key: the laboratory's firmware enforces none
 */
export function readSecureBootVariables(store: Uint8Array): SecureBootVariables {
  const variables = readVariables(store)
  const valueOf = (name: string): Uint8Array => variables.get(name) ?? new Uint8Array(0)
  if (valueOf("PK").length > 0) throw new LabError("build-failed", "the variable store has a platform key, and the laboratory knows no Secure Boot")
  // Without a platform key the firmware is in setup mode, and Secure Boot is off: UEFI 2.10, 3.3.
  return { SecureBoot: Uint8Array.of(0), PK: valueOf("PK"), KEK: valueOf("KEK"), db: valueOf("db"), dbx: valueOf("dbx") }
}

function readVariables(store: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const reader = new ByteReader("variableStore", store)
  reader.view(40, "header")
  const signature = reader.u32le("signature")
  reader.u32le("attributes")
  const headerBytes = reader.u16le("headerLength")
  reader.view(headerBytes - reader.offset, "blockMap")
  const start = reader.offset
  const kind = encodeHex(reader.bytes(16, "storeSignature"))
  const sizeBytes = reader.u32le("size")
  if (signature !== volumeSignature || kind !== authenticatedStore) throw new LabError("build-failed", "not a store of authenticated variables")
  reader.view(8, "format")
  const found = new Map<string, Uint8Array>()
  while (reader.offset + variableHeaderBytes <= start + sizeBytes) {
    if (reader.u16le("startId") !== variableStart) break
    const state = reader.u8("state")
    reader.view(33, "attributes")
    const nameBytes = reader.u32le("nameSize")
    const dataBytes = reader.u32le("dataSize")
    const vendor = encodeHex(reader.bytes(16, "vendorGuid"))
    const name = new TextDecoder("utf-16le").decode(reader.bytes(nameBytes, "name")).replace(/\0$/, "")
    const data = reader.bytes(dataBytes, "data")
    reader.view((4 - ((reader.offset - start) % 4)) % 4, "padding")
    if ((state === added || state === addedInTransition) && vendor === vendors.get(name)) found.set(name, data)
  }
  return found
}

const volumeSignature = 0x4856465f // "_FVH"
const authenticatedStore = "782cf3aa7b949a43a1802e144ec37792"
const variableStart = 0x55aa
const variableHeaderBytes = 60
/** VAR_ADDED, and the same while a newer one is being written. */
const added = 0x3f
const addedInTransition = 0x3e
const vendors: ReadonlyMap<string, string> = new Map([
  ["PK", globalVariableGuid],
  ["KEK", globalVariableGuid],
  ["db", imageSecurityGuid],
  ["dbx", imageSecurityGuid],
])
