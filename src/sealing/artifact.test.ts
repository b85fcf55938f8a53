import assert from "node:assert/strict"
import { execFileSync, spawn } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { once } from "node:events"
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { setTimeout } from "node:timers/promises"
import { UnavailableError } from "../bytes/error.ts"
import { openAgeBytes, sealAgeBytes } from "./age-file.ts"
import { artifactFolder, blobFileName, blobFolder, identityPath, indexFileName, manifestFileName, shardFileName } from "./blobs.ts"
import { generateAgeIdentity, recipientOf } from "./keys.ts"
import { manifestDigest, parseSignedManifest } from "./manifest.ts"
import type { ArtifactManifest, SignedManifest } from "./manifest.ts"
import { openArtifact, openArtifactIndex, openShardRange, rewrapArtifact, rewrappedHeadersSchema, verifyArtifact } from "./open-artifact.ts"
import type { ArtifactAccess } from "./open-artifact.ts"
import { loadIdentity, sealArtifact } from "./seal-artifact.ts"
import type { SealArtifactOptions, SealedArtifact } from "./seal-artifact.ts"
import { hasProgram, randomContent, readTree, runProgram, temporaryFolder, testSigner, withCode, writeTree } from "./test-fixtures.ts"
import { digestOf } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { memoryReader, readStart } from "./ranges.ts"
import { encodeFileIndex, parseFileIndex } from "./file-index.ts"
import type { FileIndex } from "./file-index.ts"

type Folder = ReturnType<typeof temporaryFolder>

const signer = testSigner()
const sampleFiles = {
  "a.csv": "id,x\n1,2\n",
  empty: "",
  "images/0001.png": randomContent(70_000),
  "images/0002.png": randomContent(200_000),
  [`${"deep/".repeat(30)}Röntgen.bin`]: randomContent(512),
  "z.bin": randomContent(1_300_000),
}

/** Seals the sample files in `folder/source` into `folder/sealed`: three shards and an index. */
async function sealSample(folder: Folder, more: Partial<SealArtifactOptions> = {}): Promise<SealedArtifact> {
  if (!existsSync(folder.at("source"))) writeTree(folder.at("source"), sampleFiles)
  return sealArtifact({
    source: folder.at("source"),
    output: folder.at("sealed"),
    kind: "dataset",
    name: "records-a",
    signer,
    key: { generate: "x25519" },
    shardBytes: 250_000,
    workers: 0,
    ...more,
  })
}

async function accessTo(folder: Folder, signed: SignedManifest): Promise<ArtifactAccess> {
  const identity = await loadIdentity(identityPath(folder.at("sealed")))
  assert.ok(identity !== undefined)
  return { signed, identity, blobs: artifactFolder(folder.at("sealed"), signed.manifest) }
}

/** Opening must fail with this code, and leave nothing in the folder of the destination. */
async function refusesToOpen(folder: Folder, access: ArtifactAccess, code: string): Promise<void> {
  mkdirSync(folder.at("out"), { recursive: true })
  await assert.rejects(openArtifact({ ...access, destination: folder.at("out", "opened"), workers: 0 }), withCode(code))
  assert.deepEqual(readdirSync(folder.at("out")), [])
}

