import type { Finding, FindingCode } from "./findings.ts"
import { finding, printable } from "./findings.ts"
import type { KernelParameter } from "./kernel-parameters.ts"
import { parseKernelCommandLine } from "./kernel-parameters.ts"
import type { VerityDisk } from "./reference.ts"

/**
 * What is wrong with a measured command line of level `sealed`: a fact that it does not establish, or a parameter that nobody has judged. Every parameter
 * must be demanded, hold a root hash, or stand in the list of those that weaken nothing, for a list of the harmful ones would never be whole.
 */
export function commandLineFindings(
  { pcr, text }: { readonly pcr: number; readonly text: string },
  disks: readonly VerityDisk[],
): readonly Finding[] {
  if (!readable.test(text))
    return [finding("command-line-unreadable", "kernel command line", printable(text), `printable ASCII, at most ${maxLength} characters`)]
  const { parameters: words, initArguments } = parseKernelCommandLine(text)
  const parameters = words.filter((word, index) => !(index === 0 && isKernelPath(pcr, word)))
  const isKnown = (parameter: KernelParameter): boolean =>
    demandedParameters.some(({ name }) => name === parameter.name) ||
    disks.some((disk) => isOf(disk, parameter)) ||
    harmlessParameters.some(({ name, values }) => name === parameter.name && fits(parameter.value, values))
  return [
    ...demandedParameters.flatMap((demand) => demandFindings(demand, parameters)),
    ...[...Map.groupBy(disks, ({ parameter }) => parameter).values()].flatMap((group) => verityFindings(group, parameters)),
    ...parameters.filter((parameter) => !isKnown(parameter)).map((parameter) => unknown(parameter.text)),
    // Programs of the initrd read the whole line, so that these would count for them.
    ...initArguments.map(unknown),
  ]
}

function demandFindings({ code, name, good }: DemandedParameter, parameters: readonly KernelParameter[]): readonly Finding[] {
  const found = parameters.filter((parameter) => parameter.name === name)
  // Which of several equal parameters wins differs per parameter, so all must be good.
  if (found.length > 0 && found.every(({ value }) => value !== undefined && good.includes(value))) return []
  return [finding(code, "kernel command line", shown(name, found), `${name}=${good.join(" or ")}`)]
}

/** Disks whose hashes stand in one parameter: it must be there exactly once, with exactly these hashes. */
function verityFindings(disks: readonly VerityDisk[], parameters: readonly KernelParameter[]): readonly Finding[] {
  const [disk] = disks
  if (disk === undefined) return []
  const found = parameters.filter((parameter) => isOf(disk, parameter))
  const hashes = disks.map(({ rootHash }) => rootHash)
  if (found.length === 1 && found.every(({ value }) => holdsHashes(disk.parameter, value ?? "", hashes))) return []
  return [finding("verity-root-not-measured", `kernel parameter ${disk.parameter}`, shown(disk.parameter, found), hashes.join(" and "))]
}

/** Compared as it stands on the line, for a loader in user space takes neither hyphen for underscore nor quotes away. */
function isOf({ parameter }: VerityDisk, { text }: KernelParameter): boolean {
  return text.startsWith(`${parameter}=`)
}

function holdsHashes(parameter: string, value: string, hashes: readonly string[]): boolean {
  // systemd's roothash= and usrhash= hold the hash alone, the loader of Perun's images the number of blocks before it.
  if (parameter !== deviceMapper) return hashes.length === 1 && value.replace(/^[1-9][0-9]*,/, "") === hashes[0]
  const found = value.split(";").map((device) => verityDevice.exec(device)?.groups?.["hash"])
  return found.length === hashes.length && hashes.every((hash) => found.includes(hash))
}

