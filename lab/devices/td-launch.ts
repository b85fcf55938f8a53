import { createHash } from "node:crypto"
import { concatBytes } from "../../src/bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../src/bytes/text.ts"
import { viewOf } from "../../src/bytes/view.ts"
import { ByteWriter } from "../../src/bytes/writer.ts"
import { parseCcel, replayCcel } from "../../src/evidence/ccel/format.ts"
import { LabError } from "../error.ts"
import { measuredCommandLine } from "../image/command-line.ts"
import type { Launch } from "../machine/launch.ts"
import { authenticodeBytes, kernelAsQemuLoadsIt } from "../reference/kernel-digest.ts"
import { action, encodeCcel, type MeasuredEvent, secureBootVariable, separator, stubTag, utf16 } from "./measured-events.ts"
import { readSecureBootVariables } from "./variable-store.ts"

/**
 * What a TD would hold that started from these bytes: MRTD as the TDX module makes it, RTMR0 to RTMR2 as a TD's firmware and the kernel's EFI stub extend them, and the log
 * of that. Computed from the bytes, before anything runs. INSECURE LABORATORY: nothing but this program says that they were started.
 */
export interface TdLaunch {
  /** SHA-384, lower-case hexadecimal; RTMR3 is zero. */
  readonly mrTd: string
  readonly rtmrs: readonly [string, string, string, string]
  /** CCEL table's log area. */
  readonly eventLog: Uint8Array
}

/** @throws {LabError} `build-failed` for firmware or a kernel of another form */
export function measureTd(launch: Launch): TdLaunch {
  const eventLog = encodeCcel(tdEvents(launch))
  const [rtmr0, rtmr1, rtmr2, rtmr3] = replayCcel(parseCcel(eventLog))
  return { mrTd: mrTdOf(launch.firmwareCode), rtmrs: [encodeHex(rtmr0), encodeHex(rtmr1), encodeHex(rtmr2), encodeHex(rtmr3)], eventLog }
}

/**
 * MRTD of firmware that ends at 4 GiB: each page is added (TDH.MEM.PAGE.ADD) and extended in pieces of 256 bytes (TDH.MR.EXTEND); Intel TDX Module Base Architecture
 * Specification, "TD Measurement". The laboratory's OVMF has no TDX metadata, which would add pages for the TD HOB and the stack.
 */
function mrTdOf(firmware: Uint8Array): string {
  if (firmware.length === 0 || firmware.length % pageBytes !== 0) throw new LabError("build-failed", "firmware is made of whole pages")
  const measurement = createHash("sha384")
  const step = (name: string, address: number): Uint8Array => {
    const block = new Uint8Array(stepBytes)
    block.set(encodeUtf8(name))
    new DataView(block.buffer).setBigUint64(16, BigInt(address), true)
    return block
  }
  for (let page = 0; page < firmware.length; page += pageBytes) {
    const address = topOfFirmware - firmware.length + page
    measurement.update(step("MEM.PAGE.ADD", address))
    for (let piece = 0; piece < pageBytes; piece += pieceBytes)
      measurement.update(step("MR.EXTEND", address + piece)).update(viewOf(firmware, page + piece, pieceBytes))
  }
  return measurement.digest("hex")
}

/**
 * Events in the order in which OVMF boots a kernel that QEMU gives it: seen in the TPM's log of the same boot, with what a TD's firmware measures besides (Intel TDX Virtual
 * Firmware Design Guide, 8). Left out, because QEMU and the firmware make them as they run: ACPI tables, boot variables.
 */