for (const generate of ["hybrid", "x25519"] as const) {
  test(`openArtifact() gives back the files that sealArtifact() sealed (${generate})`, async () => {
    using folder = temporaryFolder()
    writeTree(folder.at("source"), sampleFiles)
    chmodSync(folder.at("source", "a.csv"), 0o755)
    const steps: number[] = []
    const { signed, digest } = await sealSample(folder, {
      key: { generate },
      workers: 2,
      created: "2026-11-22T10:00:00Z",
      onProgress: ({ doneBytes, totalBytes }) => steps.push(doneBytes / totalBytes),
    })
    assert.equal(steps.at(-1), 1)
    assert.equal(manifestDigest(signed.manifest), digest)
    assert.equal(signed.manifest.shards.length, 3)
    assert.deepEqual(signed.manifest.files, { count: 6, bytes: 9 + 70_000 + 200_000 + 512 + 1_300_000 })
    assert.deepEqual(parseSignedManifest(new Uint8Array(readFileSync(folder.at("sealed", manifestFileName)))), signed)
    assert.deepEqual(readdirSync(folder.at("sealed")).sort(), [indexFileName, manifestFileName, ...[0, 1, 2].map(shardFileName)])
    assert.equal(statSync(identityPath(folder.at("sealed"))).mode & 0o777, 0o600)
    assert.ok(!JSON.stringify(signed).includes("a.csv"))

    const access = await accessTo(folder, signed)
    assert.ok(access.identity.startsWith(generate === "hybrid" ? "AGE-SECRET-KEY-PQ-1" : "AGE-SECRET-KEY-1"))
    const opened = await openArtifact({
      ...access,
      expected: { digest, owners: [signer.owner] },
      destination: folder.at("new", "opened"),
      workers: 2,
    })
    assert.deepEqual(readTree(folder.at("new", "opened")), readTree(folder.at("source")))
    assert.equal(opened.files.length, 6)
    assert.equal(statSync(folder.at("new", "opened", "a.csv")).mode & 0o111, 0o111)
    assert.equal(statSync(folder.at("new", "opened", "z.bin")).mode & 0o111, 0)
    assert.equal(statSync(folder.at("new", "opened")).mode & 0o777, 0o700)
    assert.deepEqual(readdirSync(folder.at("new")), ["opened"])
  })
}

test(
  "age and tar open a shard without us",
  { skip: hasProgram("age", ["--version"]) && hasProgram("tar", ["--version"]) ? false : "no age or tar" },
  async () => {
    using folder = temporaryFolder()
    const { signed } = await sealSample(folder)
    mkdirSync(folder.at("plain"))
    for (const shard of signed.manifest.shards.keys()) {
      await runProgram("age", ["-d", "-i", identityPath(folder.at("sealed")), "-o", folder.at("t.tar"), folder.at("sealed", shardFileName(shard))])
      await runProgram("tar", ["-x", "-C", folder.at("plain"), "-f", folder.at("t.tar")])
    }
    assert.deepEqual(readTree(folder.at("plain")), readTree(folder.at("source")))
  },
)

test("a large artifact goes over threads, from a folder and from blobs that are not files", async () => {
  using folder = temporaryFolder()
  const large = randomContent(36_000_001)
  writeTree(folder.at("source"), { "a.bin": large, "b.txt": "x", "c.bin": large.subarray(0, 5_000_000) })
  const { signed } = await sealSample(folder, { workers: 2, shardBytes: 20_000_000 })
  assert.equal(signed.manifest.shards.length, 2)
  const access = await accessTo(folder, signed)
  await openArtifact({ ...access, destination: folder.at("one"), workers: 2 })
  assert.deepEqual(readTree(folder.at("one")), readTree(folder.at("source")))
  const inMemory = {
    async open(digest: Digest) {
      await using reader = await access.blobs.open(digest)
      return memoryReader(await readStart(reader, reader.sizeBytes))
    },
  }
  await openArtifact({ ...access, blobs: inMemory, destination: folder.at("two"), workers: 2 })
  assert.deepEqual(readTree(folder.at("two")), readTree(folder.at("source")))

  const path = folder.at("sealed", shardFileName(0))
  const bytes = readFileSync(path)
  bytes.writeUInt8(bytes.readUInt8(30_000_000) ^ 4, 30_000_000)
  writeFileSync(path, bytes)
  mkdirSync(folder.at("out"))
  await assert.rejects(openArtifact({ ...access, destination: folder.at("out", "opened"), workers: 2 }), withCode("corrupt"))
  assert.deepEqual(readdirSync(folder.at("out")), [])
})

test("an artifact without files, and one of a single empty file", async () => {
  for (const files of [{}, { empty: "" }]) {
    using folder = temporaryFolder()
    writeTree(folder.at("source"), files)
    const { signed } = await sealSample(folder)
    await openArtifact({ ...(await accessTo(folder, signed)), destination: folder.at("opened"), workers: 0 })
    assert.deepEqual(readTree(folder.at("opened")), readTree(folder.at("source")))
  }
})

