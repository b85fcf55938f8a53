import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import type { HostBundle } from "../bundle.ts"
import type { ClockInfo } from "../tpm/claims.ts"
import { parseAttest } from "../tpm/format.ts"
import { encodeSizedPublicArea } from "../tpm/public-area.ts"
import type { EccPublicArea } from "../tpm/public-area.ts"
import { makeEccKey, makeQuote } from "../tpm/software-tpm.testing.ts"
import type { SoftwareKey } from "../tpm/software-tpm.testing.ts"

/** A laboratory machine for tests: boots, measures files and quotes, all in memory, with the logs that firmware and kernel would write. */
export class LabMachine {
  readonly key: SoftwareKey<EccPublicArea> = makeEccKey()
  readonly #banks: readonly HashName[]
  readonly #headerHash: HashName
  readonly #padsSha1: boolean
  readonly #hasForeignBank: boolean
  readonly #registers = new Map<string, Uint8Array>()
  readonly #log = new ByteWriter()
  readonly #ima: Uint8Array[] = []
  clock: ClockInfo = { clock: 60_000n, resetCount: 7, restartCount: 0, safe: true }

  constructor(options: LabMachineOptions = {}) {
    this.#banks = options.banks ?? ["sha1", "sha256"]
    this.#headerHash = options.imaHeaderHash ?? "sha1"
    this.#padsSha1 = options.padsSha1 === true
    this.#hasForeignBank = options.hasForeignBank === true
    this.#writeSpecId()
    if (options.startupLocality !== undefined) this.#startLocality(options.startupLocality)
    this.#event(0, eventTypes.postCode, encodeUtf8("firmware"))
    for (const [name, guid] of secureBootVariables) this.#event(7, eventTypes.variable, variable(name, guid))
    this.#event(4, eventTypes.application, encodeUtf8(options.kernel ?? "kernel"))
    for (let pcr = 0; pcr <= 7; pcr++) this.#event(pcr, eventTypes.separator, new Uint8Array(4))
    if (options.commandLine !== undefined) this.#loadOptions(options.commandLine)
    for (const text of ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"]) this.#exit(encodeUtf8(text), options.exit)
    this.measure("boot_aggregate", encodeHex(hash("sha256", ...Array.from({ length: 10 }, (_, pcr) => this.#register("sha256", pcr)))))
  }

  get eventLog(): Uint8Array {
    return this.#log.take()
  }

  /** Binary IMA list from an entry on. */
  imaList(from = 0): Uint8Array {
    return concatBytes(...this.#ima.filter((_, index) => index >= from))
  }

  /** One ima-ng entry; digest as hexadecimal SHA-256. */
  measure(name: string, digest = encodeHex(hash("sha256", encodeUtf8(name)))): void {
    this.log(name, digest)
    const data = templateData(name, digest)
    for (const bank of this.#banks) this.#extend(bank, 10, this.#padsSha1 ? padded(hash("sha1", data), hash(bank).length) : hash(bank, data))
  }

  /** The first half of `measure`: an entry that is in the list but not yet in the register. */
  log(name: string, digest = encodeHex(hash("sha256", encodeUtf8(name)))): void {
    const data = templateData(name, digest)
    const template = encodeUtf8("ima-ng")
    this.#ima.push(
      new ByteWriter().u32le(10).bytes(hash(this.#headerHash, data)).u32le(template.length).bytes(template).u32le(data.length).bytes(data).take(),
    )
  }

  /** Extends a register without a word in any log. */
  extendSilently(pcr: number, text = "silent"): void {
    for (const bank of this.#banks) this.#extend(bank, pcr, hash(bank, encodeUtf8(text)))
  }

  /** Evidence over the given registers. */
  quote(extraData: Uint8Array, options: { readonly from?: number; readonly pcrs?: readonly number[]; readonly bank?: HashName } = {}): HostBundle {
    const bank = options.bank ?? "sha256"
    const values = new Map((options.pcrs ?? [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14]).map((pcr) => [pcr, encodeHex(this.#register(bank, pcr))]))
    const { attest, signature } = makeQuote(this.key, { extraData, pcrs: new Map([[bank, values]]), attest: { clockInfo: this.clock } })
    parseAttest(attest)
    return {
      quote: attest,
      signature,
      akPublic: encodeSizedPublicArea(this.key.area),
      eventLog: this.eventLog,
      ima: { from: options.from ?? 0, list: this.imaList(options.from ?? 0) },
    }
  }

  get #bankCount(): number {
    return this.#banks.length + (this.#hasForeignBank ? 1 : 0)
  }

  #register(bank: HashName, pcr: number): Uint8Array {
    return this.#registers.get(`${bank}:${pcr}`) ?? new Uint8Array(hash(bank).length)
  }

  #extend(bank: HashName, pcr: number, digest: Uint8Array): void {
    this.#registers.set(`${bank}:${pcr}`, hash(bank, this.#register(bank, pcr), digest))
  }

  /** UTF-16 with its terminating zero is what is measured. */
  #loadOptions(text: string): void {
    const measured = new ByteWriter()
    for (const character of `${text}\0`) measured.u16le(character.charCodeAt(0))
    const label = encodeUtf8("LOADED_IMAGE::LoadOptions\0")
    this.#event(9, eventTypes.tag, new ByteWriter().u32le(0x8f3b22ed).u32le(label.length).bytes(label).take(), measured.take())
  }

  #exit(data: Uint8Array, how: LabMachineOptions["exit"]): void {
    if (how === "omitted") return
    if (how === undefined) return this.#event(5, eventTypes.action, data)
    for (const bank of this.#banks) this.#extend(bank, 5, hash(bank, data))
  }

  #event(pcr: number, type: number, data: Uint8Array, measured = data): void {
    this.#writeEvent(pcr, type, data, measured)
    for (const bank of this.#banks) this.#extend(bank, pcr, hash(bank, measured))
  }

  #writeEvent(pcr: number, type: number, data: Uint8Array, measured = data): void {
    this.#log.u32le(pcr).u32le(type).u32le(this.#bankCount)
    for (const bank of this.#banks) this.#log.u16le(bankIds[bank]).bytes(hash(bank, measured))
    if (this.#hasForeignBank) this.#log.u16le(foreignBank).bytes(new Uint8Array(32))
    this.#log.u32le(data.length).bytes(data)
  }

  #startLocality(locality: number): void {
    const data = concatBytes(encodeUtf8("StartupLocality\0"), Uint8Array.of(locality))
    this.#writeEvent(0, eventTypes.noAction, data)
    for (const bank of this.#banks) {
      const start = hash(bank).fill(0)
      start[start.length - 1] = locality
      this.#registers.set(`${bank}:0`, start)
    }
  }

  #writeSpecId(): void {
    const spec = new ByteWriter().bytes(encodeUtf8("Spec ID Event03\0")).u32le(0).u8(0).u8(2).u8(0).u8(2).u32le(this.#bankCount)
    for (const bank of this.#banks) spec.u16le(bankIds[bank]).u16le(hash(bank).length)
    if (this.#hasForeignBank) spec.u16le(foreignBank).u16le(32)
    const data = spec.u8(0).take()
    this.#log.u32le(0).u32le(eventTypes.noAction).bytes(new Uint8Array(20)).u32le(data.length).bytes(data)
  }
}

export interface LabMachineOptions {
  /** Banks of TPM and boot log. */
  readonly banks?: readonly HashName[]
  /** Adds digests of a bank to the log that nobody here can compute (SM3). */
  readonly hasForeignBank?: boolean
  /** What stands for the kernel image. */
  readonly kernel?: string
  readonly startupLocality?: number
  /** Measured into PCR 9 as the kernel's EFI stub does: by digest, with a label as data. */
  readonly commandLine?: string
  /** What the firmware does with the two ExitBootServices events; it logs and measures them where this is left out. */
  readonly exit?: "omitted" | "measured-only"
  /** Hash of the IMA list's template digests. */
  readonly imaHeaderHash?: HashName
  /** Extends every bank with the padded SHA-1 digest, as kernels before 5.8 do. */
  readonly padsSha1?: boolean
}

function padded(digest: Uint8Array, size: number): Uint8Array {
  return concatBytes(digest, new Uint8Array(size - digest.length))
}

const eventTypes = {
  postCode: 0x01,
  noAction: 0x03,
  separator: 0x04,
  tag: 0x06,
  variable: 0x80000001,
  application: 0x80000003,
  action: 0x80000007,
} as const
const bankIds: Readonly<Record<HashName, number>> = { sha1: 0x04, sha256: 0x0b, sha384: 0x0c, sha512: 0x0d }
/** TPM_ALG_SM3_256 */
const foreignBank = 0x12
const globalGuid = "61dfe48bca93d211aa0d00e098032b8c"
const securityGuid = "cbb219d73a3d9645a3bcdad00e67656f"
const secureBootVariables = [
  ["SecureBoot", globalGuid],
  ["PK", globalGuid],
  ["KEK", globalGuid],
  ["db", securityGuid],
  ["dbx", securityGuid],
] as const

/** UEFI_VARIABLE_DATA with one zero byte as value. */
function variable(name: string, guid: string): Uint8Array {
  const writer = new ByteWriter().bytes(parseHex(guid)).u64le(BigInt(name.length)).u64le(1n)
  for (const character of name) writer.u16le(character.charCodeAt(0))
  return writer.u8(0).take()
}

function templateData(name: string, digest: string): Uint8Array {
  const file = concatBytes(encodeUtf8("sha256:\0"), parseHex(digest))
  const path = encodeUtf8(`${name}\0`)
  return new ByteWriter().u32le(file.length).bytes(file).u32le(path.length).bytes(path).take()
}
