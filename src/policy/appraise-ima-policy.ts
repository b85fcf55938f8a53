import { digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import type { BootClaims } from "../evidence/eventlog/claims.ts"
import type { ImaClaims } from "../evidence/ima/claims.ts"
import type { HostLevel } from "./document.ts"
import type { Finding } from "./findings.ts"
import { finding, printable, printableBytes } from "./findings.ts"
import { entryDigest } from "./ima-entry.ts"
import { imaRuleFaults } from "./ima-rules.ts"
import { parseKernelCommandLine } from "./kernel-parameters.ts"
import { unreadLines } from "./measured-lines.ts"
import type { ImaPolicyReference } from "./reference.ts"

/**
 * Whether the list holds what it should: the IMA policy of the reference was the first to be loaded, its load was bound to be listed, nothing can take its
 * place, and its rules leave nothing out.
 */
export function imaPolicyFindings(
  boot: Pick<BootClaims, "commandLines" | "loadOptions">,
  ima: ImaClaims,
  reference: ImaPolicyReference,
  level: HostLevel,
): readonly Finding[] {
  return [...loadFindings(ima, reference), ...measuredFindings(boot), ...imaPolicyReferenceFindings(reference, level)]
}

/** The same of references alone, before any machine shows itself. */
export function imaPolicyReferenceFindings({ rules, replaceable }: ImaPolicyReference, level: HostLevel): readonly Finding[] {
  const weak = imaRuleFaults(rules, level).map(({ rule, expected }) =>
    finding("ima-policy-weak", "IMA policy", rule === undefined ? "no such rule" : printable(rule), expected),
  )
  return replaceable === "no" ? weak : [...weak, finding("ima-policy-replaceable", "IMA policy", "replaceable", "one policy in a boot")]
}

/**
 * The load of a policy is listed by the rules that stand before it, which are the kernel's own: only `ima_policy=tcb` has one for it, unless the older
 * `ima_tcb` comes first, which has none. Linux security/integrity/ima/ima_policy.c, default_measurement_rules and policy_setup().
 */
export function measuredFindings(boot: Pick<BootClaims, "commandLines" | "loadOptions">): readonly Finding[] {
  const unread = unreadLines(boot)
  const without = boot.commandLines.filter(({ text }) => !listsPolicies(text)).map(({ text }) => printable(text))
  return [...(unread === undefined ? [] : [unread]), ...without].map((found) =>
    finding("ima-policy-unmeasured", "kernel command line", found, "ima_policy=tcb on each measured command line, without ima_tcb"),
  )
}

function listsPolicies(commandLine: string): boolean {
  const { parameters } = parseKernelCommandLine(commandLine)
  const hasTcb = parameters.some(({ name, value }) => name === "ima_policy" && value?.split(/[ |\n]/).includes("tcb") === true)
  return hasTcb && !parameters.some(({ name }) => name === "ima_tcb")
}

/**
 * The entry of the load is like that of any file which is read: the same name and digest would be listed if root read the file later, under another policy.
 * What root cannot forge is the place: behind `boot_aggregate` and what the reference names, for the measured initrd loads the policy before root does anything.
 */
function loadFindings({ entries, firstIndex }: ImaClaims, { path, rules, before }: ImaPolicyReference): readonly Finding[] {
  // A renewal sends new entries only; the load was shown at the claim.
  if (firstIndex > 0) return []
  const digest = digestOf(encodeUtf8(rules))
  const known = new Set(before.map((entry) => entryKey(printable(entry.name), entry.digest)))
  const entry = entries.find(
    (candidate, place) => place > 0 && (candidate.violation || !known.has(entryKey(printableBytes(candidate.name), entryDigest(candidate)))),
  )
  const expected = `${digest}, before everything but boot_aggregate${before.length === 0 ? "" : ` and ${before.map(({ name }) => printable(name)).join(", ")}`}`
  if (entry === undefined) return [finding("ima-policy-missing", printable(path), "no certified entry", expected)]
  const isLoad = !entry.violation && entry.buffer === undefined && printableBytes(entry.name) === printable(path) && entryDigest(entry) === digest
  if (isLoad) return []
  return [finding("ima-policy-missing", printable(path), `entry ${entry.index}, ${printableBytes(entry.name)}, ${entryDigest(entry)}`, expected)]
}

function entryKey(name: string, digest: string): string {
  return `${digest} ${name}`
}
