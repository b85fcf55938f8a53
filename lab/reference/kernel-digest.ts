import { createHash } from "node:crypto"
import { concatBytes } from "../../src/bytes/compare.ts"
import { viewOf } from "../../src/bytes/view.ts"
import { LabError } from "../error.ts"

/** What QEMU's direct kernel boot knows when it hands the kernel to the firmware. */
export interface DirectBoot {
  readonly memoryMiB: number
  readonly initrdBytes: number
}

/**
 * The kernel as OVMF gets it from QEMU's `-kernel`: QEMU fills in fields of the Linux boot protocol's setup header before (hw/i386/x86.c, x86_load_linux, up
 * to QEMU 7.2 also for EFI), so that the measured digest depends on memory and initrd size. `Documentation/arch/x86/boot.rst`, protocol 2.15.
 */
export function kernelAsQemuLoadsIt(kernel: Uint8Array, boot: DirectBoot): Uint8Array {
  const patched = kernel.slice()
  const view = new DataView(patched.buffer)
  if (view.getUint32(0x202, true) !== headerMagic || view.getUint16(0x206, true) < 0x20c)
    throw new LabError("build-failed", "not a Linux kernel image with boot protocol 2.12 or newer")
  view.setUint8(0x210, 0xb0) // type_of_loader: QEMU
  view.setUint8(0x211, view.getUint8(0x211) | 0x80) // loadflags: CAN_USE_HEAP
  view.setUint16(0x224, commandLineAddress - realModeAddress - 0x200, true) // heap_end_ptr
  view.setUint32(0x228, commandLineAddress, true) // cmd_line_ptr
  // q35 moves memory above 4 GiB when there is more than 2816 MiB: 2 GiB stay below.
  const lowBytes = boot.memoryMiB >= 2816 ? 2 ** 31 : boot.memoryMiB * 2 ** 20
  const highest = lowBytes - acpiDataBytes - 1
  const initrdAddress = Math.floor((highest - boot.initrdBytes) / 4096) * 4096
  view.setUint32(0x218, initrdAddress, true) // ramdisk_image
  view.setUint32(0x21c, boot.initrdBytes, true) // ramdisk_size
  return patched
}

/**
 * Authenticode digest of a PE32+ image, as the firmware measures what it starts (EV_EFI_BOOT_SERVICES_APPLICATION): everything but check sum, the
 * certificate table's directory entry, and the table itself. Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash".
 */
export function authenticodeDigest(image: Uint8Array): string {
  return createHash("sha256").update(authenticodeBytes(image)).digest("hex")
}

/** The bytes that an Authenticode digest is over, whatever the hash. @throws {LabError} `build-failed` for what is no PE32+ image */
export function authenticodeBytes(image: Uint8Array): Uint8Array {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const pe = view.getUint32(0x3c, true)
  if (view.getUint32(pe, true) !== peMagic || view.getUint16(pe + 24, true) !== pe32Plus)
    throw new LabError("build-failed", "the kernel is not a PE32+ image")
  const optional = pe + 24
  const checkSum = optional + 64
  const certificateEntry = optional + 112 + 4 * 8
  const headerBytes = view.getUint32(optional + 60, true)
  const certificateBytes = view.getUint32(certificateEntry + 4, true)
  const sectionTable = optional + view.getUint16(pe + 20, true)
  const sections = Array.from({ length: view.getUint16(pe + 6, true) }, (_, index) => {
    const at = sectionTable + 40 * index
    return { sizeBytes: view.getUint32(at + 16, true), offset: view.getUint32(at + 20, true) }
  })
  const parts: Uint8Array[] = []
  const take = (start: number, end: number) => parts.push(viewOf(image, start, end - start))
  take(0, checkSum)
  take(checkSum + 4, certificateEntry)
  take(certificateEntry + 8, headerBytes)
  let hashed = headerBytes
  for (const { offset, sizeBytes } of sections.filter((section) => section.sizeBytes > 0).sort((a, b) => a.offset - b.offset)) {
    take(offset, offset + sizeBytes)
    hashed += sizeBytes
  }
  const end = image.length - certificateBytes
  if (end > hashed) take(hashed, end)
  return concatBytes(...parts)
}

const headerMagic = 0x53726448 // "HdrS"
const peMagic = 0x00004550 // "PE\0\0"
const pe32Plus = 0x20b
const realModeAddress = 0x10000
const commandLineAddress = 0x20000
/** QEMU's acpi_data_size: 128 KiB of tables and 32 KiB for the e820 map's end. */
const acpiDataBytes = 0x20000 + 0x8000
