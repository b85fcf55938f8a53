import assert from "node:assert/strict"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { evidenceKinds } from "./kinds.ts"
import type { EvidenceKind } from "./kinds.ts"

test("every kind with a folder has the files that each has", () => {
  const kinds: readonly EvidenceKind[] = Object.values(evidenceKinds)
  for (const { folder, name } of kinds) {
    if (folder === undefined) continue
    for (const file of ["format.ts", "verify.ts", "claims.ts", "README.md"])
      assert.ok(existsSync(join(import.meta.dirname, folder, file)), `${name}: ${file}`)
  }
})

test("every kind's README says what its evidence proves, and what it does not", () => {
  const kinds: readonly EvidenceKind[] = Object.values(evidenceKinds)
  const folders = kinds.flatMap(({ folder }) => (folder === undefined ? [] : [folder]))
  for (const folder of [...folders, "dcap", "host", "collateral"]) {
    const text = readFileSync(join(import.meta.dirname, folder, "README.md"), "utf8")
    assert.match(text, /What it proves/, folder)
    assert.match(text, /What it (?:cannot|does not) prove/, folder)
  }
})
