/** Holds docs/evidence-library.md and the `exports` of package.json to what is there: every example runs as it stands and prints what stands below it. */
import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { after, test } from "node:test"

const root = resolve(import.meta.dirname, "..")
const vectors = process.env["PERUN_VECTORS"] ?? resolve(root, "../shared/vectors")
const skip = existsSync(vectors) ? false : "skipped: no vectors"
const text = await readFile(join(root, "docs/evidence-library.md"), "utf8")
const { exports: entries } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { readonly exports: Readonly<Record<string, string>> }

/** A program that uses Perun as npm links it: a folder of its own with a link in node_modules. */
const base = await mkdtemp(join(tmpdir(), "perun-library-"))
after(() => rm(base, { recursive: true, force: true }))
await mkdir(join(base, "node_modules"))
await symlink(root, join(base, "node_modules/perun"))
await symlink(join(root, "node_modules/@types"), join(base, "node_modules/@types"))
await writeFile(join(base, "package.json"), '{"type":"module"}')

interface Example {
  readonly line: number
  readonly code: string
  readonly printed: string
}

const examples: readonly Example[] = [...text.matchAll(/```ts\n(.*?)```\n\n```text\n(.*?)```/gs)].map(({ index, 1: code = "", 2: printed = "" }) => ({
  line: text.substring(0, index).split("\n").length,
  code,
  printed,
}))

function run(command: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: base, encoding: "utf8", env: { ...process.env, PERUN_VECTORS: vectors } })
  assert.equal(status, 0, `${stdout}${stderr}`)
  return stdout
}

test("every example of docs/evidence-library.md has its output below it", () => {
  assert.ok(examples.length >= 8)
  assert.equal(examples.length, text.split("```ts\n").length - 1)
})

for (const { line, code, printed } of examples) {
  test(`the example in line ${line} of docs/evidence-library.md prints what stands below it`, { skip }, async () => {
    const file = `example-${line}.ts`
    await writeFile(join(base, file), code)
    assert.equal(run(process.execPath, "--disable-warning=ExperimentalWarning", file), printed)
  })
}

test("the examples of docs/evidence-library.md have right types", async () => {
  for (const { line, code } of examples) await writeFile(join(base, `example-${line}.ts`), code)
  const options = { extends: join(root, "tsconfig.json"), include: ["example-*.ts"] }
  await writeFile(join(base, "tsconfig.json"), JSON.stringify(options))
  run(join(root, "node_modules/.bin/tsc"), "--noEmit", "-p", base)
})

test("everything in exports of package.json can be imported by its name, and nothing else can", async () => {
  const names = Object.keys(entries).map((name) => name.replace(/^\.\//, "perun/"))
  const program = `${names.map((name) => `await import("${name}")`).join("\n")}\nconsole.log("done")\n`
  await writeFile(join(base, "all.ts"), program)
  assert.equal(run(process.execPath, "--disable-warning=ExperimentalWarning", "all.ts"), "done\n")
  const inside = `await import("perun/evidence/dcap/check").catch((error) => console.log(error.code))\n`
  await writeFile(join(base, "inside.ts"), inside)
  assert.equal(run(process.execPath, "--disable-warning=ExperimentalWarning", "inside.ts"), "ERR_PACKAGE_PATH_NOT_EXPORTED\n")
})

test("every function in the tables of docs/evidence-library.md is exported by the file beside it", async () => {
  const rows = [...text.matchAll(/^\| `([a-z/-]+)` \| ((?:`\w+`(?:, )?)+) \|/gm)]
  assert.ok(rows.length >= 30)
  for (const [row, entry = "", names = ""] of rows) {
    const source = entries[`./evidence/${entry}`]
    assert.ok(source !== undefined, row)
    const exported = Object.keys((await import(join(root, source))) as object)
    for (const [, name = ""] of names.matchAll(/`(\w+)`/g)) assert.ok(exported.includes(name), `${entry} has no ${name}`)
  }
})
