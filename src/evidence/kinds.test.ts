import assert from "node:assert/strict"
import { existsSync } from "node:fs"
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
