/** Why a path may not be used inside a job's sandbox; undefined when it may. */
export function pathFault(path: string): string | undefined {
  if (!path.startsWith("/")) return "the path is not absolute"
  if (!plainPath.test(path)) return "the path holds other than ASCII letters, digits, dots, hyphens and underscores"
  const parts = path.split("/").filter((_, index) => index > 0)
  if (parts.some((part) => part === "" || part === "." || part === "..")) return "the path is not in its shortest form"
  const inside = systemFolders.find((folder) => isWithin(path, folder))
  if (inside !== undefined) return `the path lies in the system's own ${inside}`
  const hidden = systemFolders.find((folder) => isWithin(folder, path))
  if (hidden !== undefined) return `the path would hide the system's own ${hidden}`
  return undefined
}

/** The same for the file of a secret, which may also lie in `/run/secrets`, where programs look for such files: in the sandbox that folder is the job's own. */
export function secretPathFault(path: string): string | undefined {
  return /^\/run\/secrets\/[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(path) ? undefined : pathFault(path)
}

/** Whether a path is a folder or lies somewhere below it. Both are absolute and in their shortest form. */
export function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`)
}

const plainPath = /^\/[A-Za-z0-9._/-]*$/

/** What a job must neither write into nor cover: the measured system and the agent's own files. `/` is covered by these. */
const systemFolders = [
  "/bin",
  "/boot",
  "/dev",
  "/etc",
  "/home",
  "/lib",
  "/lib32",
  "/lib64",
  "/libx32",
  "/opt/perun",
  "/proc",
  "/root",
  "/run",
  "/sbin",
  "/sys",
  "/tmp",
  "/usr",
  "/var",
] as const