test("the plaintext of a shard follows from the files alone", async () => {
  using one = temporaryFolder()
  using two = temporaryFolder()
  writeTree(one.at("source"), sampleFiles)
  writeTree(two.at("source"), Object.fromEntries(Object.entries(sampleFiles).reverse()))
  utimesSync(two.at("source", "a.csv"), 5, 5)
  const plain: Uint8Array[] = []
  for (const folder of [one, two]) {
    const { signed } = await sealSample(folder)
    const { identity } = await accessTo(folder, signed)
    plain.push(await openAgeBytes(new Uint8Array(readFileSync(folder.at("sealed", shardFileName(0)))), identity))
  }
  assert.deepEqual(plain[0], plain[1])
})

test("openArtifact() refuses changed blobs, each with its code, and leaves nothing behind", async () => {
  using folder = temporaryFolder()
  const { signed } = await sealSample(folder)
  const access = await accessTo(folder, signed)
  cpSync(folder.at("sealed"), folder.at("good"), { recursive: true })
  const shard = (number: number) => folder.at("sealed", shardFileName(number))
  const index = folder.at("sealed", indexFileName)
  const bend = (path: string, at: number) => {
    const bytes = readFileSync(path)
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
    writeFileSync(path, bytes)
  }
  const attacks: readonly (readonly [string, string, () => void])[] = [
    ["a cut shard", "truncated", () => truncateSync(shard(1), statSync(shard(1)).size - 1)],
    ["a shard cut at a chunk border", "truncated", () => truncateSync(shard(2), statSync(shard(2)).size - 65_552)],
    ["an empty shard", "truncated", () => truncateSync(shard(0), 0)],
    ["a lengthened shard", "trailing-data", () => appendFileSync(shard(2), "x")],
    ["a flipped bit in a payload", "corrupt", () => bend(shard(2), 400_000)],
    ["a flipped bit in a header", "corrupt", () => bend(shard(0), 40)],
    ["a flipped bit in a stanza", "corrupt", () => bend(shard(0), 60)],
    ["a flipped bit at the end", "corrupt", () => bend(shard(1), statSync(shard(1)).size - 1)],
    ["a missing shard", "missing", () => rmSync(shard(1))],
    ["a folder in the place of a shard", "unsafe-path", () => (rmSync(shard(1)), mkdirSync(shard(1)))],
    ["a link in the place of a shard", "unsafe-path", () => (rmSync(shard(1)), symlinkSync(folder.at("good", shardFileName(1)), shard(1)))],
    ["swapped shards", "reordered", () => (renameSync(shard(0), index + "x"), renameSync(shard(1), shard(0)), renameSync(index + "x", shard(1)))],
    ["a doubled shard", "reordered", () => copyFileSync(shard(0), shard(2))],
    ["the index in the place of a shard", "reordered", () => copyFileSync(index, shard(1))],
    ["a shard in the place of the index", "reordered", () => copyFileSync(shard(1), index)],
    ["a cut index", "truncated", () => truncateSync(index, statSync(index).size - 1)],
    ["a lengthened index", "trailing-data", () => appendFileSync(index, "x")],
    ["a flipped bit in the index", "corrupt", () => bend(index, 300)],
    ["a missing index", "missing", () => rmSync(index)],
  ]
  for (const [what, code, attack] of attacks) {
    rmSync(folder.at("sealed"), { recursive: true })
    cpSync(folder.at("good"), folder.at("sealed"), { recursive: true })
    attack()
    await assert.rejects(verifyArtifact(access), withCode(code), what)
    await refusesToOpen(folder, access, code)
  }
})

test("a blob of another artifact, well sealed under the same key, is refused", async () => {
  using folder = temporaryFolder()
  const { signed } = await sealSample(folder)
  const access = await accessTo(folder, signed)
  const path = folder.at("sealed", shardFileName(2))
  const plain = await openAgeBytes(new Uint8Array(readFileSync(path)), access.identity)
  writeFileSync(path, await sealAgeBytes(plain, [signed.manifest.recipient]))
  assert.equal(statSync(path).size, signed.manifest.shards[2]?.sizeBytes)
  await refusesToOpen(folder, access, "corrupt")
})

