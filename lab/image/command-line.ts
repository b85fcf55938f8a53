import type { ImageLevel } from "./recipe.ts"
import type { VerityDisk } from "./verity.ts"

export interface CommandLineParts {
  readonly level: ImageLevel
  readonly root: Pick<VerityDisk, "dataBlocks" | "rootHash">
  readonly app: Pick<VerityDisk, "dataBlocks" | "rootHash">
}

/** The kernel command line of an image. For a sealed one it names the disks' root hashes, so that measuring it measures them. */
export function commandLine({ level, root, app }: CommandLineParts): string {
  const disk = ({ dataBlocks, rootHash }: CommandLineParts["root"]): string => `${dataBlocks},${rootHash}`
  const sealed = [...lockedDown, `${rootHashParameters.root}=${disk(root)}`, `${rootHashParameters.app}=${disk(app)}`]
  return [...common, ...(level === "sealed" ? sealed : []), `perun.level=${level}`].join(" ")
}

/** Where the initrd finds the disks' sizes and root hashes. */
export const rootHashParameters = { root: "perun.root", app: "perun.app" } as const

/**
 * What the firmware's loader hands to the kernel, and the kernel's EFI stub measures into PCR 9 as UTF-16LE with its terminating NUL: OVMF adds the name by
 * which the stub finds the initial ram disk.
 */
export function measuredCommandLine(line: string): string {
  return `${line} initrd=initrd`
}

/** Output to the serial port only; a panic ends the machine; IMA as the verifier expects it, measuring before its policy file is loaded too. */
const common = [
  "console=ttyS0",
  "quiet",
  "loglevel=4",
  "panic=-1",
  "oops=panic",
  "ima_policy=tcb",
  "ima_hash=sha256",
  "ima_template=ima-ng",
  "cryptomgr.notests",
  "nowatchdog",
  // On a busy host an emulated timer may miss the kernel's self-test, which then panics.
  "no_timer_check",
]

/** What level `sealed` demands, and more of its kind: src/policy/appraise-command-line.ts. */
const lockedDown = [
  "lockdown=confidentiality",
  "module.sig_enforce=1",
  "intel_iommu=on",
  "amd_iommu=force_isolation",
  "iommu=force",
  "iommu.passthrough=0",
  "iommu.strict=1",
  "efi=disable_early_pci_dma",
  "nohibernate",
  "debugfs=off",
  "slab_nomerge",
]
