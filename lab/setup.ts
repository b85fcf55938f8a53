import { access, constants } from "node:fs/promises"
import { join } from "node:path"
import { LabError } from "./error.ts"
import { runProgram } from "./process.ts"

/** A Debian or Ubuntu package that the laboratory needs, and why. */
export interface LabPackage {
  readonly name: string
  /** Programs or files whose presence shows that it is there. */
  readonly shownBy: readonly string[]
  readonly purpose: string
}

/** Everything the laboratory runs that is not part of Node or of every Debian. */
export const labPackages: readonly LabPackage[] = [
  { name: "qemu-system-x86", shownBy: ["qemu-system-x86_64"], purpose: "runs the machines" },
  { name: "ovmf", shownBy: ["/usr/share/OVMF/OVMF_CODE_4M.fd"], purpose: "their firmware, which measures what it boots" },
  { name: "swtpm", shownBy: ["swtpm"], purpose: "their TPM 2.0" },
  { name: "swtpm-tools", shownBy: ["swtpm_setup", "swtpm_localca"], purpose: "makes TPMs with endorsement certificates" },
  { name: "gnutls-bin", shownBy: ["certtool"], purpose: "signs those certificates" },
  { name: "mmdebstrap", shownBy: ["mmdebstrap"], purpose: "puts Debian's packages into images" },
  { name: "debian-archive-keyring", shownBy: ["/usr/share/keyrings/debian-archive-keyring.gpg"], purpose: "checks Debian's signatures" },
  { name: "cryptsetup-bin", shownBy: ["veritysetup"], purpose: "makes the hash trees of verified disks" },
  { name: "e2fsprogs", shownBy: ["mke2fs", "debugfs"], purpose: "makes the disks' file systems" },
]

/** What the tests drive besides: second opinions, peers, and the sandbox. Where one is missing its tests are skipped and say so. */
export const testPackages: readonly LabPackage[] = [
  { name: "swtpm", shownBy: ["swtpm"], purpose: "a TPM 2.0 for tests" },
  { name: "swtpm-tools", shownBy: ["swtpm_setup", "swtpm_localca"], purpose: "makes TPMs with endorsement certificates" },
  { name: "gnutls-bin", shownBy: ["certtool"], purpose: "signs those certificates" },
  { name: "tpm2-tools", shownBy: ["tpm2_checkquote"], purpose: "a second opinion on quotes and credentials" },
  { name: "bubblewrap", shownBy: ["bwrap"], purpose: "the sandbox" },
  { name: "age", shownBy: ["age"], purpose: "a peer for sealed files" },
  { name: "openssh-client", shownBy: ["ssh-keygen"], purpose: "a peer for signatures" },
  { name: "openssl", shownBy: ["openssl"], purpose: "a peer for certificates" },
  { name: "python3", shownBy: ["python3"], purpose: "programs that are run in the sandbox" },
  { name: "e2fsprogs", shownBy: ["mke2fs", "debugfs"], purpose: "file systems of images" },
  { name: "cryptsetup-bin", shownBy: ["veritysetup"], purpose: "hash trees of verified disks" },
]

/** The packages of a list that this machine lacks, in the list's order. */
export async function missingPackages(packages: readonly LabPackage[] = labPackages): Promise<readonly LabPackage[]> {
  const missing: LabPackage[] = []
  for (const entry of packages) {
    for (const shown of entry.shownBy) {
      if (await isThere(shown)) continue
      missing.push(entry)
      break
    }
  }
  return missing
}

/** The command that installs them, for people to read before it is run. */
export function installCommand(missing: readonly LabPackage[]): string {
  return `${isRoot() ? "" : "sudo "}apt-get install --no-install-recommends ${missing.map(({ name }) => name).join(" ")}`
}

export interface SetupOptions {
  /** Default: what the laboratory needs. */
  readonly packages?: readonly LabPackage[]
  /** Gets what will be done, line by line, before it is done. */
  readonly say: (line: string) => void
  /** Asked once, after everything was said; false ends the setup. */
  readonly confirm: () => Promise<boolean>
}

/**
 * Installs what is missing through apt, saying first what and why.
 * @throws {LabError} `missing-packages` where there is no apt, no root and no sudo, or nobody agreed: the message is the whole list
 */
export async function setUpLab(options: SetupOptions): Promise<void> {
  const { packages = labPackages } = options
  const missing = await missingPackages(packages)
  if (missing.length === 0) return
  const list = missing.map(({ name }) => name).join(", ")
  const canInstall = (await isThere("apt-get")) && (isRoot() || (await isThere("sudo")))
  if (!canInstall) throw new LabError("missing-packages", `install these packages first (Debian's names): ${list}`)
  options.say("These Debian packages are needed, which this machine lacks:")
  for (const { name, purpose } of missing) options.say(`  ${name.padEnd(24)} ${purpose}`)
  options.say(`It will run: ${installCommand(missing)}`)
  if (!(await options.confirm())) throw new LabError("missing-packages", `not installed: ${list}`)
  await apt(["update", "-q"])
  await apt(["install", "-q", "-y", "--no-install-recommends", ...missing.map(({ name }) => name)])
  const still = await missingPackages(packages)
  if (still.length > 0) throw new LabError("missing-packages", `still missing after the installation: ${still.map(({ name }) => name).join(", ")}`)
}

async function apt(words: readonly string[]): Promise<void> {
  const [program, first] = isRoot() ? ["apt-get", []] : ["sudo", ["apt-get"]]
  await runProgram(program, [...first, ...words], { environment: { DEBIAN_FRONTEND: "noninteractive" } })
}

function isRoot(): boolean {
  return process.getuid?.() === 0
}

/** A program on the path, in the folders of the administrator too, or a file by its absolute path. */
async function isThere(name: string): Promise<boolean> {
  const folders = [...(process.env.PATH ?? "").split(":"), "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
  const paths = name.startsWith("/") ? [name] : folders.map((folder) => join(folder, name))
  for (const path of paths) {
    try {
      await access(path, name.startsWith("/") ? constants.R_OK : constants.X_OK)
      return true
    } catch {
      // Not in this folder; the next may have it.
    }
  }
  return false
}