test("openArtifact() refuses another key and another manifest", async () => {
  using folder = temporaryFolder()
  using other = temporaryFolder()
  const { signed, digest } = await sealSample(folder)
  const second = await sealSample(other)
  const access = await accessTo(folder, signed)
  await refusesToOpen(folder, { ...access, identity: await generateAgeIdentity("x25519") }, "wrong-key")
  await refusesToOpen(folder, { ...access, identity: await generateAgeIdentity("hybrid") }, "wrong-key")
  await refusesToOpen(folder, { ...access, expected: { digest: second.digest } }, "wrong-manifest")
  await refusesToOpen(folder, { ...access, expected: { digest, owners: [testSigner().owner] } }, "wrong-manifest")
  await refusesToOpen(folder, { ...access, signed: { ...signed, signature: second.signed.signature } }, "wrong-manifest")
  await refusesToOpen(folder, { ...access, signed: { ...signed, manifest: { ...signed.manifest, name: "x" } } }, "wrong-manifest")
  await refusesToOpen(folder, { ...access, signed: second.signed }, "wrong-key")
  await refusesToOpen(folder, { ...(await accessTo(other, second.signed)), blobs: artifactFolder(folder.at("sealed"), signed.manifest) }, "missing")
})

/** What a dishonest owner could sign: an artifact whose parts contradict each other. */
async function forge(
  folder: Folder,
  change: { index?: (index: FileIndex) => FileIndex; manifest?: (manifest: ArtifactManifest) => ArtifactManifest; swap?: boolean },
): Promise<ArtifactAccess> {
  const { signed } = await sealSample(folder)
  const access = await accessTo(folder, signed)
  const indexPath = folder.at("sealed", indexFileName)
  const index = parseFileIndex(await openAgeBytes(new Uint8Array(readFileSync(indexPath)), access.identity))
  const bytes = encodeFileIndex((change.index ?? ((same) => same))(index))
  const sealed = await sealAgeBytes(bytes, [signed.manifest.recipient])
  writeFileSync(indexPath, sealed)
  const manifest = (change.manifest ?? ((same) => same))({
    ...signed.manifest,
    index: { digest: digestOf(sealed), sizeBytes: sealed.length, saltedDigest: digestOf(bytes) },
  })
  const forged = { manifest, signature: await signer.sign(manifestDigest(manifest)) }
  return { ...access, signed: forged, blobs: artifactFolder(folder.at("sealed"), manifest) }
}

test("openArtifact() refuses what an owner sealed dishonestly", async () => {
  const rename = (from: string, to: string) => (index: FileIndex) => ({
    ...index,
    files: index.files.map((file) => (file.path === from ? { ...file, path: to } : file)),
  })
  const digest = digestOf(new Uint8Array(77))
  const cases: readonly (readonly [string, string, Parameters<typeof forge>[1]])[] = [
    ["path that leaves the folder", "unsafe-path", { index: rename("a.csv", "../../evil") }],
    ["absolute path", "unsafe-path", { index: rename("a.csv", "/tmp/evil") }],
    ["doubled path", "unsafe-path", { index: rename("empty", "a.csv") }],
    ["a name that is not the tar's", "wrong-manifest", { index: rename("a.csv", "b.csv") }],
    [
      "another digest of a file",
      "wrong-manifest",
      { index: (index) => ({ ...index, files: index.files.map((file) => (file.path === "z.bin" ? { ...file, digest } : file)) }) },
    ],
    ["another mode", "wrong-manifest", { index: (index) => ({ ...index, files: index.files.map((file) => ({ ...file, executable: true })) }) }],
    ["a file too few", "wrong-manifest", { index: (index) => ({ ...index, files: index.files.slice(0, -1) }) }],
    ["another count", "wrong-manifest", { manifest: (manifest) => ({ ...manifest, files: { ...manifest.files, count: 5 } }) }],
    ["other bytes", "wrong-manifest", { manifest: (manifest) => ({ ...manifest, files: { ...manifest.files, bytes: 5 } }) }],
    ["a shard too few", "wrong-manifest", { manifest: (manifest) => ({ ...manifest, shards: manifest.shards.slice(0, -1) }) }],
    ["shards in another order", "wrong-manifest", { manifest: (manifest) => ({ ...manifest, shards: manifest.shards.toReversed() }) }],
    [
      "a shard twice",
      "wrong-manifest",
      {
        manifest: (manifest) => ({
          ...manifest,
          shards: manifest.shards.map((shard, number) => manifest.shards[number === 2 ? 1 : number] ?? shard),
        }),
      },
    ],
    ["another salted digest", "wrong-manifest", { manifest: (manifest) => ({ ...manifest, index: { ...manifest.index, saltedDigest: digest } }) }],
  ]
  for (const [what, code, change] of cases) {
    using folder = temporaryFolder()
    const access = await forge(folder, change)
    // Blobs by content here: the names of files in the folder follow the manifest, which is forged.
    mkdirSync(folder.at("blobs"))
    for (const name of readdirSync(folder.at("sealed"))) {
      const bytes = readFileSync(folder.at("sealed", name))
      writeFileSync(folder.at("blobs", blobFileName(digestOf(new Uint8Array(bytes)))), bytes)
    }
    mkdirSync(folder.at("out"))
    const attempt = openArtifact({ ...access, blobs: blobFolder(folder.at("blobs")), destination: folder.at("out", "opened"), workers: 0 })
    await assert.rejects(attempt, withCode(code), what)
    assert.deepEqual(readdirSync(folder.at("out")), [], what)
  }
})

