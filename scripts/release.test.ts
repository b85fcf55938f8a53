import assert from "node:assert/strict"
import { execFile, execFileSync, spawnSync } from "node:child_process"
import { appendFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join, resolve } from "node:path"
import { after, test } from "node:test"
import { promisify } from "node:util"
import { makeSbom } from "./sbom.ts"

const root = resolve(import.meta.dirname, "..")
const base = mkdtempSync(join(tmpdir(), "perun-release-test-"))
after(() => rmSync(base, { recursive: true, force: true }))
const lockText = readFileSync(join(root, "package-lock.json"), "utf8")

test("makeSbom() lists every package that the program needs, once, with its digest, and whom each needs", () => {
  const at = new Date("2026-11-27T00:00:00Z")
  const bom = makeSbom(lockText, at)
  const { packages } = JSON.parse(lockText) as { packages: Record<string, { dev?: boolean; version?: string; integrity?: string }> }
  const needed = Object.entries(packages).filter(([path, { dev }]) => path !== "" && dev !== true)
  const names = new Set(needed.map(([path, { version }]) => `${path.split("node_modules/").at(-1)}@${version}`))
  assert.deepEqual(bom.components.map(({ name, version }) => `${name}@${version}`).toSorted(), [...names].toSorted())
  for (const development of ["typescript", "prettier", "playwright-core"])
    assert.ok(!bom.components.some(({ name }) => name === development), development)
  const refs = new Set(bom.components.map((component) => component["bom-ref"]))
  assert.equal(refs.size, bom.components.length)
  for (const { hashes, purl } of bom.components) {
    assert.match(hashes[0]?.content ?? "", /^[0-9a-f]{128}$/)
    assert.match(purl, /^pkg:npm\/(?:%40[a-z0-9.-]+\/)?[a-z0-9.-]+@\d/)
  }
  for (const { ref, dependsOn } of bom.dependencies) for (const one of dependsOn) assert.ok(refs.has(one), `${ref} needs ${one}`)
  const own = bom.dependencies.find(({ ref }) => ref.startsWith("pkg:npm/perun@"))
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { dependencies: Record<string, string> }
  assert.deepEqual(
    Object.entries(dependencies).map(([name, version]) => own?.dependsOn.includes(`pkg:npm/${name.replace("@", "%40")}@${version}`)),
    Object.keys(dependencies).map(() => true),
  )
  assert.deepEqual([bom.bomFormat, bom.specVersion, bom.version], ["CycloneDX", "1.6", 1])
  assert.match(bom.serialNumber, /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/)
  assert.deepEqual(makeSbom(lockText, at), bom)
  assert.throws(() => makeSbom('{"name":"x","version":"1","packages":{"node_modules/y":{"version":"1"}}}', at), TypeError)
})

const noGit = spawnSync("git", ["-C", root, "rev-parse", "--verify", "HEAD"]).status === 0 ? false : "skipped: not in a git repository"
const key = join(base, "key")
const signers = join(base, "allowed_signers")
if (noGit === false) {
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
  writeFileSync(signers, `release@perun.example namespaces="perun-release" ${readFileSync(`${key}.pub`, "utf8")}`)
}

/** A release of HEAD by the script of `from`, as a maker elsewhere has it. */
async function make(from: string, out: string, before = "true"): Promise<string> {
  const folder = join(base, out)
  const script = `${before} && exec "$0" "$1/scripts/release.ts" --out "$2" --key "$3" --platform x64`
  await promisify(execFile)("sh", ["-c", script, process.execPath, from, folder, key], { timeout: 240_000 })
  return folder
}

let release: Promise<string> | undefined
const made = (): Promise<string> => (release ??= make(root, "release"))

function verify(folder: string, by = signers): { readonly status: number | null; readonly words: string } {
  const { status, stdout, stderr } = spawnSync("sh", [join(root, "scripts/verify-release.sh"), folder, by], { encoding: "utf8" })
  return { status, words: `${stdout}${stderr}` }
}

test("two makers in two places, at other times, with another umask and zone, make the same bytes", { skip: noGit, timeout: 300_000 }, async () => {
  const clone = join(base, "clone")
  execFileSync("git", ["clone", "--quiet", "--no-local", root, clone])
  execFileSync("git", ["-C", clone, "checkout", "--quiet", execFileSync("git", ["-C", root, "rev-parse", "HEAD"], { encoding: "utf8" }).trim()])
  const first = await made()
  const second = await make(clone, "second", "umask 077 && export TZ=Asia/Tokyo LC_ALL=C.UTF-8")
  assert.equal(readFileSync(join(second, "SHA256SUMS"), "utf8"), readFileSync(join(first, "SHA256SUMS"), "utf8"))
  for (const folder of [first, second]) assert.deepEqual(verify(folder), { status: 0, words: "good: 4 files, signed by release@perun.example\n" })
})

