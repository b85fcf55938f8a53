import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { test } from "node:test"
import { artifactFolder, identityPath } from "./blobs.ts"
import { openArtifact } from "./open-artifact.ts"
import { loadIdentity, sealArtifact } from "./seal-artifact.ts"
import { temporaryFolder, testSigner, writeTree } from "./test-fixtures.ts"

test("openArtifact() removes the plaintext that a killed process left beside this destination, and nothing else", async () => {
  using folder = temporaryFolder()
  writeTree(folder.at("source"), { a: "x" })
  const { signed } = await sealArtifact({
    source: folder.at("source"),
    output: folder.at("sealed"),
    kind: "dataset",
    name: "a",
    signer: testSigner(),
  })
  const identity = (await loadIdentity(identityPath(folder.at("sealed")))) ?? ""
  const { pid } = spawnSync("true")
  const left = (name: string): void => {
    mkdirSync(folder.at("out", name), { recursive: true })
    writeFileSync(folder.at("out", name, "patients.csv"), "x")
  }
  const kept = [`.files.opening-${process.pid}-abcdef`, `.files2.opening-${pid}-abcdef`, ".files.opening-notes", `.files.opening-${pid}-abcdef.txt`]
  for (const name of [`.files.opening-${pid}-abcdef`, ...kept]) left(name)
  await openArtifact({ signed, blobs: artifactFolder(folder.at("sealed"), signed.manifest), identity, destination: folder.at("out", "files") })
  assert.deepEqual(readdirSync(folder.at("out")).sort(), [...kept, "files"].sort())
})
