import { mkdir, readFile, rm, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import * as z from "zod"
import { digestOf, digestOfJson } from "../../src/bytes/digest.ts"
import { parseJson } from "../../src/bytes/json.ts"
import { cachedFolder, pruneUnused } from "../cache.ts"
import { LabError } from "../error.ts"
import { runProgram } from "../process.ts"
import { guestFile } from "./initrd.ts"
import { appUuid, guestPaths, imageEpochSeconds, recipeVersion, veritySalt } from "./recipe.ts"
import { digestTree, type ImageFile, listTree, setTimes } from "./tree.ts"
import { formatVerity, makeFileSystem, type VerityDisk } from "./verity.ts"

/** The quick part of an image: Perun's own source with its types erased, its libraries and the guest's scripts, on a verity disk of their own, so that a change of source rebuilds no packages. */
export interface App {
  readonly folder: string
  readonly disk: VerityDisk
  readonly files: readonly ImageFile[]
}

export interface AppOptions {
  /** The checkout that the agent comes from; default is this one. */
  readonly repository?: string
  /** Replaces or adds files, by path below /opt/perun: for the laboratory's own probes. */
  readonly overlay?: Readonly<Record<string, string>>
}

/** Gives the disk with the agent, built if the cache lacks it. @throws {LabError} `program-failed`, `build-failed` */
export async function buildApp(options: AppOptions = {}): Promise<App> {
  const repository = options.repository ?? fileURLToPath(new URL("../../", import.meta.url))
  const files = await appFiles(repository)
  for (const [path, text] of Object.entries(options.overlay ?? {})) files.set(path, new TextEncoder().encode(text))
  const content = [...files].map(([path, data]) => [path, digestOf(data)] as const).sort(([a], [b]) => (a < b ? -1 : 1))
  const key = digestOfJson({ recipeVersion, node: process.version, content, appUuid, veritySalt, imageEpochSeconds })
  const name = `app-${key.slice("sha256:".length, "sha256:".length + 16)}`
  const folder = await cachedFolder(name, async (temporary) => {
    const tree = join(temporary, "tree")
    for (const [path, data] of files) {
      await mkdir(dirname(join(tree, path)), { recursive: true })
      await writeFile(join(tree, path), data, { mode: path === "guest/init" ? 0o755 : 0o644 })
    }
    await runProgram(process.execPath, ["--no-warnings", fileURLToPath(new URL("erase-types.ts", import.meta.url)), join(tree, "src")])
    const entries = await listTree(tree)
    await setTimes(tree, entries, imageEpochSeconds)
    const dataBlocks = await makeFileSystem(join(temporary, "app.img"), tree, entries, appUuid)
    const { rootHash } = await formatVerity(join(temporary, "app.img"), dataBlocks, appUuid)
    const record: AppRecord = { dataBlocks, rootHash, files: await digestTree(tree, entries, guestPaths.app) }
    await rm(tree, { recursive: true })
    await writeFile(join(temporary, "app.json"), JSON.stringify(record))
  })
  await pruneUnused("app-", unusedDays)
  // Written above into a folder that was moved into place as a whole.
  const record = JSON.parse(await readFile(join(folder, "app.json"), "utf8")) as AppRecord
  return { folder, disk: { path: join(folder, "app.img"), dataBlocks: record.dataBlocks, rootHash: record.rootHash }, files: record.files }
}

interface AppRecord {
  readonly dataBlocks: number
  readonly rootHash: string
  readonly files: readonly ImageFile[]
}

/** All files below /opt/perun by path. */
async function appFiles(repository: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>()
  async function take(from: string, to: string, wanted: (path: string) => boolean): Promise<void> {
    for (const { path, kind } of await listTree(from)) {
      if (kind === "file" && wanted(path)) files.set(`${to}/${path}`, new Uint8Array(await readFile(join(from, path))))
    }
  }
  for (const room of agentRooms) await take(join(repository, "src", room), `src/${room}`, isShippedSource).catch(absentRoom)
  for (const path of productionPackages(await readFile(join(repository, "package-lock.json")))) {
    await take(
      join(repository, path),
      path,
      (inside) => !inside.startsWith("node_modules/") && !inside.includes("/node_modules/") && isShippedLibrary(inside),
    )
  }
  for (const name of ["init", "ima-policy.sealed", "ima-policy.administered"])
    files.set(`guest/${name}`, new Uint8Array(await readFile(guestFile(name))))
  files.set("package.json", new Uint8Array(await readFile(join(repository, "package.json"))))
  return files
}

/** Tests, their helpers and prose have no use in the machine. */
function isShippedSource(path: string): boolean {
  return !/\.test\.ts$|(?:^|\/)(?:testing|conformance)\/|\.md$/.test(path)
}

/** Type declarations, source maps and prose have no use in the machine. */
function isShippedLibrary(path: string): boolean {
  return !/\.d\.[cm]?ts$|\.map$|\.md$|\.[cm]?ts$|(?:^|\/)(?:test|tests|docs)\//i.test(path)
}

function absentRoom(error: unknown): void {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return // A room that is not built yet.
  throw error
}

/** Folders of the packages that run in production, from the lock file: neither for development nor optional (those are Node itself). */
export function productionPackages(lockFile: Uint8Array): readonly string[] {
  const result = lockSchema.safeParse(parseJson(lockFile, { maxBytes: 16 << 20 }))
  if (!result.success) throw new LabError("build-failed", "package-lock.json has no list of packages")
  return Object.entries(result.data.packages).flatMap(([path, { dev, optional, devOptional }]) =>
    path === "" || dev === true || optional === true || devOptional === true ? [] : [path],
  )
}

const lockSchema = z.object({
  packages: z.record(z.string(), z.object({ dev: z.boolean().optional(), optional: z.boolean().optional(), devOptional: z.boolean().optional() })),
})

/** Each change of source makes another folder of 13 MB; older ones than this are not asked for again. */
const unusedDays = 14

/** Rooms that the agent may import, by the table of arrows. */
const agentRooms = ["bytes", "pki", "evidence", "sealing", "policy", "log", "protocol", "agent"] as const
