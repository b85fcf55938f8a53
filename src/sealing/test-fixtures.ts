import assert from "node:assert/strict"
import { execFile, execFileSync } from "node:child_process"
import { generateKeyPairSync, randomBytes } from "node:crypto"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { PerunError } from "../bytes/error.ts"
import { manifestSigner } from "./manifest.ts"
import type { ManifestSigner } from "./manifest.ts"

/** A folder that goes away with the test: `using folder = temporaryFolder()`. */
export function temporaryFolder(): Disposable & { readonly path: string; at(...names: string[]): string } {
  const path = mkdtempSync(join(tmpdir(), "perun-sealing-"))
  return {
    path,
    at: (...names) => join(path, ...names),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  }
}

/** Writes files given by path below a folder. */
export function writeTree(folder: string, files: Readonly<Record<string, Uint8Array | string>>): void {
  mkdirSync(folder, { recursive: true })
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), content)
  }
}

/** All files below a folder, as base64 by path. */
export function readTree(folder: string): Record<string, string> {
  const paths = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((path) => statSync(join(folder, path)).isFile())
  return Object.fromEntries(paths.sort().map((path) => [path, readFileSync(join(folder, path)).toString("base64")]))
}

export function randomContent(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes))
}

export function testSigner(): ManifestSigner {
  return manifestSigner(generateKeyPairSync("ed25519").privateKey)
}

/** For assert.rejects and assert.throws: an error of ours with this code. */
export function withCode(code: string): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof PerunError, `expected an error of ours, got ${String(error)}`)
    assert.equal(error.code, code)
    return true
  }
}

/** Whether a program can be started, for tests against it; e.g. `hasProgram("age", ["--version"])`. */
export function hasProgram(name: string, probe: readonly string[]): boolean {
  try {
    execFileSync(name, probe, { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

/** Runs a program without holding up this process; gives its standard output. */
export async function runProgram(name: string, args: readonly string[]): Promise<Buffer> {
  return new Promise((done, fail) => {
    execFile(name, args, { encoding: "buffer", maxBuffer: 1 << 28 }, (error, stdout) => (error === null ? done(stdout) : fail(error)))
  })
}
