import type { BootClaims } from "../evidence/eventlog/claims.ts"
import { commandLineFindings } from "./appraise-command-line.ts"
import type { Finding, FindingCode } from "./findings.ts"
import { finding, printable } from "./findings.ts"
import { parseKernelCommandLine } from "./kernel-parameters.ts"
import { unreadLines } from "./measured-lines.ts"
import type { Appliance, BootReference } from "./reference.ts"

/**
 * The facts that make a machine an appliance which nobody can enter. Those of the command line are proved by its measurement; the others are stated by
 * the image's builder and bound to the machine by the root hashes on that command line.
 */
export function sealedFindings(claims: BootClaims, reference: BootReference): readonly Finding[] {
  return [...unreadFindings(claims), ...linesFindings(claims.commandLines, reference), ...initrdFindings(claims), ...statedFindings(reference)]
}

/** The same of a reference alone, before any machine shows itself: what no machine of this reference could meet. */
export function sealedReferenceFindings(reference: BootReference): readonly Finding[] {
  return [...unreadFindings({ ...reference, loadOptions: [] }), ...linesFindings(reference.commandLines, reference), ...statedFindings(reference)]
}

function unreadFindings(measured: Parameters<typeof unreadLines>[0]): readonly Finding[] {
  const unread = unreadLines(measured)
  return unread === undefined
    ? []
    : [finding("command-line-not-measured", "kernel command line", unread, "the text of each measured line, at least one")]
}

function linesFindings(lines: BootClaims["commandLines"], { appliance }: BootReference): readonly Finding[] {
  return lines.flatMap((line) => commandLineFindings(line, appliance === "none" ? [] : appliance.verity))
}

/**
 * A ram disk that the kernel's EFI stub finds by `initrd=` in a file system is not measured; one that the boot loader hands over is, and comes first.
 * Linux drivers/firmware/efi/libstub/efi-stub-helper.c, efi_load_initrd().
 */
function initrdFindings({ commandLines, initrds }: BootClaims): readonly Finding[] {
  if (initrds.length > 0) return []
  const named = commandLines.flatMap(({ text }) => parseKernelCommandLine(text).parameters.filter(({ name }) => name === "initrd"))
  return named.map(({ text }) => finding("initrd-not-measured", "kernel command line", printable(text), "a measured ram disk"))
}

function statedFindings({ appliance, quirks }: BootReference): readonly Finding[] {
  // The log's own word for firmware that lets code and data be changed from outside.
  const debug = quirks.includes("debug-mode") ? [finding("boot-quirk-not-accepted", "firmware", "debug-mode", "no debug mode at level sealed")] : []
  if (appliance === "none") return [...debug, finding("appliance-not-stated", "reference", "none", "appliance facts")]
  return [...debug, ...factFindings(appliance)]
}

function factFindings(appliance: Appliance): readonly Finding[] {
  return applianceFacts.flatMap(({ code, fact, good }) =>
    appliance[fact] === good ? [] : [finding(code, `appliance fact ${fact}`, appliance[fact], good)],
  )
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
