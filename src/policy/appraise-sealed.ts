import type { BootClaims } from "../evidence/eventlog/claims.ts"
import type { Finding, FindingCode } from "./findings.ts"
import { finding, printable } from "./findings.ts"
import { kernelParameters } from "./kernel-parameters.ts"
import type { KernelParameter } from "./kernel-parameters.ts"
import type { Appliance, BootReference } from "./reference.ts"

/**
 * The facts that make a machine an appliance which nobody can enter. Those of the command line are proved by its measurement; the others are stated by
 * the image's builder and bound to the machine by the root hash on that command line.
 */
export function sealedFindings(claims: BootClaims, reference: BootReference): readonly Finding[] {
  const { appliance } = reference
  const lines = claims.commandLines.map(({ text }) => kernelParameters(text))
  const fromLines =
    lines.length === 0
      ? [finding("command-line-not-measured", "kernel command line", "none", "at least one")]
      : lines.flatMap((parameters) => commandLineFacts(parameters))
  if (appliance === "none") return [...fromLines, finding("appliance-not-stated", "reference", "none", "appliance facts")]
  return [...fromLines, ...lines.flatMap((parameters) => verityFindings(parameters, appliance)), ...applianceFindings(appliance)]
}

function commandLineFacts(parameters: readonly KernelParameter[]): readonly Finding[] {
  const demanded = demandedParameters.flatMap(({ code, name, good, expected }): readonly Finding[] => {
    const values = parameters.filter((parameter) => parameter.name === name).map(({ value }) => value)
    // Which of several equal parameters wins differs per parameter, so all must be good.
    if (values.length > 0 && values.every((value) => good.includes(value?.toLowerCase()))) return []
    return [finding(code, "kernel command line", values.length === 0 ? `no ${name}` : parameterText(name, values), expected)]
  })
  const refused = parameters.flatMap((parameter): readonly Finding[] => {
    const rule = refusedParameters.find(({ name, values }) => name === parameter.name && (values === "any" || isAmong(parameter.value, values)))
    if (rule === undefined) return []
    return [finding(rule.code, "kernel command line", printable(parameter.text), `no ${rule.name}`)]
  })
  return [...demanded, ...refused]
}

function verityFindings(parameters: readonly KernelParameter[], appliance: Appliance): readonly Finding[] {
  // systemd's roothash=, a loader's own blocks:hash, or a table in dm-mod.create=, where the hash stands between blanks.
  if (parameters.some(({ value }) => value?.split(/[\s,:]/).includes(appliance.verityRootHash) === true)) return []
  return [finding("verity-root-not-measured", "kernel command line", "no such root hash", appliance.verityRootHash)]
}

function applianceFindings(appliance: Appliance): readonly Finding[] {
  return applianceFacts.flatMap(({ code, fact, good }) =>
    appliance[fact] === good ? [] : [finding(code, `appliance fact ${fact}`, appliance[fact], good)],
  )
}

/** Values of a list such as `intel_iommu=on,sm_on` are judged one by one. */
function isAmong(value: string | undefined, bad: readonly (string | undefined)[]): boolean {
  if (value === undefined) return bad.includes(undefined)
  return value.split(",").some((part) => bad.includes(part.toLowerCase()))
}

function parameterText(name: string, values: readonly (string | undefined)[]): string {
  return printable(values.map((value) => (value === undefined ? name : `${name}=${value}`)).join(" "))
}

/** What the kernel takes for yes. Linux lib/kstrtox.c, kstrtobool(). */
const yes = ["1", "y", "yes", "t", "true", "on"] as const

const demandedParameters: readonly {
  readonly code: FindingCode
  readonly name: string
  readonly good: readonly (string | undefined)[]
  readonly expected: string
}[] = [
  { code: "lockdown-not-confidentiality", name: "lockdown", good: ["confidentiality"], expected: "lockdown=confidentiality" },
  { code: "module-signatures-not-enforced", name: "module.sig_enforce", good: [undefined, ...yes], expected: "module.sig_enforce=1" },
  { code: "iommu-not-strict", name: "iommu.strict", good: ["1"], expected: "iommu.strict=1" },
]

/** Parameters that undo the above or let somebody in. Linux kernel-parameters.txt; initramfs-tools(7); dracut.cmdline(7); systemd(1), kernel command line. */
const refusedParameters: readonly { readonly code: FindingCode; readonly name: string; readonly values: "any" | readonly (string | undefined)[] }[] =
  [
    { code: "iommu-not-strict", name: "iommu", values: ["off", "pt", "soft", "noforce"] },
    { code: "iommu-not-strict", name: "iommu.passthrough", values: [undefined, ...yes] },
    { code: "iommu-not-strict", name: "intel_iommu", values: ["off", "igfx_off"] },
    { code: "iommu-not-strict", name: "amd_iommu", values: ["off"] },
    { code: "other-init", name: "init", values: "any" },
    { code: "other-init", name: "rdinit", values: "any" },
    ...["single", "s", "S", "1", "2", "3", "4", "5", "emergency", "rescue", "-b", "b", "break", "debug_shell"].map((name) => debugRow(name)),
    ...["rd.break", "rd.shell", "rd.debug", "systemd.debug_shell", "rd.systemd.debug_shell"].map((name) => debugRow(name)),
    ...["systemd.unit", "rd.systemd.unit", "systemd.run", "systemd.wants", "systemd.mask", "systemd.set_credential"].map((name) => debugRow(name)),
    ...["kgdboc", "ekgdboc", "kgdbwait", "kgdbdbgp", "kgdbcon", "kdb", "sysrq_always_enabled"].map((name) => debugRow(name)),
    ...["crashkernel", "resume", "hibernate", "memmap", "iomem", "mem", "dyndbg", "trace_event", "ftrace", "kprobe_event"].map((name) =>
      debugRow(name),
    ),
    ...["nolockdown", "nosmep", "nosmap", "nopti", "nospectre_v1", "nospectre_v2"].map((name) => debugRow(name)),
    { code: "debug-boot-parameter", name: "ima", values: ["off"] },
    { code: "debug-boot-parameter", name: "ima_appraise", values: ["off", "log", "fix"] },
    { code: "debug-boot-parameter", name: "evm", values: ["fix"] },
    { code: "debug-boot-parameter", name: "mitigations", values: ["off"] },
    { code: "debug-boot-parameter", name: "pti", values: ["off"] },
  ]

function debugRow(name: string): { readonly code: FindingCode; readonly name: string; readonly values: "any" } {
  return { code: "debug-boot-parameter", name, values: "any" }
}

const applianceFacts = [
  { code: "login-possible", fact: "login", good: "none" },
  { code: "tpm-open-to-others", fact: "tpmAccess", good: "agent" },
  { code: "ptrace-possible", fact: "ptrace", good: "off" },
  { code: "swap-possible", fact: "swap", good: "off" },
  { code: "core-dumps-possible", fact: "coreDumps", good: "off" },
  { code: "suspend-possible", fact: "suspend", good: "off" },
  { code: "kexec-possible", fact: "kexec", good: "off" },
  { code: "programs-outside-root", fact: "programs", good: "verity-root-only" },
] as const satisfies readonly { readonly code: FindingCode; readonly fact: keyof Appliance; readonly good: string }[]
