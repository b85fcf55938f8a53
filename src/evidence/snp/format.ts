import { isAllZero } from "../../bytes/compare.ts"
import { ByteReader, readAll } from "../../bytes/reader.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { EvidenceError } from "../errors.ts"

/** ATTESTATION_REPORT of AMD SEV-SNP, versions 2 to 5. AMD 56860 revision 1.58, table 23; version 4 was never published, see README. */
export interface SnpReport {
  /** Bytes 0 to 0x29f, exactly as signed. */
  readonly signedBytes: Uint8Array
  readonly version: SnpReportVersion
  readonly guestSvn: number
  readonly policy: GuestPolicy
  /** FAMILY_ID, 16 bytes; the guest's owner chose it. */
  readonly familyId: Uint8Array
  /** IMAGE_ID, 16 bytes; the guest's owner chose it. */
  readonly imageId: Uint8Array
  /** Privilege level of the guest's code that asked, 0 (highest) to 3. */
  readonly vmpl: number
  readonly currentTcb: TcbVersion
  readonly platformInfo: PlatformInfo
  readonly authorKeyEn: boolean
  readonly maskChipKey: boolean
  readonly signingKey: "vcek" | "vlek" | "none"
  /** REPORT_DATA, 64 bytes; the guest's code chose it. */
  readonly reportData: Uint8Array
  /** MEASUREMENT, 48 bytes: the launch digest. */
  readonly measurement: Uint8Array
  /** HOST_DATA, 32 bytes; the host chose it at launch. */
  readonly hostData: Uint8Array
  /** ID_KEY_DIGEST, 48 bytes. */
  readonly idKeyDigest: Uint8Array
  /** AUTHOR_KEY_DIGEST, 48 bytes. */
  readonly authorKeyDigest: Uint8Array
  /** REPORT_ID, 32 bytes. */
  readonly reportId: Uint8Array
  /** REPORT_ID_MA, 32 bytes: the migration agent's report; all ones where there is none. */
  readonly reportIdMa: Uint8Array
  readonly reportedTcb: TcbVersion
  /** CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP; from version 3 on. */
  readonly cpu?: CpuId
  /** CHIP_ID, 64 bytes; all zero where the host masks it. */
  readonly chipId: Uint8Array
  readonly committedTcb: TcbVersion
  readonly currentFirmware: FirmwareVersion
  readonly committedFirmware: FirmwareVersion
  readonly launchTcb: TcbVersion
  /** LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR; from version 4 on. */
  readonly mitigations?: { readonly launch: bigint; readonly current: bigint }
  /** r ‖ s, big-endian, 48 bytes each. */
  readonly signature: Uint8Array
}

export type SnpReportVersion = 2 | 3 | 4 | 5

/** TCB_VERSION, 8 bytes as in the report; what each byte means depends on the product. */
export type TcbVersion = Uint8Array

export interface CpuId {
  /** Family, extended family included: 0x19, 0x1a. */
  readonly family: number
  /** Model, extended model included. */
  readonly model: number
  readonly stepping: number
}

export interface FirmwareVersion {
  readonly major: number
  readonly minor: number
  readonly build: number
}

/** Bits of POLICY by name. AMD 56860, table 9. */
const policyBits = {
  smt: 16n,
  migrateMa: 18n,
  debug: 19n,
  singleSocket: 20n,
  cxlAllow: 21n,
  memAes256Xts: 22n,
  raplDis: 23n,
  ciphertextHidingDram: 24n,
  pageSwapDisable: 25n,
} as const

/** Bit 17 of POLICY is reserved and must be one. */
const policyOne = 17n

/** Guest policy, chosen by the guest's owner at launch. */
export interface GuestPolicy extends Readonly<Record<keyof typeof policyBits, boolean>> {
  /** Least ABI version of the firmware that may run the guest. */
  readonly abiMajor: number
  readonly abiMinor: number
}