export function tdEvents(launch: Launch): readonly MeasuredEvent[] {
  const { memoryMiB, initrd } = launch
  const secureBoot = Object.entries(readSecureBootVariables(launch.firmwareVariables))
  const kernel = kernelAsQemuLoadsIt(launch.kernel, { memoryMiB, initrdBytes: initrd.length })
  return [
    { register: 1, type: "EV_EFI_HANDOFF_TABLES2", data: handoffTables, hashed: handoffBlocks(memoryMiB) },
    { register: 1, type: "EV_EFI_PLATFORM_FIRMWARE_BLOB2", data: configurationVolume(launch), hashed: launch.firmwareVariables },
    ...secureBoot.map(([name, value]) => secureBootVariable(name, value)),
    separator(1),
    // In the place of the ACPI tables, which tell a guest how many processors it has.
    { register: 1, type: "EV_PLATFORM_CONFIG_FLAGS", data: encodeUtf8(`laboratory hardware: ${launch.processors} processors, ${memoryMiB} MiB`) },
    { register: 2, type: "EV_EFI_BOOT_SERVICES_APPLICATION", data: imageLoad(kernel.length), hashed: authenticodeBytes(kernel) },
    action("Calling EFI Application from Boot Option"),
    separator(2),
    stubTag("load-options", utf16(`${measuredCommandLine(launch.commandLine)}\0`)),
    stubTag("initrd", initrd),
    action("Exit Boot Services Invocation"),
    action("Exit Boot Services Returned with Success"),
  ]
}

/** The TD HOB, in which the host tells the firmware of the TD's memory: PHIT, one resource each below and above 4 GiB, end. PI 1.7, volume 3, 5. */
function handoffBlocks(memoryMiB: number): Uint8Array {
  const total = BigInt(memoryMiB) * 1024n * 1024n
  // As QEMU's q35 splits it.
  const low = memoryMiB >= 2816 ? 2n ** 31n : total
  const writer = new ByteWriter()
  writer.u16le(1).u16le(56).u32le(0).u32le(9).u32le(0).u64le(low).u64le(0n).u64le(low).u64le(0n).u64le(0n)
  const resource = (start: bigint, length: bigint): void => {
    writer.u16le(3).u16le(48).u32le(0).bytes(new Uint8Array(16)).u32le(unacceptedMemory).u32le(present).u64le(start).u64le(length)
  }
  resource(0n, low)
  if (total > low) resource(2n ** 32n, total - low)
  return writer.u16le(0xffff).u16le(8).u32le(0).take()
}

/** UEFI_PLATFORM_FIRMWARE_BLOB2: where the variable store lies. */
function configurationVolume({ firmwareCode, firmwareVariables }: Launch): Uint8Array {
  const description = encodeUtf8("Fv(FFF12B8D-7696-4C8B-A985-2747075B4F50)\0")
  const base = topOfFirmware - firmwareCode.length - firmwareVariables.length
  return new ByteWriter().u8(description.length).bytes(description).u64le(BigInt(base)).u64le(BigInt(firmwareVariables.length)).take()
}

/** EFI_IMAGE_LOAD_EVENT of OVMF's loader for QEMU's kernel: VenMedia(1428F772-…)/kernel. Its address is the firmware's choice and zero here. */
function imageLoad(sizeBytes: number): Uint8Array {
  const name = utf16("kernel\0")
  const path = concatBytes(
    new ByteWriter().u8(4).u8(3).u16le(20).bytes(parseHex("72f728144ab61e44b8c39ebdd7f893c7")).take(),
    new ByteWriter()
      .u8(4)
      .u8(4)
      .u16le(4 + name.length)
      .bytes(name)
      .take(),
    Uint8Array.of(0x7f, 0xff, 4, 0),
  )
  return new ByteWriter().u64le(0n).u64le(BigInt(sizeBytes)).u64le(0n).u64le(BigInt(path.length)).bytes(path).take()
}

const pageBytes = 4096
const pieceBytes = 256
const stepBytes = 128
const topOfFirmware = 2 ** 32
/** EFI_RESOURCE_MEMORY_UNACCEPTED; present, initialized, tested. */
const unacceptedMemory = 7
const present = 7
/** UEFI_HANDOFF_TABLE_POINTERS2: "TdxTable", one table, at an address that is zero here. */
const handoffTables = concatBytes(
  Uint8Array.of(9),
  encodeUtf8("TdxTable\0"),
  new ByteWriter().u64le(1n).bytes(parseHex("af96bb93f2b9b84e9462e0ba74564236")).u64le(0n).take(),
)
