import type { HostLevel } from "./document.ts"

/** Why an IMA policy is not enough: a rule that takes something out of the list, or one that is not there. */
export interface ImaRuleFault {
  /** The rule as it stands; undefined where one is missing. */
  readonly rule: string | undefined
  readonly expected: string
}

/**
 * Judges an IMA policy's text: everything that runs, changes the kernel or is read by root must be listed, and only reading on the kernel's own file
 * systems may be left out; at level `sealed` also reading on a file system named by its UUID, for there dm-verity checks what is read. Rules that
 * appraise, audit or hash take nothing out of the list. Linux Documentation/ABI/testing/ima_policy; security/integrity/ima/ima_policy.c.
 */
export function imaRuleFaults(text: string, level: HostLevel): readonly ImaRuleFault[] {
  const rules = text.split("\n").flatMap(parseRule)
  const harmful = rules.flatMap((rule): readonly ImaRuleFault[] => {
    const expected = harmOf(rule, level)
    return expected === undefined ? [] : [{ rule: rule.text, expected }]
  })
  const measured = new Set(rules.flatMap(({ action, conditions }) => (action === "measure" ? [conditionText(conditions)] : [])))
  const missing = demandedRules.filter((forms) => !forms.some((form) => measured.has(conditionText(form.split(" ")))))
  return [...harmful, ...missing.map((forms) => ({ rule: undefined, expected: `measure ${forms[0]}` }))]
}

interface ImaRule {
  readonly text: string
  readonly action: string
  readonly conditions: readonly string[]
}

/** As ima_parse_add_rule(): blanks and tabs part words, a line that begins with `#` is a comment. */
function parseRule(line: string): readonly ImaRule[] {
  const [action, ...conditions] = line.split(/[ \t]+/).filter((word) => word !== "")
  return action === undefined || action.startsWith("#") ? [] : [{ text: line, action, conditions }]
}

/** What should stand in place of a rule that hides something; undefined for a rule that hides nothing. */
function harmOf({ action, conditions }: ImaRule, level: HostLevel): string | undefined {
  switch (action) {
    case "measure":
      return conditions.some((condition) => condition.startsWith("pcr=")) ? "no pcr=" : undefined
    case "dont_measure":
      return mayBeLeftOut(conditions, level) ? undefined : "dont_measure func=FILE_CHECK of a file system of the kernel's own making only"
    default:
      return otherActions.has(action) ? undefined : "a rule that is known"
  }
}

function mayBeLeftOut(conditions: readonly string[], level: HostLevel): boolean {
  const [place, ...others] = conditions.filter((condition) => condition !== "func=FILE_CHECK")
  if (place === undefined || others.length > 0 || !conditions.includes("func=FILE_CHECK")) return false
  if (place.startsWith("fsuuid=")) return level === "sealed"
  return place.startsWith("fsmagic=") && kernelFileSystems.has(Number(place.substring("fsmagic=".length)))
}

/** In one order, and without the template, which says how a thing is listed, not whether. */
function conditionText(conditions: readonly string[]): string {
  return conditions
    .filter((condition) => !condition.startsWith("template="))
    .toSorted()
    .join(" ")
}

/** Each may be there in any of its forms; the first is the one to recommend. `^MAY_READ` takes files opened for reading and writing too. */
const demandedRules: readonly (readonly string[])[] = [
  ["func=BPRM_CHECK mask=MAY_EXEC", "func=BPRM_CHECK"],
  ["func=MMAP_CHECK mask=MAY_EXEC", "func=MMAP_CHECK"],
  ["func=FILE_CHECK mask=^MAY_READ euid=0", "func=FILE_CHECK mask=^MAY_READ", "func=FILE_CHECK"],
  ["func=MODULE_CHECK"],
  ["func=FIRMWARE_CHECK"],
  ["func=POLICY_CHECK"],
  ["func=KEXEC_KERNEL_CHECK"],
  ["func=KEXEC_INITRAMFS_CHECK"],
  ["func=KEXEC_CMDLINE"],
  ["func=KEY_CHECK"],
  ["func=CRITICAL_DATA"],
]

const otherActions: ReadonlySet<string> = new Set(["appraise", "dont_appraise", "audit", "dont_audit", "hash", "dont_hash"])

/**
 * Linux include/uapi/linux/magic.h: procfs, sysfs, debugfs, tracefs, tmpfs, ramfs, devpts, securityfs, selinuxfs, smackfs, cgroup, cgroup2, nsfs, efivarfs,
 * binfmt_misc.
 */
const kernelFileSystems: ReadonlySet<number> = new Set([
  0x9fa0, 0x62656572, 0x64626720, 0x74726163, 0x01021994, 0x858458f6, 0x1cd1, 0x73636673, 0xf97cff8c, 0x43415d53, 0x27e0eb, 0x63677270, 0x6e736673,
  0xde5e81e4, 0x42494e4d,
])