/** Bits of PLATFORM_INFO by name. AMD 56860, table 23; bit 6 is set by Turin firmware. */
const platformBits = {
  smtEn: 0n,
  tsmeEn: 1n,
  eccEn: 2n,
  raplDis: 3n,
  ciphertextHidingDramEn: 4n,
  aliasCheckComplete: 5n,
  iommuWriteSafe: 6n,
  tioEn: 7n,
} as const

export type PlatformInfo = Readonly<Record<keyof typeof platformBits, boolean>>

/** ECDSA P-384 with SHA-384. AMD 56860, table 139. */
const signatureAlgo = 1
/** SIGNING_KEY values; 2 to 6 are reserved. */
const signingKeys: ReadonlyMap<number, SnpReport["signingKey"]> = new Map([
  [0, "vcek"],
  [1, "vlek"],
  [7, "none"],
])
/** VMPL of a report that the host asked for (SNP_HV_REPORT_REQ). */
const hostVmpl = 0xffff_ffff
const scalarBytes = 48
/** r and s stand in 72 bytes each, little-endian. AMD 56860, table 141. */
const scalarPadding = 24

/**
 * Reads a report of exactly 1184 bytes.
 * @throws {MalformedError} `truncated`, `trailing-bytes`, `malformed` (reserved bits, values out of range)
 * @throws {EvidenceError} `unsupported` (version, report asked for by the host), `weak-algorithm`
 */
export function parseSnpReport(bytes: Uint8Array): SnpReport {
  return readAll("ATTESTATION_REPORT", bytes, readReport)
}

function readReport(reader: ByteReader): SnpReport {
  const version = readVersion(reader) // 0x000
  const guestSvn = reader.u32le("GUEST_SVN") // 0x004
  const policy = readPolicy(reader) // 0x008
  const familyId = reader.bytes(16, "FAMILY_ID") // 0x010
  const imageId = reader.bytes(16, "IMAGE_ID") // 0x020
  const vmpl = readVmpl(reader) // 0x030
  readAlgorithm(reader) // 0x034
  const currentTcb = reader.bytes(8, "CURRENT_TCB") // 0x038
  const platformInfo = readFlags(reader, "PLATFORM_INFO", reader.u64le("PLATFORM_INFO"), platformBits) // 0x040
  const keyInfo = readKeyInfo(reader) // 0x048
  readZeros(reader, 4, "reserved at 0x04c")
  const reportData = reader.bytes(64, "REPORT_DATA") // 0x050
  const measurement = reader.bytes(48, "MEASUREMENT") // 0x090
  const hostData = reader.bytes(32, "HOST_DATA") // 0x0c0
  const idKeyDigest = reader.bytes(48, "ID_KEY_DIGEST") // 0x0e0
  const authorKeyDigest = reader.bytes(48, "AUTHOR_KEY_DIGEST") // 0x110
  const reportId = reader.bytes(32, "REPORT_ID") // 0x140
  const reportIdMa = reader.bytes(32, "REPORT_ID_MA") // 0x160
  const reportedTcb = reader.bytes(8, "REPORTED_TCB") // 0x180
  const cpu = version === 2 ? undefined : readCpu(reader) // 0x188
  readZeros(reader, version === 2 ? 24 : 21, "reserved behind REPORTED_TCB")
  const chipId = reader.bytes(64, "CHIP_ID") // 0x1a0
  const committedTcb = reader.bytes(8, "COMMITTED_TCB") // 0x1e0
  const currentFirmware = readFirmware(reader, "CURRENT") // 0x1e8
  const committedFirmware = readFirmware(reader, "COMMITTED") // 0x1ec
  const launchTcb = reader.bytes(8, "LAUNCH_TCB") // 0x1f0
  const mitigations = version < 4 ? undefined : readMitigations(reader) // 0x1f8
  readZeros(reader, version < 4 ? 168 : 152, "reserved in front of SIGNATURE")
  const signedBytes = reader.since(0) // 0x2a0
  const signature = readSignature(reader)
  return {
    signedBytes,
    version,
    guestSvn,
    policy,
    familyId,
    imageId,
    vmpl,
    currentTcb,
    platformInfo,
    ...keyInfo,
    reportData,
    measurement,
    hostData,
    idKeyDigest,
    authorKeyDigest,
    reportId,
    reportIdMa,
    reportedTcb,
    ...(cpu === undefined ? {} : { cpu }),
    chipId,
    committedTcb,
    currentFirmware,
    committedFirmware,
    launchTcb,
    ...(mitigations === undefined ? {} : { mitigations }),
    signature,
  }
}