test("sealArtifact() refuses symbolic links, pipes, names that are not safe, and an output inside the source", async () => {
  using folder = temporaryFolder()
  writeTree(folder.at("source"), sampleFiles)
  const refused = async (make: (path: string) => void, name: string | Buffer = "odd") => {
    const path = Buffer.concat([Buffer.from(`${folder.at("source")}/`), Buffer.from(name)])
    make(folder.at("source", String(name)))
    await assert.rejects(sealSample(folder), withCode("unsafe-path"))
    rmSync(path)
    assert.ok(!existsSync(folder.at("sealed")))
  }
  await refused((path) => symlinkSync("a.csv", path))
  await refused((path) => symlinkSync("images", path))
  await refused((path) => symlinkSync("/nowhere", path))
  await refused((path) => execFileSync("mkfifo", [path]))
  await refused((path) => writeFileSync(path, "x"), "a\nb")
  const notUtf8 = Buffer.from([0x61, 0xff])
  await refused(() => writeFileSync(Buffer.concat([Buffer.from(`${folder.at("source")}/`), notUtf8]), "x"), notUtf8)
  await assert.rejects(sealSample(folder, { output: folder.at("source", "sealed") }), withCode("unsafe-path"))
  await assert.rejects(sealSample(folder, { output: folder.at("source") }), withCode("unsafe-path"))
  await assert.rejects(sealSample(folder, { source: folder.at("nowhere") }), withCode("missing"))
})

test("a hard link is a file like another", async () => {
  using folder = temporaryFolder()
  writeTree(folder.at("source"), { a: "x" })
  linkSync(folder.at("source", "a"), folder.at("source", "b"))
  const { signed } = await sealSample(folder)
  assert.equal(signed.manifest.files.count, 2)
})

test("sealArtifact() notices a file that changes while it is sealed", async () => {
  const changes: readonly ((path: string) => void)[] = [
    (path) => appendFileSync(path, "x"),
    (path) => truncateSync(path, 5),
    (path) => utimesSync(path, 1, 1),
    (path) => (rmSync(path), symlinkSync("a.csv", path)),
    (path) => rmSync(path),
  ]
  for (const [number, change] of changes.entries()) {
    using folder = temporaryFolder()
    let isFirst = true
    const attempt = sealSample(folder, {
      onProgress: () => {
        if (isFirst) change(folder.at("source", "z.bin"))
        isFirst = false
      },
    })
    await assert.rejects(attempt, withCode(["source-changed", "source-changed", "source-changed", "unsafe-path", "missing"][number] ?? ""))
    assert.ok(!existsSync(folder.at("sealed", manifestFileName)))
  }
})

