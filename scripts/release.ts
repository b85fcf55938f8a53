/**
 * Makes a release out of a commit: `npm run release -- --out DIR [--ref COMMIT] [--key SSH_KEY] [--platform x64|arm64 …]`. The same commit gives the same bytes, whoever makes it, wherever (docs/releases.md).
 */
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { createReadStream, createWriteStream, existsSync } from "node:fs"
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, dirname, join, resolve } from "node:path"
import { pipeline } from "node:stream/promises"
import { parseArgs, promisify } from "node:util"
import { createGzip } from "node:zlib"
import { makeSbom } from "./sbom.ts"

const run = promisify(execFile)
const root = resolve(import.meta.dirname, "..")
const platforms = ["x64", "arm64"] as const
type Platform = (typeof platforms)[number]
const namespace = "perun-release"

interface Words {
  readonly out: string
  readonly ref: string
  readonly key: string | undefined
  readonly platforms: readonly Platform[]
}

class Fault extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

try {
  await release(wordsOf(process.argv.slice(2)))
} catch (error) {
  if (!(error instanceof Fault)) throw error
  process.stderr.write(`release: ${error.message}\n`)
  process.exitCode = error.status
}

function wordsOf(args: readonly string[]): Words {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        out: { type: "string" },
        ref: { type: "string", default: "HEAD" },
        key: { type: "string" },
        platform: { type: "string", multiple: true, default: [...platforms] },
      },
    })
    if (values.out === undefined) throw new Fault(2, "--out says where the release goes")
    const unknown = values.platform.find((name) => !(platforms as readonly string[]).includes(name))
    if (unknown !== undefined) throw new Fault(2, `there is no platform ${unknown}; there are ${platforms.join(", ")}`)
    return { out: resolve(values.out), ref: values.ref, key: values.key, platforms: values.platform as Platform[] }
  } catch (error) {
    if (error instanceof Fault) throw error
    throw new Fault(2, error instanceof Error ? error.message : "wrong words")
  }
}

