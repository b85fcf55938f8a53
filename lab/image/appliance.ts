import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { exists } from "../cache.ts"
import type { Appliance, VerityDisk } from "../../src/policy/reference.ts"
import { kernelSettings } from "./recipe.ts"
import type { TreeEntry } from "./tree.ts"

/** What the inspection of a built root found; every list that is not empty is a way in or a privilege that an appliance must not have. */
export interface RootFacts {
  /** Programs by which a person could log in or open a shell session. */
  readonly loginPrograms: readonly string[]
  /** Accounts whose password field is not locked. */
  readonly openAccounts: readonly string[]
  readonly setuidPrograms: readonly string[]
  /** Programs and files that would add swap. */
  readonly swap: readonly string[]
  /** Kernel modules in the root; those of the initrd are measured with it. */
  readonly kernelModules: readonly string[]
  /** Boot services of an init system: the image has none but its own init. */
  readonly services: readonly string[]
}

export async function inspectRoot(root: string, entries: readonly TreeEntry[]): Promise<RootFacts> {
  const paths = (test: (path: string, entry: TreeEntry) => boolean) =>
    entries.filter((entry) => test(entry.path, entry)).map(({ path }) => `/${path}`)
  const named = (names: ReadonlySet<string>) => paths((path, { kind }) => kind !== "folder" && names.has(path.split("/").at(-1) ?? ""))
  return {
    loginPrograms: named(loginNames),
    openAccounts: await openAccounts(root),
    setuidPrograms: paths((_, { kind, mode }) => kind === "file" && (mode & 0o6000) !== 0),
    swap: named(swapNames),
    kernelModules: paths((path) => /\.ko(?:\.[a-z]+)?$/.test(path)),
    services: paths((path) => /(?:^|\/)(?:systemd|rc[0-6S]\.d|init\.d)\/[^/]+$/.test(path)),
  }
}

/** What is wrong with a root that shall be an appliance's; empty when it may be one. */
export function applianceFaults(facts: RootFacts): readonly string[] {
  return Object.entries(facts).flatMap(([name, found]: [string, readonly string[]]) => (found.length === 0 ? [] : [`${name}: ${found.join(", ")}`]))
}

/**
 * The facts that level `sealed` asks for, for a root without faults. The kernel settings are those of the recipe, which the initrd writes; the rest follows
 * from what `inspectRoot` found not to be there.
 */
export function applianceOf(facts: RootFacts, verity: readonly VerityDisk[]): Appliance {
  const set = (name: string, value: string) => kernelSettings[name] === value
  return {
    verity,
    login: facts.loginPrograms.length === 0 && facts.openAccounts.length === 0 && facts.services.length === 0 ? "none" : "possible",
    // The kernel gives /dev/tpm* to root alone (mode 0600), the agent is root's only program, and no program may change its user to root.
    tpmAccess: facts.setuidPrograms.length === 0 ? "agent" : "others",
    ptrace: set("kernel/yama/ptrace_scope", "3") ? "off" : "on",
    swap: facts.swap.length === 0 ? "off" : "on",
    coreDumps: set("fs/suid_dumpable", "0") && set("kernel/core_pattern", "|/bin/false") ? "off" : "on",
    // lockdown=confidentiality forbids hibernation; nothing in the root asks for suspend, and init does not give write access to /sys/power.
    suspend: "off",
    kexec: set("kernel/kexec_load_disabled", "1") ? "off" : "on",
    programs: facts.kernelModules.length === 0 && set("kernel/modules_disabled", "1") ? "verity-root-only" : "elsewhere-too",
  }
}

async function openAccounts(root: string): Promise<readonly string[]> {
  const path = join(root, "etc/shadow")
  if (!(await exists(path))) return []
  const lines = (await readFile(path, "utf8")).split("\n").filter((line) => line !== "")
  return lines.filter((line) => !/^[^:]+:[*!]/.test(line)).map((line) => line.split(":")[0] ?? line)
}

const loginNames = new Set([
  "agetty",
  "getty",
  "login",
  "su",
  "sudo",
  "sulogin",
  "runuser",
  "sshd",
  "dropbear",
  "telnetd",
  "mingetty",
  "nologin-shell",
  "rescue",
  "gdb",
  "gdbserver",
  "strace",
])
const swapNames = new Set(["swapon", "mkswap", "fstab"])