/** GRUB's measured line begins with the kernel's path. */
function isKernelPath(pcr: number, { value, text }: KernelParameter): boolean {
  return pcr === 8 && value === undefined && /^[/(]/.test(text)
}

function fits(value: string | undefined, values: AcceptedValues): boolean {
  return values instanceof RegExp ? value !== undefined && values.test(value) : values.includes(value)
}

function unknown(text: string): Finding {
  return finding("unknown-boot-parameter", "kernel command line", printable(text), "no such parameter, or another value")
}

function shown(name: string, found: readonly KernelParameter[]): string {
  return found.length === 0 ? `no ${name}` : printable(found.map(({ text }) => text).join(" "))
}

/** Whole pattern or list of accepted values; undefined for the bare word. */
type AcceptedValues = RegExp | readonly (string | undefined)[]

/** COMMAND_LINE_SIZE of x86, less the NUL; the kernel cuts off what is longer, and its EFI stub what follows a line end. */
const maxLength = 2047
const readable = /^[\x20-\x7e]{0,2047}$/

const deviceMapper = "dm-mod.create"
/**
 * One read-only device with one table of target verity that covers it, with no option but what to do on corruption. Linux
 * Documentation/admin-guide/device-mapper/dm-init.rst and verity.rst.
 */
const verityDevice =
  /^[a-z0-9_-]+,[a-f0-9-]*,\d*,ro,0 \d+ verity 1 [^\s,;]+ [^\s,;]+ \d+ \d+ \d+ \d+ sha256 (?<hash>[0-9a-f]{64}) (?:[0-9a-f]+|-)(?: 1 (?:panic|restart)_on_corruption)?$/

interface DemandedParameter {
  readonly code: FindingCode
  readonly name: string
  /** The kernel compares these as they stand, with case. */
  readonly good: readonly string[]
}

/**
 * Linux Documentation/admin-guide/kernel-parameters.txt, with the parser of each. Of the two vendors' IOMMUs a machine has one, and the kernel
 * ignores the parameter of the other: so one line serves both.
 */
const demandedParameters: readonly DemandedParameter[] = [
  // security/lockdown/lockdown.c, lockdown_param(): strcmp; anything else is no lockdown at all.
  { code: "lockdown-not-confidentiality", name: "lockdown", good: ["confidentiality"] },
  // kernel/module/signing.c: bool_enable_only.
  { code: "module-signatures-not-enforced", name: "module.sig_enforce", good: ["1"] },
  // drivers/iommu/intel/iommu.c, intel_iommu_setup(): off unless the kernel is configured with CONFIG_INTEL_IOMMU_DEFAULT_ON.
  { code: "iommu-not-strict", name: "intel_iommu", good: ["on", "on,sm_on"] },
  // drivers/iommu/amd/iommu.c: without it devices that speak PASID, graphics cards among them, are let past the IOMMU by default.
  { code: "iommu-not-strict", name: "amd_iommu", good: ["force_isolation"] },
  // drivers/iommu/iommu.c: passthrough may be the kernel's configured default, strict need not be.
  { code: "iommu-not-strict", name: "iommu.passthrough", good: ["0"] },
  { code: "iommu-not-strict", name: "iommu.strict", good: ["1"] },
]

/**
 * What may stand on a sealed line beside that. Not here, and so refused: other first programs (init, rdinit), shells and debuggers (single, rescue, rd.break,
 * systemd.*, kgdboc), what undoes the above or IMA (lsm, security, ima=off, ima_template_fmt, ima_canonical_fmt, initcall_blacklist, module_blacklist,
 * sysctl.*, mitigations=off, nokaslr, norandmaps, kexec and crash kernels), what changes the tables and memory that the kernel sees (acpi_rsdp, memmap,
 * efi_fake_mem, tpm_tis.*), another root or one that can be written (root=/dev/sda, rw), and whatever is new.
 */
const harmlessParameters: readonly { readonly name: string; readonly values: AcceptedValues }[] = [
  // Where messages go, how many, and that a fault ends the machine.
  { name: "console", values: /^(?:ttyS\d(?:,\d+[a-z0-9]*)?|tty\d|hvc\d|null)$/ },
  { name: "quiet", values: [undefined] },
  { name: "loglevel", values: /^[0-7]$/ },
  { name: "panic", values: /^-?\d{1,4}$/ },
  { name: "oops", values: ["panic"] },
  { name: "panic_on_warn", values: [undefined] },
  { name: "nowatchdog", values: [undefined] },
  { name: "no_timer_check", values: [undefined] },
  { name: "cryptomgr.notests", values: [undefined] },
  // What boot loaders add: the kernel's path, and a ram disk, which must be measured (`initrd-not-measured`).
  { name: "BOOT_IMAGE", values: /^[A-Za-z0-9_.,()/+~-]+$/ },
  { name: "initrd", values: /^[A-Za-z0-9_.\\/+~-]+$/ },
  // A root that is a device of device mapper, which the image's loader made of the hash on this line.
  { name: "root", values: ["/dev/dm-0", "/dev/mapper/root"] },
  { name: "rootfstype", values: ["ext4", "erofs", "squashfs"] },
  { name: "rootwait", values: [undefined] },
  { name: "ro", values: [undefined] },
  { name: "perun.level", values: ["sealed"] },
  // IMA: only what measures or appraises more. That the policy's load is measured is judged at every level.
  {
    name: "ima_policy",
    values: /^(?:tcb|appraise_tcb|secure_boot|fail_securely|critical_data)(?:\|(?:tcb|appraise_tcb|secure_boot|fail_securely|critical_data))*$/,
  },
  { name: "ima_hash", values: ["sha256", "sha384", "sha512"] },
  { name: "ima_template", values: ["ima-ng", "ima-sig", "ima-ngv2", "ima-sigv2", "ima-modsig"] },
  { name: "ima_appraise", values: ["enforce"] },
  // What makes attacks on the running kernel harder.
  { name: "debugfs", values: ["off"] },
  { name: "efi", values: ["disable_early_pci_dma"] },
  { name: "init_on_alloc", values: ["1"] },
  { name: "init_on_free", values: ["1"] },
  { name: "iommu", values: ["force", "nopt"] },
  { name: "mitigations", values: ["auto", "auto,nosmt"] },
  { name: "nohibernate", values: [undefined] },
  { name: "nosmt", values: [undefined, "force"] },
  { name: "page_alloc.shuffle", values: ["1"] },
  { name: "pti", values: ["on", "auto"] },
  { name: "randomize_kstack_offset", values: ["1", "on"] },
  { name: "slab_nomerge", values: [undefined] },
  { name: "vsyscall", values: ["none"] },
]