test("sealArtifact() goes on after an interrupt, and keeps only shards that are still right", async () => {
  using folder = temporaryFolder()
  const interrupted = async () => {
    const controller = new AbortController()
    const attempt = sealSample(folder, {
      signal: controller.signal,
      onProgress: ({ doneBytes, totalBytes }) =>
        doneBytes > totalBytes / 2 && controller.abort(new UnavailableError("unavailable", "interrupted by the test")),
    })
    await assert.rejects(attempt, withCode("unavailable"))
  }
  await interrupted()
  const left = readdirSync(folder.at("sealed"))
  assert.deepEqual(left.filter((name) => name.endsWith(".tar.age")).sort(), [0, 1].map(shardFileName))
  assert.deepEqual(
    left.filter((name) => name.endsWith(".tmp")),
    [],
  )
  const kept = readFileSync(folder.at("sealed", shardFileName(0)))
  const identity = readFileSync(identityPath(folder.at("sealed")), "utf8")
  for (const name of left.filter((each) => each.includes(".record."))) assert.ok(!readFileSync(folder.at("sealed", name)).includes("a.csv"))

  // One kept shard gets damaged: it is sealed again.
  const second = folder.at("sealed", shardFileName(1))
  writeFileSync(second, randomContent(statSync(second).size))
  writeFileSync(folder.at("sealed", `.${shardFileName(2)}.0123456789ab.tmp`), "left by a killed process")
  const { signed, resumedShards } = await sealSample(folder)
  assert.equal(resumedShards, 1)
  assert.ok(readFileSync(folder.at("sealed", shardFileName(0))).equals(kept))
  assert.equal(readFileSync(identityPath(folder.at("sealed")), "utf8"), identity)
  assert.equal(readdirSync(folder.at("sealed")).length, 5)
  await openArtifact({ ...(await accessTo(folder, signed)), destination: folder.at("opened"), workers: 0 })
  assert.deepEqual(readTree(folder.at("opened")), readTree(folder.at("source")))
})

test("sealArtifact() goes on after its process was killed outright", async () => {
  using folder = temporaryFolder()
  const files = Object.fromEntries(Array.from({ length: 30 }, (_, number) => [`${100 + number}.bin`, randomContent(240_000)]))
  writeTree(folder.at("source"), files)
  const { privateKey } = generateKeyPairSync("ed25519")
  const here = (name: string) => JSON.stringify(new URL(name, import.meta.url).href)
  const program = `
    import { createPrivateKey } from "node:crypto"
    import { sealArtifact } from ${here("./seal-artifact.ts")}
    import { manifestSigner } from ${here("./manifest.ts")}
    const signer = manifestSigner(createPrivateKey(${JSON.stringify(privateKey.export({ type: "pkcs8", format: "pem" }))}))
    await sealArtifact({ source: ${JSON.stringify(folder.at("source"))}, output: ${JSON.stringify(folder.at("sealed"))},
      kind: "dataset", name: "records-a", signer, key: { generate: "x25519" }, shardBytes: 250_000, workers: 0 })`
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: "inherit" })
  const ended = once(child, "exit")
  // Two shards and their records lie there: the next ones are under way.
  while (child.exitCode === null && !existsSync(folder.at("sealed", "shard-0001.record.age"))) await setTimeout(2)
  child.kill("SIGKILL")
  await ended
  assert.equal(child.signalCode, "SIGKILL")
  const { signed, resumedShards } = await sealSample(folder)
  assert.ok(resumedShards >= 2 && resumedShards < 30, `${resumedShards} shards were kept`)
  assert.equal(readdirSync(folder.at("sealed")).length, 32)
  await openArtifact({ ...(await accessTo(folder, signed)), destination: folder.at("opened"), workers: 0 })
  assert.deepEqual(readTree(folder.at("opened")), readTree(folder.at("source")))
})