test("what was unpacked starts without network, npm or a Node of the machine's own", { skip: noGit, timeout: 300_000 }, async () => {
  const folder = join(base, "machine")
  mkdirSync(join(folder, "bin"), { recursive: true })
  const file = readdirSync(await made()).find((name) => name.endsWith("-linux-x64.tar.gz"))
  assert.ok(file !== undefined)
  execFileSync("tar", ["-xf", join(await made(), file), "-C", folder])
  for (const tool of ["sh", "cksum", "cat", "dirname", "readlink", "uname"]) {
    const found = (process.env["PATH"] ?? "")
      .split(delimiter)
      .map((part) => join(part, tool))
      .find(existsSync)
    assert.ok(found !== undefined, tool)
    symlinkSync(found, join(folder, "bin", tool))
  }
  const program = join(folder, file.replace("-linux-x64.tar.gz", ""), "perun")
  const run = (...words: readonly string[]): string => {
    const environment = { PATH: join(folder, "bin"), HOME: folder, PERUN_HOME: join(folder, "home") }
    const alone = spawnSync("unshare", ["-n", "true"]).status === 0 ? ["/usr/bin/unshare", "-n"] : ["/usr/bin/env"]
    const [command = "", ...rest] = [...alone, program, ...words]
    return execFileSync(command, rest, { env: environment, encoding: "utf8" })
  }
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string }
  assert.equal(run("--version").trim(), version)
  run("identity", "create", "ann")
  run("manager", "init", join(folder, "manager"), "--key-file")
  assert.ok(existsSync(join(folder, "manager", "manager.db")))
})

const changes: readonly (readonly [what: string, spoil: (folder: string) => void, words: RegExp])[] = [
  ["a file with a byte more", (folder) => appendFileSync(join(folder, tarOf(folder)), "x"), /tar\.gz: FAILED/],
  ["a file that is missing", (folder) => rmSync(join(folder, tarOf(folder))), /tar\.gz/],
  ["a file that is not listed", (folder) => writeFileSync(join(folder, "extra"), ""), /extra is not listed/],
  ["a hidden file that is not listed", (folder) => writeFileSync(join(folder, ".extra"), ""), /\.extra is not listed/],
  ["a link in the place of a file", (folder) => linkInstead(folder), /is no plain file/],
  [
    "a list with one line changed",
    (folder) => appendFileSync(join(folder, "SHA256SUMS"), `${"0".repeat(64)}  extra\n`),
    /signature over SHA256SUMS is not good/,
  ],
  ["no list", (folder) => rmSync(join(folder, "SHA256SUMS")), /SHA256SUMS is missing/],
  ["no signature", (folder) => rmSync(join(folder, "SHA256SUMS.sig")), /not signed/],
  ["a signature for another purpose", (folder) => signAs(folder, key, "file"), /signature over SHA256SUMS is not good|not signed by anybody/],
  ["a signature of a stranger", (folder) => signAs(folder, strangerKey(), "perun-release"), /not signed by anybody/],
  ["a list that leads out of the folder", (folder) => rewrite(folder, `${"0".repeat(64)}  ../../etc/passwd\n`), /lines of another form/],
]

function tarOf(folder: string): string {
  return readdirSync(folder).find((name) => /^perun-[0-9.]+\.tar\.gz$/.test(name)) ?? ""
}
function linkInstead(folder: string): void {
  const name = tarOf(folder)
  cpSync(join(folder, name), join(base, "elsewhere"))
  rmSync(join(folder, name))
  symlinkSync(join(base, "elsewhere"), join(folder, name))
}
function signAs(folder: string, by: string, namespace: string): void {
  rmSync(join(folder, "SHA256SUMS.sig"), { force: true })
  execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", namespace, "-f", by, join(folder, "SHA256SUMS")], { stdio: "ignore" })
}
function rewrite(folder: string, line: string): void {
  appendFileSync(join(folder, "SHA256SUMS"), line)
  signAs(folder, key, "perun-release")
}
function strangerKey(): string {
  const path = join(base, "stranger")
  if (!existsSync(path)) execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", path])
  return path
}

for (const [what, spoil, words] of changes)
  test(`verify-release.sh refuses ${what}`, { skip: noGit, timeout: 300_000 }, async () => {
    const folder = mkdtempSync(join(base, "spoilt-"))
    cpSync(await made(), folder, { recursive: true })
    spoil(folder)
    const found = verify(folder)
    assert.equal(found.status, 10, found.words)
    assert.match(found.words, words)
    assert.equal(found.words.split("\n").length, 2, found.words)
  })

test("release.ts says what is wrong with its words, and leaves what was there", { skip: noGit }, async () => {
  const release = (...words: readonly string[]) => spawnSync(process.execPath, [join(root, "scripts/release.ts"), ...words], { encoding: "utf8" })
  const full = join(base, "full")
  mkdirSync(full)
  writeFileSync(join(full, "mine"), "")
  const cases: readonly (readonly [readonly string[], number])[] = [
    [[], 2],
    [["--out", join(base, "x"), "--what"], 2],
    [["--out", join(base, "x"), "--platform", "riscv"], 2],
    [["--out", join(base, "x"), "--ref", "no-such-commit"], 2],
    [["--out", join(base, "x"), "--key", join(base, "no-key")], 40],
    [["--out", full], 50],
  ]
  for (const [words, status] of cases) {
    const found = release(...words)
    assert.equal(found.status, status, found.stderr)
    assert.match(found.stderr, /^release: [^\n]+\n$/)
  }
  assert.deepEqual([existsSync(join(base, "x")), readdirSync(full)], [false, ["mine"]])
})
