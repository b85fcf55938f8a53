import assert from "node:assert/strict"
import { test } from "node:test"
import { checkArtifactPath, checkArtifactPaths, foldersOf, maxNameBytes, maxPathBytes } from "./paths.ts"
import { withCode } from "./test-fixtures.ts"

test("checkArtifactPath() lets ordinary paths through", () => {
  for (const path of ["a", "a/b", ".hidden", "..a", "a..", "...", "Röntgen/ü 1.png", "a:b", "x".repeat(maxNameBytes), "%2e%2e", "~", "-rf"]) {
    assert.equal(checkArtifactPath(path), path)
  }
})

test("checkArtifactPath() refuses what could leave the folder or deceive", () => {
  const bad = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../a",
    "a/../b",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\u0000b",
    "a\nb",
    "a\u007f",
    "a\\b",
    "C:/x",
  ]
  const deceiving = ["a\u202etxt.exe", "a\u2066b", "\ud800", "a\u009bb"]
  const long = ["x".repeat(maxNameBytes + 1), "ü".repeat(maxNameBytes / 2 + 1), "a/".repeat(maxPathBytes / 2) + "aa"]
  for (const path of [...bad, ...deceiving, ...long])
    assert.throws(() => checkArtifactPath(path), withCode("unsafe-path"), JSON.stringify(path.slice(0, 20)))
})

test("checkArtifactPaths() refuses doubles, disorder, and a file in the place of a folder", () => {
  checkArtifactPaths([])
  checkArtifactPaths(["a", "a-b", "a.b/c", "b/a", "b/b"])
  assert.throws(() => checkArtifactPaths(["a", "a"]), withCode("unsafe-path"))
  assert.throws(() => checkArtifactPaths(["b", "a"]), withCode("unsafe-path"))
  assert.throws(() => checkArtifactPaths(["a", "a/b"]), withCode("unsafe-path"))
  assert.throws(() => checkArtifactPaths(["a", "a-b", "a/b/c"]), withCode("unsafe-path"))
  assert.throws(() => checkArtifactPaths(["a", "b/../c"]), withCode("unsafe-path"))
})

test("foldersOf() names the folders above, outermost first", () => {
  assert.deepEqual(foldersOf("a/b/c"), ["a", "a/b"])
  assert.deepEqual(foldersOf("a"), [])
})
