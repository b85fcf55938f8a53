import { z } from "zod"
import { isDigest } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { azurePcrs } from "../evidence/azure/claims.ts"
import type { TcbStatus } from "../evidence/dcap/tcb-status.ts"
import { tcbStatuses } from "../evidence/dcap/tcb-status.ts"
import type { CcelQuirk } from "../evidence/ccel/verify.ts"
import { ccelQuirks } from "../evidence/ccel/verify.ts"
import type { SnpProduct, TcbComponent } from "../evidence/snp/products.ts"
import { snpProducts } from "../evidence/snp/products.ts"
import type { TeeKind } from "../evidence/tee/format.ts"

/** What a TEE must prove: one of these alternatives. Nothing has a default; that a value is not looked at is written `any`. */
export type TeeRequirement =
  { readonly tdx: TdxRequirement } | { readonly sgx: SgxRequirement } | { readonly snp: SnpRequirement } | { readonly azure: AzureRequirement }

/** Accepted values, lower-case hexadecimal. */
export type Accepted = "any" | readonly string[]

/** What the processor's maker says of the platform. */
export interface PlatformRequirement {
  /** Merged status of platform, quoting enclave and TDX module. */
  readonly status: readonly Exclude<TcbStatus, "Revoked">[]
  /** Open security advisories that are put up with. */
  readonly advisories: "any" | readonly string[]
  /** Least `tcbEvaluationDataNumber` of TCB info and identities: older ones did not know of later faults. */
  readonly evaluationDataNumber: number
}

interface DcapRequirement {
  readonly debug: false
  readonly tcb: PlatformRequirement
  /** Which physical machines: PPID, 16 bytes. */
  readonly platforms: Accepted
  /** SHA-256 of laboratory root certificates (DER) that are accepted. What comes of such a machine is INSECURE LABORATORY. */
  readonly laboratoryRoots: readonly Digest[]
}

export interface TdxRequirement extends DcapRequirement {
  /** Firmware as it was built into the TD. */
  readonly mrTd: Accepted
  /** Run-time measurements: firmware configuration, boot loaders, kernel with command line and initial ram disk, and what software extended. */
  readonly rtmrs: { readonly "0": Accepted; readonly "1": Accepted; readonly "2": Accepted; readonly "3": Accepted }
  readonly mrConfigId: Accepted
  readonly mrOwner: Accepted
  readonly mrOwnerConfig: Accepted
  /** MRSEAM of the TDX module. */
  readonly mrSeam: Accepted
  /** True: an EPT violation must not be injected as #VE. */
  readonly septVeDisable: true | "any"
  /** False: neither migratable nor bound to a service TD. */
  readonly migration: false
  /** `none`: no CC event log is asked for. Else it must come along and explain the registers, with firmware faults only as named. */
  readonly eventLog: "none" | { readonly quirks: readonly CcelQuirk[] }
}

export interface SgxRequirement extends DcapRequirement {
  readonly mrEnclave: Accepted
  readonly mrSigner: Accepted
  readonly isvProdId: "any" | number
  /** Least ISVSVN. */
  readonly isvSvn: number
  readonly configId: Accepted
}

export interface SnpRequirement {
  readonly debug: false
  readonly migration: false
  /** Launch digest. */
  readonly measurement: Accepted
  readonly hostData: Accepted
  /** `none`: there must be no identity block. */
  readonly idKeyDigest: "none" | Accepted
  readonly authorKeyDigest: "none" | Accepted
  /** Least GUEST_SVN. */
  readonly guestSvn: number
  readonly vmpl: readonly number[]
  readonly smt: false | "any"
  readonly singleSocket: true | "any"
  readonly products: readonly SnpProduct[]
  readonly signingKey: readonly ("vcek" | "vlek")[]
  /** Least patch levels, of the reported TCB and of the one at launch. */
  readonly tcb: Readonly<Partial<Record<TcbComponent, number>>>
  /** Least firmware that has been committed. */
  readonly firmware: { readonly major: number; readonly minor: number; readonly build: number }
  /** False: no firmware on trial. */
  readonly provisional: false | "any"
  /** Which physical machines: CHIP_ID, 64 bytes. */
  readonly chips: Accepted
  readonly laboratoryRoots: readonly Digest[]
}