test("sealArtifact() seals again what changed between an interrupt and the next run", async () => {
  using folder = temporaryFolder()
  const controller = new AbortController()
  const stop = (part: number) => ({
    signal: controller.signal,
    onProgress: ({ doneBytes, totalBytes }: { doneBytes: number; totalBytes: number }) => {
      if (doneBytes > totalBytes * part) controller.abort(new UnavailableError("unavailable", "interrupted by the test"))
    },
  })
  await assert.rejects(sealSample(folder, stop(0.5)), withCode("unavailable"))
  writeFileSync(folder.at("source", "a.csv"), "id,x\n1,3\n")
  utimesSync(folder.at("source", "a.csv"), 7, 7)
  rmSync(folder.at("source", "z.bin"))
  const { signed, resumedShards } = await sealSample(folder)
  assert.equal(resumedShards, 1)
  await openArtifact({ ...(await accessTo(folder, signed)), destination: folder.at("opened"), workers: 0 })
  assert.deepEqual(readTree(folder.at("opened")), readTree(folder.at("source")))
})

test("sealArtifact() refuses to replace a finished artifact", async () => {
  using folder = temporaryFolder()
  await sealSample(folder)
  await assert.rejects(sealSample(folder), withCode("not-empty"))
})

test("sealArtifact() goes on with the key of an interrupted run, takes no other kind for it, and never the key of a finished artifact", async () => {
  using folder = temporaryFolder()
  const stopped = AbortSignal.abort(new UnavailableError("unavailable", "interrupted by the test"))
  await assert.rejects(sealSample(folder, { signal: stopped }), withCode("unavailable"))
  const key = readFileSync(identityPath(folder.at("sealed")), "utf8")
  await assert.rejects(sealSample(folder, { key: { generate: "hybrid" } }), withCode("not-empty"))
  await sealSample(folder)
  rmSync(folder.at("sealed"), { recursive: true })
  await assert.rejects(sealSample(folder), withCode("not-empty"))
  assert.equal(readFileSync(identityPath(folder.at("sealed")), "utf8"), key)
})

test("sealArtifact() refuses what the manifest could not say, before it writes anything", async () => {
  using folder = temporaryFolder()
  for (const wrong of [{ name: "Records A" }, { name: "../x" }, { created: "yesterday" }]) {
    await assert.rejects(sealSample(folder, wrong), withCode("malformed"))
    assert.ok(!existsSync(folder.at("sealed")))
  }
  await assert.rejects(sealSample(folder, { key: { recipient: "age1xyz" } }), withCode("malformed"))
})

test("sealing to a given recipient writes nothing secret", async () => {
  using folder = temporaryFolder()
  const identity = await generateAgeIdentity("hybrid")
  const { signed } = await sealSample(folder, { key: { recipient: await recipientOf(identity) }, kind: "output" })
  assert.deepEqual(readdirSync(folder.at("sealed")).sort(), [indexFileName, manifestFileName, ...[0, 1, 2].map(shardFileName)])
  await openArtifact({ signed, identity, blobs: artifactFolder(folder.at("sealed"), signed.manifest), destination: folder.at("opened"), workers: 0 })
  assert.deepEqual(readTree(folder.at("opened")), readTree(folder.at("source")))
})

test("openArtifact() refuses a destination that holds something, and takes an empty folder", async () => {
  using folder = temporaryFolder()
  const { signed } = await sealSample(folder)
  const access = await accessTo(folder, signed)
  writeTree(folder.at("occupied"), { mine: "x" })
  await assert.rejects(openArtifact({ ...access, destination: folder.at("occupied"), workers: 0 }), withCode("not-empty"))
  await assert.rejects(openArtifact({ ...access, destination: folder.at("occupied", "mine"), workers: 0 }), withCode("not-empty"))
  assert.deepEqual(readTree(folder.at("occupied")), { mine: "eA==" })
  mkdirSync(folder.at("empty"))
  await openArtifact({ ...access, destination: folder.at("empty"), workers: 0 })
  assert.equal(Object.keys(readTree(folder.at("empty"))).length, 6)
})

test("openArtifact() stops when its signal says so, and leaves nothing", async () => {
  using folder = temporaryFolder()
  const { signed } = await sealSample(folder)
  const controller = new AbortController()
  mkdirSync(folder.at("out"))
  const attempt = openArtifact({
    ...(await accessTo(folder, signed)),
    destination: folder.at("out", "opened"),
    workers: 0,
    signal: controller.signal,
    onProgress: () => controller.abort(new UnavailableError("unavailable", "stopped")),
  })
  await assert.rejects(attempt, withCode("unavailable"))
  assert.deepEqual(readdirSync(folder.at("out")), [])
})

