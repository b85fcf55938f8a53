import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"

/**
 * Why the sandbox cannot run here, for `skip`; false where it can. Inside a chroot or an unprivileged container nobody may make the namespaces that it is
 * made of. In CI that is a failure, not a skip.
 */
export const noSandbox: string | false = whyNot()

function whyNot(): string | false {
  if (process.getuid?.() !== 0) return "skipped: needs root"
  for (const program of ["/usr/bin/bwrap", "/usr/bin/python3"]) if (!existsSync(program)) return `skipped: ${program} is missing`
  if (process.env["CI"] === "true") return false
  const trial = spawnSync("bwrap", ["--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "true"])
  return trial.status === 0 ? false : "skipped: this machine does not let bubblewrap make namespaces"
}
