import assert from "node:assert/strict"
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { commandLineFindings } from "../../src/policy/appraise-command-line.ts"
import { imaRuleFaults } from "../../src/policy/ima-rules.ts"
import { productionPackages } from "./app.ts"
import { commandLine, measuredCommandLine } from "./command-line.ts"
import { guestFile } from "./initrd.ts"
import { moduleNeeds, modulesInOrder } from "./modules.ts"
import { digestTree, listTree } from "./tree.ts"

const disk = (digit: string) => ({ dataBlocks: 5, rootHash: digit.repeat(64) })

test("commandLine() of a sealed image is one that level sealed accepts, with the root hashes of both disks", () => {
  const text = measuredCommandLine(commandLine({ level: "sealed", root: disk("a"), app: disk("b") }))
  const verity = [
    { parameter: "perun.root", rootHash: "a".repeat(64) },
    { parameter: "perun.app", rootHash: "b".repeat(64) },
  ]
  assert.deepEqual(commandLineFindings({ pcr: 9, text }, verity), [])
  for (const wrong of [verity.toReversed().map(({ parameter }, index) => ({ parameter, rootHash: verity[index]?.rootHash ?? "" })), verity.slice(1)])
    assert.notDeepEqual(commandLineFindings({ pcr: 9, text }, wrong), [])
})

for (const level of ["sealed", "administered"] as const)
  test(`the IMA policy of a ${level} image leaves nothing out`, async () => {
    assert.deepEqual(imaRuleFaults(await readFile(guestFile(`ima-policy.${level}`), "utf8"), level), [])
  })

test("commandLine() of an administered image locks nothing down", () => {
  const line = commandLine({ level: "administered", root: disk("a"), app: disk("b") })
  assert.doesNotMatch(line, /lockdown|perun\.root|perun\.app/)
  assert.match(line, /ima_policy=tcb/)
  assert.match(measuredCommandLine(line), / initrd=initrd$/)
})

test("productionPackages() leaves out what is for development or optional", () => {
  const lock = JSON.stringify({
    packages: {
      "": {},
      "node_modules/a": {},
      "node_modules/b": { dev: true },
      "node_modules/c": { optional: true },
      "node_modules/a/node_modules/d": {},
    },
  })
  assert.deepEqual(productionPackages(new TextEncoder().encode(lock)), ["node_modules/a", "node_modules/a/node_modules/d"])
})

test("moduleNeeds() reads the list in .modinfo", () => {
  const module = (text: string) => new TextEncoder().encode(`\u007fELF\0license=GPL\0${text}\0`)
  assert.deepEqual(moduleNeeds(module("depends=dm-mod,dm-bufio")), ["dm-mod", "dm-bufio"])
  assert.deepEqual(moduleNeeds(module("depends=")), [])
  assert.throws(() => moduleNeeds(module("vermagic=6.1")), { code: "build-failed" })
})

test("modulesInOrder() puts each module after what it needs and refuses an unknown one", async () => {
  const tree = await mkdtemp(join(tmpdir(), "perun-modules-"))
  try {
    const folder = join(tree, "lib/modules/6.1/kernel")
    await mkdir(folder, { recursive: true })
    const needs = { "dm-verity": "dm-mod,dm_bufio", "dm-mod": "", "dm-bufio": "dm-mod", other: "" }
    for (const [name, list] of Object.entries(needs)) await writeFile(join(folder, `${name}.ko`), `\0depends=${list}\0`)
    const order = (await modulesInOrder(tree, ["dm_verity", "dm-mod"])).map((path) => path.split("/").at(-1))
    assert.deepEqual(order, ["dm-mod.ko", "dm-bufio.ko", "dm-verity.ko"])
    await assert.rejects(modulesInOrder(tree, ["absent"]), { code: "build-failed" })
  } finally {
    await rm(tree, { recursive: true })
  }
})

test("digestTree() knows programs by mode and by ELF magic", async () => {
  const tree = await mkdtemp(join(tmpdir(), "perun-tree-"))
  try {
    await writeFile(join(tree, "a-script"), "#!/bin/sh\n", { mode: 0o755 })
    await writeFile(join(tree, "b-library"), new Uint8Array([0x7f, 0x45, 0x4c, 0x46, 2]), { mode: 0o644 })
    await writeFile(join(tree, "c-text"), "text", { mode: 0o644 })
    const files = await digestTree(tree, await listTree(tree), "/guest")
    assert.deepEqual(
      files.map(({ path, program }) => [path, program]),
      [
        ["/guest/a-script", true],
        ["/guest/b-library", true],
        ["/guest/c-text", false],
      ],
    )
    assert.equal(files[2]?.digest, "sha256:982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1")
  } finally {
    await rm(tree, { recursive: true })
  }
})