test("openShardRange() gives a file's content by the index, without the rest", async () => {
  using folder = temporaryFolder()
  const { signed } = await sealSample(folder)
  const access = await accessTo(folder, signed)
  const { index } = await openArtifactIndex(access)
  for (const file of index.files) {
    const content = await openShardRange(access, file.shard, file.offset, file.sizeBytes)
    assert.ok(readFileSync(folder.at("source", file.path)).equals(content))
  }
  await assert.rejects(openShardRange(access, 3, 0, 1), TypeError)
  await assert.rejects(openShardRange({ ...access, identity: await generateAgeIdentity("x25519") }, 0, 0, 1), withCode("wrong-key"))
  truncateSync(folder.at("sealed", shardFileName(0)), 1000)
  await assert.rejects(openShardRange(access, 0, 0, 1), withCode("truncated"))
})

test("rewrapArtifact() gives an artifact to another recipient; the blobs stay as they are", async () => {
  using folder = temporaryFolder()
  const { signed } = await sealSample(folder)
  const access = await accessTo(folder, signed)
  const before = readTree(folder.at("sealed"))
  const consumer = await generateAgeIdentity("hybrid")
  const headers = rewrappedHeadersSchema.parse(JSON.parse(JSON.stringify(await rewrapArtifact(access, [await recipientOf(consumer)]))))
  assert.deepEqual(readTree(folder.at("sealed")), before)
  await refusesToOpen(folder, { ...access, identity: consumer }, "wrong-key")
  await refusesToOpen(folder, { ...access, headers }, "wrong-key")
  await refusesToOpen(folder, { ...access, identity: consumer, headers: { ...headers, shards: [] } }, "wrong-manifest")
  await refusesToOpen(folder, { ...access, identity: consumer, headers: { ...headers, shards: headers.shards.toReversed() } }, "corrupt")
  await openArtifact({ ...access, identity: consumer, headers, destination: folder.at("opened"), workers: 0 })
  assert.deepEqual(readTree(folder.at("opened")), readTree(folder.at("source")))
  await assert.rejects(rewrapArtifact({ ...access, identity: consumer }, [signed.manifest.recipient]), withCode("wrong-key"))
})

test("a full disk is one clear error, and leaves nothing half done", { skip: canMount() ? false : "needs root and tmpfs" }, async () => {
  using folder = temporaryFolder()
  const { signed } = await sealSample(folder)
  const access = await accessTo(folder, signed)
  const small = folder.at("small")
  mkdirSync(small)
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=600k", "tmpfs", small])
  try {
    await assert.rejects(openArtifact({ ...access, destination: join(small, "opened"), workers: 0 }), withCode("disk-full"))
    assert.deepEqual(readdirSync(small), [])
    const output = join(small, "sealed")
    await assert.rejects(sealSample(folder, { output }), withCode("disk-full"))
    assert.deepEqual(
      readdirSync(output).filter((name) => name.endsWith(".tmp") || name === manifestFileName),
      [],
    )
    // With room again, the same call goes on.
    execFileSync("mount", ["-o", "remount,size=8m", small])
    const again = await sealSample(folder, { output })
    assert.equal(again.resumedShards, 2)
  } finally {
    execFileSync("umount", [small])
  }
})

test("loadIdentity() reads one identity and skips comments", async () => {
  using folder = temporaryFolder()
  const identity = await generateAgeIdentity("x25519")
  assert.equal(await loadIdentity(folder.at("none")), undefined)
  writeFileSync(folder.at("one"), `# created: today\n\n${identity}\n`)
  assert.equal(await loadIdentity(folder.at("one")), identity)
  for (const text of ["", "# only a comment\n", `${identity}\n${identity}\n`, "age1xyz\n"]) {
    writeFileSync(folder.at("bad"), text)
    await assert.rejects(loadIdentity(folder.at("bad")), withCode("malformed"))
  }
})

function canMount(): boolean {
  using folder = temporaryFolder()
  if (!hasProgram("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder.path])) return false
  execFileSync("umount", [folder.path])
  return true
}
