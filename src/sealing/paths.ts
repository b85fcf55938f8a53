import { SealingError } from "./errors.ts"

/** Longest path inside an artifact, in bytes of UTF-8: PATH_MAX of Linux, less its terminating zero. */
export const maxPathBytes = 4095
/** Longest name of one folder or file, in bytes of UTF-8: NAME_MAX of Linux. */
export const maxNameBytes = 255

/**
 * Checks a path inside an artifact: relative, `/` between names, no empty name, `.` or `..`, no control characters, so that it can neither leave the
 * destination nor deceive a screen. Backslashes and drive letters are refused for readers on other systems.
 * @throws {SealingError} `unsafe-path`
 */
export function checkArtifactPath(path: string): string {
  const problem = problemOf(path)
  if (problem !== undefined) throw new SealingError("unsafe-path", `${JSON.stringify(path.substring(0, 200))} ${problem}`)
  return path
}

/**
 * Checks the paths of one artifact together: strictly ascending (by UTF-16 units, JavaScript's `<`), and no file where another path needs a folder.
 * @throws {SealingError} `unsafe-path`
 */
export function checkArtifactPaths(paths: readonly string[]): void {
  const files = new Set(paths)
  if (files.size !== paths.length) throw new SealingError("unsafe-path", "a path stands twice")
  let previous: string | undefined
  for (const path of paths) {
    checkArtifactPath(path)
    if (previous !== undefined && !(previous < path)) throw new SealingError("unsafe-path", `${JSON.stringify(path)} is out of order`)
    previous = path
    for (const folder of foldersOf(path)) {
      if (files.has(folder)) throw new SealingError("unsafe-path", `${JSON.stringify(folder)} is both a file and a folder`)
    }
  }
}

/** The folders above a path, outermost first: `a`, `a/b` for `a/b/c`. */
export function foldersOf(path: string): string[] {
  const names = path.split("/")
  names.pop()
  return names.map((_, index) => names.slice(0, index + 1).join("/"))
}

function problemOf(path: string): string | undefined {
  if (!path.isWellFormed()) return "is not Unicode"
  if (Buffer.byteLength(path) > maxPathBytes) return `is longer than ${maxPathBytes} bytes`
  if (path.startsWith("/")) return "is absolute"
  if (forbidden.test(path)) return "holds a control character, or a backslash"
  if (/^[A-Za-z]:(?:\/|$)/.test(path)) return "starts with a drive letter"
  for (const name of path.split("/")) {
    if (name === "") return "holds an empty name"
    if (name === "." || name === "..") return `holds the name "${name}"`
    if (Buffer.byteLength(name) > maxNameBytes) return `holds a name longer than ${maxNameBytes} bytes`
  }
  return undefined
}

// C0, DEL, C1, and the marks that turn text around on a screen.
const forbidden = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\\]/
