import { sha256 } from "../../src/bytes/digest.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../src/bytes/text.ts"
import { viewOf } from "../../src/bytes/view.ts"
import { ByteWriter } from "../../src/bytes/writer.ts"
import { hash } from "../../src/pki/signatures.ts"
import { LabError } from "../error.ts"
import type { Launch } from "../machine/launch.ts"

/**
 * Launch digest of a SEV-SNP guest that started from these bytes with QEMU's `kernel-hashes=on`: SHA-384, lower-case hexadecimal. The variable store is no part of it, and memory
 * is none. INSECURE LABORATORY: nothing but this program says that they were started.
 * @throws {LabError} `build-failed` for firmware of another form
 */
export function measureSnp(launch: Launch): string {
  const { firmwareCode } = launch
  if (firmwareCode.length === 0 || firmwareCode.length % pageBytes !== 0) throw new LabError("build-failed", "firmware is made of whole pages")
  const pages = new LaunchDigest()
  for (let at = 0; at < firmwareCode.length; at += pageBytes)
    pages.add("normal", topOfFirmware - firmwareCode.length + at, viewOf(firmwareCode, at, pageBytes))
  return measureBehindFirmware(encodeHex(pages.value), launch)
}

/** The launch digest, continued from its value behind the firmware's own pages. */
export function measureBehindFirmware(firmware: string, launch: Pick<Launch, "kernel" | "initrd" | "commandLine" | "processors">): string {
  const pages = new LaunchDigest(parseHex(firmware))
  for (const { type, start, sizeBytes } of sections)
    for (let at = 0; at < sizeBytes; at += pageBytes) {
      if (type === "kernel-hashes") pages.add("normal", start, hashesPage(launch))
      else pages.add(type, start + at)
    }
  for (let processor = 0; processor < launch.processors; processor++)
    pages.add("vmsa", vmsaAddress, saveArea(processor === 0 ? resetVector : apReset))
  return encodeHex(pages.value)
}

/** SNP_LAUNCH_UPDATE's measurement: PAGE_INFO of each page over the value before. AMD 56860 (SEV-SNP Firmware ABI), 8.17.2. */
class LaunchDigest {
  value: Uint8Array

  constructor(value: Uint8Array = new Uint8Array(digestBytes)) {
    this.value = value
  }

  /** `contents`: of pages that are measured with what is in them. */
  add(type: keyof typeof pageTypes, address: number, contents?: Uint8Array): void {
    const info = new ByteWriter()
      .bytes(this.value)
      .bytes(contents === undefined ? new Uint8Array(digestBytes) : hash("sha384", contents))
      .u16le(pageInfoBytes)
      .u8(pageTypes[type])
      // No page of an incoming migration image; no rights for VMPL 3 to 1.
      .bytes(new Uint8Array(5))
      .u64le(BigInt(address))
    this.value = hash("sha384", info.take())
  }
}

/** The page in which QEMU tells the firmware what to accept: SHA-256 of command line with its NUL, ram disk and kernel as the file has it (QEMU, target/i386/sev.c). */
function hashesPage({ kernel, initrd, commandLine }: Pick<Launch, "kernel" | "initrd" | "commandLine">): Uint8Array {
  const entries = [
    ["d82dd09720bd944caa78e7714d36ab2a", encodeUtf8(`${commandLine}\0`)],
    ["31f7ba442f3ad74b9af141e29169781d", initrd],
    ["3794e74dd2ab7f42b835d5b172d2045b", kernel],
  ] as const
  const entryBytes = 16 + 2 + 32
  const table = new ByteWriter().bytes(parseHex("06d63894224fc94cb479a793d411fd21")).u16le(16 + 2 + entries.length * entryBytes)
  for (const [guid, measured] of entries) table.bytes(parseHex(guid)).u16le(entryBytes).bytes(sha256(measured))
  const page = new Uint8Array(pageBytes)
  page.set(table.take(), hashesOffset)
  return page
}

/** A processor's VMSA as KVM starts it at this address (AMD 24593, table B-4); signature of QEMU's EPYC-v4. */
function saveArea(start: number): Uint8Array {
  const page = new Uint8Array(pageBytes)
  const view = new DataView(page.buffer)
  const segment = (at: number, selector: number, attributes: number, base = 0): void => {
    view.setUint16(at, selector, true)
    view.setUint16(at + 2, attributes, true)
    view.setUint32(at + 4, 0xffff, true)
    view.setBigUint64(at + 8, BigInt(base), true)
  }
  const low = start % 0x10000
  for (const data of [0x00, 0x20, 0x30, 0x40, 0x50]) segment(data, 0, 0x93) // ES, SS, DS, FS, GS
  segment(0x10, 0xf000, 0x9b, start - low) // CS
  segment(0x60, 0, 0) // GDTR
  segment(0x70, 0, 0x82) // LDTR
  segment(0x80, 0, 0) // IDTR
  segment(0x90, 0, 0x8b) // TR
  for (const [at, value] of registers) view.setBigUint64(at, value, true)
  view.setBigUint64(0x178, BigInt(low), true) // RIP
  return page
}

const digestBytes = 48
const pageBytes = 4096
const pageInfoBytes = 0x70
const topOfFirmware = 2 ** 32
/** PAGE_TYPE_…, AMD 56860, table 67. */
const pageTypes = { normal: 1, vmsa: 2, zero: 3, secrets: 5, cpuid: 6 } as const

/**
 * What the host adds behind the firmware: the sections of EDK2's AmdSev build, in its order. The laboratory's firmware states none of its own, for it is built for machines
 * without SEV-SNP.
 */
const sections = [
  { type: "zero", start: 0x800000, sizeBytes: 0x9000 },
  { type: "zero", start: 0x80a000, sizeBytes: 0x3000 },
  { type: "secrets", start: 0x80d000, sizeBytes: pageBytes },
  { type: "cpuid", start: 0x80e000, sizeBytes: pageBytes },
  { type: "kernel-hashes", start: 0x80f000, sizeBytes: pageBytes },
  { type: "zero", start: 0x810000, sizeBytes: 0x10000 },
] as const
const hashesOffset = 0xc00
/** The RMP's address of every VMSA: all ones, to the page and to 52 bits. */
const vmsaAddress = 0xffff_ffff_f000
const resetVector = 0xffff_fff0
/** Where AmdSev's other processors start (SEV-ES reset block). */
const apReset = 0x80_b004
const registers: readonly (readonly [at: number, value: bigint])[] = [
  [0xd0, 0x1000n], // EFER: SVME
  [0x148, 0x40n], // CR4: MCE
  [0x158, 0x10n], // CR0
  [0x160, 0x400n], // DR7
  [0x168, 0xffff0ff0n], // DR6
  [0x170, 2n], // RFLAGS
  [0x268, 0x0007_0406_0007_0406n], // G_PAT
  [0x310, 0x80_0f12n], // RDX
  [0x3b0, 1n], // SEV_FEATURES: SNP active
  [0x3e8, 1n], // XCR0
]
