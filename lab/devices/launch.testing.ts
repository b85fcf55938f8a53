import { ByteWriter } from "../../src/bytes/writer.ts"
import { parseHex } from "../../src/bytes/text.ts"
import type { Launch } from "../machine/launch.ts"
import { globalVariableGuid, imageSecurityGuid, utf16 } from "./measured-events.ts"

/** A small launch for tests: firmware of two pages, an empty variable store, a kernel with one section, some bytes of ram disk. */
export function smallLaunch(): Launch {
  return {
    firmwareCode: new Uint8Array(8192).map((_, at) => at % 251),
    firmwareVariables: variableStore([]),
    kernel: smallKernel(),
    initrd: new Uint8Array(5000).fill(7),
    commandLine: "quiet perun.level=sealed",
    memoryMiB: 2048,
    processors: 2,
  }
}

/** The same with one bit of one part changed. */
export function flipped(bytes: Uint8Array, at: number): Uint8Array {
  return bytes.map((byte, index) => (index === at ? byte ^ 1 : byte))
}

/** A PE32+ image that is a Linux kernel by its setup header: headers up to 0x400, one section of 0x200, nothing behind. */
function smallKernel(): Uint8Array {
  const bytes = new Uint8Array(0x600)
  const view = new DataView(bytes.buffer)
  view.setUint32(0x3c, 0x40, true)
  view.setUint32(0x40, 0x4550, true)
  view.setUint16(0x46, 1, true)
  view.setUint16(0x54, 240, true)
  view.setUint16(0x58, 0x20b, true)
  view.setUint32(0x58 + 60, 0x400, true)
  view.setUint32(0x148 + 16, 0x200, true)
  view.setUint32(0x148 + 20, 0x400, true)
  view.setUint32(0x202, 0x53726448, true)
  view.setUint16(0x206, 0x20f, true)
  return bytes
}

export interface StoredVariable {
  readonly name: string
  readonly value: Uint8Array
  /** Default 0x3f, VAR_ADDED. */
  readonly state?: number
  readonly guid?: string
}

/** An authenticated variable store in a firmware volume of 4096 bytes, erased bytes 0xff. */
export function variableStore(variables: readonly StoredVariable[]): Uint8Array {
  const store = new Uint8Array(4096).fill(0xff)
  const writer = new ByteWriter().bytes(new Uint8Array(32)).u64le(4096n).u32le(0x4856465f).u32le(0).u16le(72).bytes(new Uint8Array(22))
  writer.bytes(parseHex("782cf3aa7b949a43a1802e144ec37792")).u32le(4000).u8(0x5a).u8(0xfe).bytes(new Uint8Array(6))
  for (const { name, value, state, guid } of variables) {
    const text = utf16(`${name}\0`)
    writer
      .u16le(0x55aa)
      .u8(state ?? 0x3f)
      .bytes(new Uint8Array(33))
      .u32le(text.length)
      .u32le(value.length)
    writer
      .bytes(parseHex(guid ?? (name.startsWith("db") ? imageSecurityGuid : globalVariableGuid)))
      .bytes(text)
      .bytes(value)
    writer.bytes(new Uint8Array((4 - ((text.length + value.length) % 4)) % 4))
  }
  store.set(writer.take())
  return store
}
