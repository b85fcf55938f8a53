/**
 * Holds the table of rooms: who may import whom. Fails on an arrow that is not in it, on a package import that a room may not have, and on a call of
 * `Genuine.afterVerification` outside `evidence/…/verify.ts` (tests may).
 */
import { readFile } from "node:fs/promises"
import { glob } from "node:fs/promises"
import { dirname, relative, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

/** Room → rooms that it may import besides itself. */
const arrows: Readonly<Record<string, readonly string[]>> = {
  bytes: [],
  pki: ["bytes"],
  evidence: ["pki", "bytes"],
  sealing: ["pki", "bytes"],
  log: ["pki", "bytes"],
  policy: ["evidence", "log", "pki", "bytes"],
  protocol: ["policy", "sealing", "log", "evidence", "pki", "bytes"],
  witness: ["log", "pki", "bytes"],
  manager: ["protocol", "policy", "sealing", "log", "evidence", "pki", "bytes"],
  agent: ["protocol", "policy", "sealing", "log", "evidence", "pki", "bytes"],
  inference: ["protocol", "policy", "sealing", "log", "evidence", "pki", "bytes"],
  client: ["protocol", "policy", "sealing", "log", "evidence", "pki", "bytes"],
  cli: ["client", "inference", "agent", "manager", "witness", "protocol", "policy", "sealing", "log", "evidence", "pki", "bytes"],
  lab: ["examples", "cli", "client", "inference", "agent", "manager", "protocol", "policy", "sealing", "log", "evidence", "pki", "bytes"],
  bench: ["examples", "lab", "cli", "client", "inference", "agent", "manager", "protocol", "policy", "sealing", "log", "evidence", "pki", "bytes"],
  scripts: ["lab", "bench", "protocol", "policy", "cli", "evidence", "pki", "bytes"],
  examples: ["bytes", "client"],
  /** Runs in a browser. */
  page: ["protocol", "pki", "bytes"],
}

/** Imports upward that are there on purpose: these commands start the laboratory, or build the page. */
const exceptions: ReadonlyMap<string, string> = new Map([
  ["src/cli/commands/lab.ts", "lab"],
  ["src/cli/commands/demo.ts", "lab"],
  ["src/cli/commands/reference.ts", "lab"],
  ["src/cli/commands/certificate.ts", "page"],
])

const importForm = /(?:\bfrom\s*|\bimport\s*\(\s*|\bimport\s+)"(\.[^"]+)"/g
/** In comments, an import is words. */
const commentForm = /\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm

export async function findWrongArrows(): Promise<string[]> {
  const faults: string[] = []
  for await (const file of glob(["src/**/*.ts", "lab/**/*.ts", "bench/**/*.ts", "scripts/**/*.ts", "examples/**/*.ts", "page/**/*.ts"], {
    cwd: root,
    exclude: ["scripts/arrows.test.ts"],
  })) {
    const text = (await readFile(resolve(root, file), "utf8")).replace(commentForm, "")
    faults.push(...faultsOf(file, text))
  }
  return faults.sort()
}

/** Faults of one file's text; exported for the test. */
export function faultsOf(file: string, text: string): string[] {
  const faults: string[] = []
  const room = roomOf(file)
  const allowed = arrows[room]
  if (allowed === undefined) return [`${file}: the room "${room}" is not in the table of scripts/arrows.ts`]
  // What measures takes the machines that tests are made with; nothing imports it.
  const isTest = /\.(test|testing)\.ts$/.test(file)
  const mayTest = isTest || room === "bench"
  for (const match of text.matchAll(importForm)) {
    const target = relative(root, resolve(root, dirname(file), match[1] ?? ""))
    const targetRoom = roomOf(target)
    if (targetRoom === room || allowed.includes(targetRoom) || exceptions.get(file) === targetRoom) {
      if (!mayTest && /\.(test|testing)\.ts$/.test(target)) faults.push(`${file}: shipped code imports the test file ${target}`)
      continue
    }
    if (isTest && ["lab", "page", "witness"].includes(targetRoom)) continue
    faults.push(`${file}: ${room} may not import ${targetRoom} (${target})`)
  }
  if (
    !isTest &&
    /Genuine\s*\.\s*afterVerification/.test(text) &&
    !/^src\/evidence\/.*verify\.ts$/.test(file) &&
    file !== "src/evidence/genuine.ts" &&
    file !== "scripts/arrows.ts"
  ) {
    faults.push(`${file}: only evidence/**/verify.ts may make Genuine claims`)
  }
  return faults
}

function roomOf(file: string): string {
  const parts = file.split("/")
  return (parts[0] === "src" ? parts[1] : parts[0]) ?? ""
}

if (import.meta.main) {
  const faults = await findWrongArrows()
  for (const fault of faults) console.error(fault)
  console.log(faults.length === 0 ? "arrows: hold" : `arrows: ${faults.length} wrong`)
  process.exitCode = faults.length === 0 ? 0 : 1
}
