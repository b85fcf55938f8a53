import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { exists } from "../cache.ts"
import { runProgram } from "../process.ts"
import { suite } from "./recipe.ts"

/** A file of package sources for mmdebstrap, in the form that its name's ending says. */
export interface SourceFile {
  readonly name: "host.list" | "host.sources"
  readonly text: string
}

/**
 * The host's own Debian sources for our suite, so that a build uses the mirror that this machine uses; empty on another system, where mmdebstrap's
 * defaults serve.
 */
export async function hostSources(etc = "/etc"): Promise<readonly SourceFile[]> {
  const folder = join(etc, "apt/sources.list.d")
  const names = (await exists(folder)) ? (await readdir(folder)).sort().map((name) => join(folder, name)) : []
  const files = [join(etc, "apt/sources.list"), ...names]
  const lines: string[] = []
  const stanzas: string[] = []
  for (const path of files) {
    if (!(await exists(path))) continue
    const text = await readFile(path, "utf8")
    if (path.endsWith(".list")) lines.push(...debianLines(text))
    if (path.endsWith(".sources")) stanzas.push(...debianStanzas(text))
  }
  const result: SourceFile[] = []
  if (lines.length > 0) result.push({ name: "host.list", text: `${lines.join("\n")}\n` })
  if (stanzas.length > 0) result.push({ name: "host.sources", text: `${stanzas.join("\n\n")}\n` })
  return result
}

/** Lines of a one-line-style sources file that give Debian's main component of our suite. */
export function debianLines(text: string): readonly string[] {
  return text.split("\n").filter((line) => {
    const words = line
      .replace(/\[[^\]]*\]/, "")
      .trim()
      .split(/\s+/)
    return words[0] === "deb" && suites.has(words[2] ?? "") && words.slice(3).includes("main") && !foreignKey(line)
  })
}

/** Stanzas of a deb822-style sources file that give Debian's main component of our suite. */
export function debianStanzas(text: string): readonly string[] {
  return text
    .split(/\n\s*\n/)
    .map((stanza) =>
      stanza
        .split("\n")
        .filter((line) => line.trim() !== "" && !line.startsWith("#"))
        .join("\n"),
    )
    .filter((stanza) => {
      const words = (field: string): readonly string[] => new RegExp(`^${field}:[ \\t]*(.*)$`, "im").exec(stanza)?.[1]?.trim().split(/\s+/) ?? []
      const given = words("Suites")
      const enabled = words("Enabled")[0]?.toLowerCase() !== "no"
      return (
        enabled &&
        words("Types").includes("deb") &&
        given.length > 0 &&
        given.every((name) => suites.has(name)) &&
        words("Components").includes("main") &&
        !foreignKey(stanza)
      )
    })
}

/** Options that carry the host's proxy for packages into the build. */
export async function hostAptOptions(): Promise<readonly string[]> {
  const dump = await runProgram("apt-config", ["dump"]).catch(() => "") // Without apt-config there is nothing to carry over.
  return dump.split("\n").filter((line) => /^Acquire::https?::Proxy(?:::[^ ]+)? "[^"]+";$/i.test(line))
}

/** A repository that somebody else signs may use our suite's name. */
function foreignKey(text: string): boolean {
  const named = /signed-by[:=]\s*([^\s\]]+)/i.exec(text)?.[1]
  return named !== undefined && !named.includes("debian-archive")
}

const suites = new Set([suite, `${suite}-updates`, `${suite}-security`])