/**
 * A confidential VM of Azure. The processor measures Microsoft's paravisor (HCL), which runs at VMPL 0 and holds the virtual TPM: `tee` says which paravisor, on which
 * hardware; the guest is what the registers say.
 */
export interface AzureRequirement {
  /** MEASUREMENT, MRTD and the rest are the paravisor's. Their report data bind its words: that is verified, not demanded. */
  readonly tee: { readonly snp: SnpRequirement } | { readonly tdx: TdxRequirement }
  /** SHA-256 registers of the virtual TPM, each of those that a boot and its system write; the quote must cover every one that is stated. */
  readonly pcrs: Readonly<Record<AzurePcr, Accepted>>
  /** Digests of the virtual TPM's attestation keys (HCLAkPub): which VMs, for as long as their TPM keeps its state. */
  readonly attestationKeys: Accepted
  /** True: the key's public area came along, and says that it signs nothing but what its TPM made. */
  readonly attestationKeyRestricted: true | "any"
  /** vmUniqueId, as the paravisor writes it: which VMs, by its word alone. */
  readonly vmUniqueId: "any" | readonly string[]
  /** What the paravisor says of the VM's setting; a demanded one that it does not state is refused. */
  readonly vmConfiguration: {
    /** secure-boot */
    readonly secureBoot: true | "any"
    /** console-enabled: Azure's serial console. */
    readonly consoleEnabled: false | "any"
    /** interactive-console-enabled: the console takes input; only newer paravisors state it. */
    readonly interactiveConsoleEnabled: false | "any"
    /** tpm-persisted: whether the virtual TPM's state outlives the VM's stop, in Azure's keeping. */
    readonly tpmPersisted: boolean | "any"
    /** Settings that this program does not know: none, or whatever they mean. */
    readonly unknownSettings: "none" | "any"
  }
}

/** A register as a policy writes it. */
export type AzurePcr = `${(typeof azurePcrs)[number]}`

const maxMembers = 256
const digest = z.custom<Digest>(isDigest, { error: 'expected "sha256:" and 64 lower-case hexadecimal digits' })
const any = z.literal("any")

function hex(bytes: number): z.ZodString {
  return z.string().regex(new RegExp(`^[0-9a-f]{${2 * bytes}}$`), `expected ${2 * bytes} lower-case hexadecimal digits`)
}

function accepted(bytes: number): z.ZodType<Accepted> {
  return z.union([any, z.array(hex(bytes)).min(1).max(maxMembers)])
}

const u16 = z.int().min(0).max(0xffff)
const u32 = z.int().min(0).max(0xffff_ffff)
const u8 = z.int().min(0).max(0xff)
const acceptableStatuses = tcbStatuses.filter((status) => status !== "Revoked")

const platform = z.strictObject({
  status: z.array(z.enum(acceptableStatuses)).min(1).max(acceptableStatuses.length),
  advisories: z.union([any, z.array(z.string().regex(/^[A-Z0-9-]{1,64}$/, "expected an advisory such as INTEL-SA-00828")).max(maxMembers)]),
  evaluationDataNumber: u32,
})

const dcap = {
  debug: z.literal(false),
  tcb: platform,
  platforms: accepted(16),
  laboratoryRoots: z.array(digest).max(maxMembers),
}

const quirkNames = Object.keys(ccelQuirks) as CcelQuirk[]

const tdx: z.ZodType<TdxRequirement> = z.strictObject({
  mrTd: accepted(48),
  rtmrs: z.strictObject({ "0": accepted(48), "1": accepted(48), "2": accepted(48), "3": accepted(48) }),
  mrConfigId: accepted(48),
  mrOwner: accepted(48),
  mrOwnerConfig: accepted(48),
  mrSeam: accepted(48),
  septVeDisable: z.union([z.literal(true), any]),
  migration: z.literal(false),
  eventLog: z.union([z.literal("none"), z.strictObject({ quirks: z.array(z.enum(quirkNames)).max(quirkNames.length) })]),
  ...dcap,
})

const sgx: z.ZodType<SgxRequirement> = z.strictObject({
  mrEnclave: accepted(32),
  mrSigner: accepted(32),
  isvProdId: z.union([any, u16]),
  isvSvn: u16,
  configId: accepted(64),
  ...dcap,
})