/** The signed part of a report, 672 bytes: what a device signs. */
export function encodeSignedSnpReport(report: Omit<SnpReport, "signedBytes" | "signature">): Uint8Array {
  const writer = new ByteWriter()
  writer.u32le(report.version).u32le(report.guestSvn).u64le(encodePolicy(report.policy))
  writer.bytes(report.familyId).bytes(report.imageId).u32le(report.vmpl).u32le(signatureAlgo)
  writer.bytes(report.currentTcb).u64le(encodeFlags(report.platformInfo, platformBits))
  writer.u32le(encodeKeyInfo(report)).u32le(0)
  writer.bytes(report.reportData).bytes(report.measurement).bytes(report.hostData).bytes(report.idKeyDigest).bytes(report.authorKeyDigest)
  writer.bytes(report.reportId).bytes(report.reportIdMa).bytes(report.reportedTcb)
  if (report.cpu !== undefined) writer.u8(report.cpu.family).u8(report.cpu.model).u8(report.cpu.stepping)
  writer
    .bytes(new Uint8Array(report.cpu === undefined ? 24 : 21))
    .bytes(report.chipId)
    .bytes(report.committedTcb)
  for (const { major, minor, build } of [report.currentFirmware, report.committedFirmware]) writer.u8(build).u8(minor).u8(major).u8(0)
  writer.bytes(report.launchTcb)
  if (report.mitigations !== undefined) writer.u64le(report.mitigations.launch).u64le(report.mitigations.current)
  return writer.bytes(new Uint8Array(report.mitigations === undefined ? 168 : 152)).take()
}

/** A report out of its signed part and its signature (r ‖ s, big-endian, 96 bytes). */
export function encodeSnpReport({ signedBytes, signature }: Pick<SnpReport, "signedBytes" | "signature">): Uint8Array {
  const scalars = new ByteReader("signature", signature)
  const writer = new ByteWriter().bytes(signedBytes)
  for (const name of ["r", "s"]) writer.bytes(scalars.bytes(scalarBytes, name).toReversed()).bytes(new Uint8Array(scalarPadding))
  scalars.finish()
  return writer.bytes(new Uint8Array(signaturePadding)).take()
}

/** SIGNATURE is 512 bytes. */
const signaturePadding = 512 - 2 * (scalarBytes + scalarPadding)

function readVersion(reader: ByteReader): SnpReportVersion {
  const version = reader.u32le("VERSION")
  if (version !== 2 && version !== 3 && version !== 4 && version !== 5)
    throw new EvidenceError("unsupported", `report version ${version}`, { path: "ATTESTATION_REPORT.VERSION" })
  return version
}

function readPolicy(reader: ByteReader): GuestPolicy {
  const abiMinor = reader.u8("POLICY.ABI_MINOR")
  const abiMajor = reader.u8("POLICY.ABI_MAJOR")
  const low = reader.u16le("POLICY")
  const value = (BigInt(reader.u32le("POLICY")) << 32n) | (BigInt(low) << 16n)
  const one = 1n << policyOne
  if ((value & one) === 0n) throw reader.error("malformed", "POLICY", "bit 17 is clear")
  return { abiMajor, abiMinor, ...readFlags(reader, "POLICY", value & ~one, policyBits) }
}

function readVmpl(reader: ByteReader): number {
  const vmpl = reader.u32le("VMPL")
  // Its REPORT_DATA is not the guest's, so such a report can prove nothing about a conversation.
  if (vmpl === hostVmpl)
    throw new EvidenceError("unsupported", "the report was asked for by the host, not by the guest", { path: "ATTESTATION_REPORT.VMPL" })
  if (vmpl > 3) throw reader.error("malformed", "VMPL", `${vmpl} is not a privilege level`)
  return vmpl
}