async function release({ out, ref, key, platforms: wanted }: Words): Promise<void> {
  if (existsSync(out) && (await readdir(out)).length > 0) throw new Fault(50, `${out} is not empty`)
  if (key !== undefined && !existsSync(key)) throw new Fault(40, `${key}: no such key`)
  const commit = await git("rev-parse", "--verify", "--quiet", "--end-of-options", `${ref}^{commit}`).catch(() => {
    throw new Fault(2, `there is no commit ${ref}`)
  })
  const seconds = Number(await git("show", "-s", "--format=%ct", commit))
  const building = await mkdtemp(join(tmpdir(), "perun-release-"))
  try {
    const made = join(building, "release")
    await mkdir(made)
    const { version } = JSON.parse(await git("show", `${commit}:package.json`)) as { version: string }
    const name = `perun-${version}`
    const source = join(building, name)
    await unpack(commit, source)
    say(`${name} of ${commit}`)
    await pack(source, join(made, `${name}.tar.gz`), seconds)
    for (const platform of wanted) {
      const folder = join(building, platform, name)
      await unpack(commit, folder)
      await install(folder, platform)
      await pack(folder, join(made, `${name}-linux-${platform}.tar.gz`), seconds)
      say(`${name}-linux-${platform}.tar.gz`)
    }
    const lock = await readFile(join(source, "package-lock.json"), "utf8")
    await writeFile(join(made, `${name}.cdx.json`), `${JSON.stringify(makeSbom(lock, new Date(seconds * 1000)), null, 2)}\n`)
    await writeFile(join(made, "verify-release.sh"), await readFile(join(source, "scripts/verify-release.sh")))
    await sumUp(made)
    if (key === undefined) say("NOT SIGNED: --key says by which SSH key")
    else await sign(join(made, "SHA256SUMS"), key)
    await place(made, out)
    say(`wrote ${out}`)
  } finally {
    await rm(building, { recursive: true, force: true })
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

async function git(...args: readonly string[]): Promise<string> {
  const { stdout } = await run("git", ["-C", root, ...args], { maxBuffer: 1 << 26 })
  return stdout.trim()
}

/** What git tracks, never what else lies in the working tree. */
async function unpack(commit: string, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  const archive = `${folder}.archive.tar`
  await run("git", ["-C", root, "archive", "--format=tar", `--output=${archive}`, commit])
  await run("tar", ["-xf", archive, "-C", folder])
  await rm(archive)
}

/** The packages that the program needs, for one platform, each held by npm against the lock file's digest; with Node itself, without its headers and manuals. */
async function install(folder: string, platform: Platform): Promise<void> {
  const words = [
    "ci",
    "--omit=dev",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--prefer-offline",
    "--os=linux",
    `--cpu=${platform}`,
    "--libc=glibc",
  ]
  await run("npm", words, { cwd: folder, maxBuffer: 1 << 26 }).catch((error: unknown) => {
    throw new Fault(40, `npm cannot install the packages for ${platform}: ${lastLine(error)}`)
  })
  const modules = join(folder, "node_modules")
  const nodes = (await readdir(modules)).filter((name) => name.startsWith("node-linux-"))
  if (nodes.join() !== `node-linux-${platform}`)
    throw new Fault(40, `npm installed ${nodes.join(", ") || "no Node"} where node-linux-${platform} was asked for; npm 10 or newer is needed`)
  for (const part of ["include", "share"]) await rm(join(modules, `node-linux-${platform}`, part), { recursive: true, force: true })
  // npm notes here what it made when; nothing reads it.
  await rm(join(modules, ".package-lock.json"), { force: true })
  const { stdout } = await run("sh", ["-c", "cksum <package-lock.json"], { cwd: folder })
  await writeFile(join(modules, ".perun-setup"), `production ${stdout.trim()}\n`)
}

function lastLine(error: unknown): string {
  const text = error instanceof Error && "stderr" in error ? String(error.stderr) : String(error)
  return text.trim().split("\n").at(-1) ?? ""
}

/** One folder as tar.gz: names in order, one time, one owner, and no mode that the maker's umask chose. */
async function pack(folder: string, file: string, seconds: number): Promise<void> {
  const tar = `${file}.tar`
  const fixed = ["--format=gnu", "--sort=name", `--mtime=@${seconds}`, "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w"]
  await run("tar", [...fixed, "-cf", tar, "-C", dirname(folder), basename(folder)], { env: { ...process.env, LC_ALL: "C", TZ: "UTC" } })
  // By the lock file's own Node: another gzip may pack otherwise.
  await pipeline(createReadStream(tar), createGzip({ level: 9 }), createWriteStream(file))
  await rm(tar)
}

async function sumUp(folder: string): Promise<void> {
  const lines: string[] = []
  for (const name of (await readdir(folder)).toSorted()) {
    const hash = createHash("sha256")
    for await (const chunk of createReadStream(join(folder, name))) hash.update(chunk as Uint8Array)
    lines.push(`${hash.digest("hex")}  ${name}\n`)
  }
  await writeFile(join(folder, "SHA256SUMS"), lines.join(""))
}

async function sign(file: string, key: string): Promise<void> {
  await run("ssh-keygen", ["-q", "-Y", "sign", "-n", namespace, "-f", key, file]).catch((error: unknown) => {
    throw new Fault(40, `ssh-keygen does not sign by ${key}: ${lastLine(error)}`)
  })
}

/** Whole or not at all: through a folder beside it, which may be on another disk than the building site. */
async function place(made: string, out: string): Promise<void> {
  const beside = `${out}.new`
  await rm(beside, { recursive: true, force: true })
  await mkdir(beside, { recursive: true }).catch((cause: unknown) => {
    throw new Fault(50, `${beside} cannot be made: ${lastLine(cause)}`)
  })
  await run("cp", ["-R", `${made}/.`, beside])
  await rm(out, { recursive: true, force: true })
  await rename(beside, out)
}
