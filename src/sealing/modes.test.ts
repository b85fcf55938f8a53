import assert from "node:assert/strict"
import { chmodSync, statSync } from "node:fs"
import { test } from "node:test"
import { artifactFolder, identityPath } from "./blobs.ts"
import { openArtifact, openArtifactIndex } from "./open-artifact.ts"
import { loadIdentity, sealArtifact } from "./seal-artifact.ts"
import { temporaryFolder, testSigner, writeTree } from "./test-fixtures.ts"

const modeOf = (path: string): number => statSync(path).mode & 0o7777

for (const executables of ["keep", "drop"] as const)
  test(`sealArtifact() and openArtifact() with executables: ${executables}; set-user-id, sticky and write bits never pass`, async () => {
    using folder = temporaryFolder()
    writeTree(folder.at("source"), { "sub/program": "#!/bin/sh\n", "large.bin": "x".repeat(200_000), plain: "x" })
    chmodSync(folder.at("source/sub"), 0o1777)
    chmodSync(folder.at("source/sub/program"), 0o6777)
    chmodSync(folder.at("source/large.bin"), 0o4711)
    chmodSync(folder.at("source/plain"), 0o666)
    const common = { source: folder.at("source"), kind: "output", name: "model", signer: testSigner(), key: { generate: "x25519" } } as const
    const kept = await sealArtifact({ ...common, output: folder.at("kept") })
    const sealed = await sealArtifact({ ...common, output: folder.at("sealed"), executables })
    const open = async ({ signed }: typeof kept, from: string, to: string, how: "keep" | "drop"): Promise<readonly number[]> => {
      const identity = (await loadIdentity(identityPath(folder.at(from)))) ?? ""
      const access = { signed, blobs: artifactFolder(folder.at(from), signed.manifest), identity }
      await openArtifact({ ...access, destination: folder.at(to), executables: how })
      const { index } = await openArtifactIndex(access)
      if (from === "sealed") assert.equal(new Set(index.files.map(({ executable }) => executable)).size, executables === "keep" ? 2 : 1)
      return ["", "/sub", "/sub/program", "/large.bin", "/plain"].map((path) => modeOf(folder.at(to + path)))
    }
    const program = executables === "keep" ? 0o755 : 0o644
    assert.deepEqual(await open(sealed, "sealed", "out", "keep"), [0o700, 0o755, program, program, 0o644])
    assert.deepEqual(await open(kept, "kept", "out-of-kept", executables), [0o700, 0o755, program, program, 0o644])
  })