function readAlgorithm(reader: ByteReader): void {
  const algorithm = reader.u32le("SIGNATURE_ALGO")
  if (algorithm !== signatureAlgo)
    throw new EvidenceError("weak-algorithm", `signature algorithm ${algorithm}`, { path: "ATTESTATION_REPORT.SIGNATURE_ALGO" })
}

function readKeyInfo(reader: ByteReader): Pick<SnpReport, "authorKeyEn" | "maskChipKey" | "signingKey"> {
  const value = reader.u32le("KEY_INFO")
  const signingKey = signingKeys.get((value >>> 2) & 7)
  if (value > 0x1f) throw reader.error("malformed", "KEY_INFO", "reserved bits are set")
  if (signingKey === undefined) throw reader.error("malformed", "KEY_INFO", `SIGNING_KEY ${(value >>> 2) & 7} is reserved`)
  return { authorKeyEn: (value & 1) !== 0, maskChipKey: (value & 2) !== 0, signingKey }
}

function readCpu(reader: ByteReader): CpuId {
  return { family: reader.u8("CPUID_FAM_ID"), model: reader.u8("CPUID_MOD_ID"), stepping: reader.u8("CPUID_STEP") }
}

function readFirmware(reader: ByteReader, field: string): FirmwareVersion {
  const build = reader.u8(`${field}_BUILD`)
  const minor = reader.u8(`${field}_MINOR`)
  const major = reader.u8(`${field}_MAJOR`)
  readZeros(reader, 1, `reserved behind ${field}_MAJOR`)
  return { major, minor, build }
}

function readMitigations(reader: ByteReader): { readonly launch: bigint; readonly current: bigint } {
  return { launch: reader.u64le("LAUNCH_MIT_VECTOR"), current: reader.u64le("CURRENT_MIT_VECTOR") }
}

function readSignature(reader: ByteReader): Uint8Array {
  const writer = new ByteWriter()
  for (const name of ["SIGNATURE.R", "SIGNATURE.S"]) {
    writer.bytes(reader.bytes(scalarBytes, name).toReversed())
    readZeros(reader, scalarPadding, `${name} padding`)
  }
  readZeros(reader, signaturePadding, "reserved in SIGNATURE")
  return writer.take()
}

function readZeros(reader: ByteReader, length: number, field: string): void {
  if (!isAllZero(reader.view(length, field))) throw reader.error("malformed", field, "not zero")
}

function readFlags<Name extends string>(
  reader: ByteReader,
  field: string,
  value: bigint,
  bits: Readonly<Record<Name, bigint>>,
): Readonly<Record<Name, boolean>> {
  const names = Object.keys(bits) as Name[]
  const known = names.reduce((mask, name) => mask | (1n << bits[name]), 0n)
  if ((value & ~known) !== 0n) throw reader.error("malformed", field, `unknown bits 0x${(value & ~known).toString(16)}`)
  return Object.fromEntries(names.map((name) => [name, (value & (1n << bits[name])) !== 0n])) as Record<Name, boolean>
}

function encodePolicy(policy: GuestPolicy): bigint {
  return BigInt(policy.abiMinor) | (BigInt(policy.abiMajor) << 8n) | (1n << policyOne) | encodeFlags(policy, policyBits)
}

function encodeFlags<Name extends string>(flags: Readonly<Record<NoInfer<Name>, boolean>>, bits: Readonly<Record<Name, bigint>>): bigint {
  const names = Object.keys(bits) as Name[]
  return names.reduce((value, name) => (flags[name] ? value | (1n << bits[name]) : value), 0n)
}

function encodeKeyInfo({ authorKeyEn, maskChipKey, signingKey }: Pick<SnpReport, "authorKeyEn" | "maskChipKey" | "signingKey">): number {
  const number = [...signingKeys].find(([, name]) => name === signingKey)?.[0] ?? 0
  return (authorKeyEn ? 1 : 0) + (maskChipKey ? 2 : 0) + number * 4
}