const keyDigest = z.union([z.literal("none"), accepted(48)])
const productNames = Object.keys(snpProducts) as SnpProduct[]

const snp: z.ZodType<SnpRequirement> = z.strictObject({
  debug: z.literal(false),
  migration: z.literal(false),
  measurement: accepted(48),
  hostData: accepted(32),
  idKeyDigest: keyDigest,
  authorKeyDigest: keyDigest,
  guestSvn: u32,
  vmpl: z.array(z.int().min(0).max(3)).min(1).max(4),
  smt: z.union([z.literal(false), any]),
  singleSocket: z.union([z.literal(true), any]),
  products: z.array(z.enum(productNames)).min(1).max(productNames.length),
  signingKey: z
    .array(z.enum(["vcek", "vlek"]))
    .min(1)
    .max(2),
  tcb: z.strictObject({ fmc: u8.exactOptional(), bootLoader: u8, tee: u8, snp: u8, microcode: u8 }),
  firmware: z.strictObject({ major: u8, minor: u8, build: u8 }),
  provisional: z.union([z.literal(false), any]),
  chips: accepted(64),
  laboratoryRoots: z.array(digest).max(maxMembers),
})

/** HCL's report holds no CC event log, and its hardware report is asked for at VMPL 0. */
const azureTee: z.ZodType<AzureRequirement["tee"]> = z.union([
  z.strictObject({
    snp: snp.refine(({ vmpl }) => vmpl.length === 1 && vmpl[0] === 0, { path: ["vmpl"], error: "expected [0]: the paravisor asks" }),
  }),
  z.strictObject({
    tdx: tdx.refine(({ eventLog }) => eventLog === "none", { path: ["eventLog"], error: "expected none: a paravisor has no CC event log" }),
  }),
])

const azure: z.ZodType<AzureRequirement> = z.strictObject({
  tee: azureTee,
  pcrs: z.strictObject(Object.fromEntries(azurePcrs.map((pcr) => [String(pcr), accepted(32)])) as Record<AzurePcr, z.ZodType<Accepted>>),
  attestationKeys: z.union([any, z.array(digest).min(1).max(maxMembers)]),
  attestationKeyRestricted: z.union([z.literal(true), any]),
  vmUniqueId: z.union([any, z.array(z.uuid()).min(1).max(maxMembers)]),
  vmConfiguration: z.strictObject({
    secureBoot: z.union([z.literal(true), any]),
    consoleEnabled: z.union([z.literal(false), any]),
    interactiveConsoleEnabled: z.union([z.literal(false), any]),
    tpmPersisted: z.union([z.boolean(), any]),
    unknownSettings: z.enum(["none", "any"]),
  }),
})

/** The form of one alternative. */
export const teeRequirementSchema: z.ZodType<TeeRequirement> = z.union([
  z.strictObject({ tdx }),
  z.strictObject({ sgx }),
  z.strictObject({ snp }),
  z.strictObject({ azure }),
])

/** The kind of evidence that an alternative is about. */
export function teeKindOf(alternative: TeeRequirement): TeeKind {
  if ("azure" in alternative) return "azure-vtpm"
  if ("tdx" in alternative) return "tdx"
  return "sgx" in alternative ? "sgx" : "snp"
}

/** What an alternative demands of the processor, whether it measured the TEE itself or a paravisor. */
export function hardwareRequirementOf(alternative: TeeRequirement): TdxRequirement | SgxRequirement | SnpRequirement {
  if ("azure" in alternative) return hardwareRequirementOf(alternative.azure.tee)
  if ("tdx" in alternative) return alternative.tdx
  return "sgx" in alternative ? alternative.sgx : alternative.snp
}

/** Laboratory roots that any of the alternatives accepts. */
export function laboratoryRootsOf(accept: readonly TeeRequirement[]): readonly Digest[] {
  return [...new Set(accept.flatMap((alternative) => hardwareRequirementOf(alternative).laboratoryRoots))]
}

/** Faults of a TD's firmware that any of the alternatives accepts; each alternative then judges by its own list. */
export function ccelQuirksOf(accept: readonly TeeRequirement[]): readonly CcelQuirk[] {
  const quirks = accept.flatMap((alternative) => ("tdx" in alternative && alternative.tdx.eventLog !== "none" ? alternative.tdx.eventLog.quirks : []))
  return [...new Set(quirks)]
}
