import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { test } from "node:test"
import { Decrypter, Encrypter } from "age-encryption"
import fc from "fast-check"
import { digestOf } from "../bytes/digest.ts"
import { AgeFile, openAgeBytes, sealAgeBytes, sealAgeFile } from "./age-file.ts"
import { ChunkPool } from "./chunk-pool.ts"
import { SealingError } from "./errors.ts"
import { openHash } from "./hash-thread.ts"
import { rewrapHeader, parseAgeHeader } from "./header.ts"
import { generateAgeIdentity, recipientOf } from "./keys.ts"
import { memoryReader } from "./ranges.ts"
import { chunkBytes, sealedChunkBytes } from "./stream.ts"
import { hasProgram, randomContent, runProgram, temporaryFolder, withCode } from "./test-fixtures.ts"

const borderSizes = [0, 1, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 1_048_575, 1_048_576, 1_048_577]
const keys = {
  x25519: await newKey("x25519"),
  hybrid: await newKey("hybrid"),
} as const

async function newKey(kind: "x25519" | "hybrid"): Promise<{ identity: string; recipient: string }> {
  const identity = await generateAgeIdentity(kind)
  return { identity, recipient: await recipientOf(identity) }
}

for (const kind of ["x25519", "hybrid"] as const) {
  test(`the age library opens our files and we open its (${kind})`, async () => {
    const { identity, recipient } = keys[kind]
    const decrypter = new Decrypter()
    decrypter.addIdentity(identity)
    const encrypter = new Encrypter()
    encrypter.addRecipient(recipient)
    for (const size of borderSizes.slice(0, 8)) {
      const plain = randomContent(size)
      assert.deepEqual(await decrypter.decrypt(await sealAgeBytes(plain, [recipient])), plain)
      assert.deepEqual(await openAgeBytes(await encrypter.encrypt(plain), identity), plain)
    }
  })
}

test("the age program opens our files and we open its (x25519)", { skip: hasProgram("age", ["--version"]) ? false : "no age program" }, async () => {
  using folder = temporaryFolder()
  const { identity, recipient } = keys.x25519
  writeFileSync(folder.at("key"), `# made by a test\n${identity}\n`)
  for (const size of borderSizes) {
    const plain = randomContent(size)
    writeFileSync(folder.at("plain"), plain)
    writeFileSync(folder.at("ours.age"), await sealAgeBytes(plain, [recipient]))
    assert.ok((await runProgram("age", ["-d", "-i", folder.at("key"), folder.at("ours.age")])).equals(plain))
    await runProgram("age", ["-r", recipient, "-o", folder.at("theirs.age"), folder.at("plain")])
    assert.deepEqual(await openAgeBytes(new Uint8Array(readFileSync(folder.at("theirs.age"))), identity), plain)
  }
})

test("worker threads seal and open what one thread does, in order, for many batches", async () => {
  const { identity, recipient } = keys.x25519
  await using pool = new ChunkPool(2)
  for (const size of [0, 100, 5 * 1_048_576 + 77, 24 * 1_048_576]) {
    const plain = randomContent(size)
    const parts: Uint8Array[] = []
    let at = 0
    await sealAgeFile({
      pool,
      recipients: [recipient],
      source: {
        sizeBytes: size,
        async fill(into) {
          into.set(plain.subarray(at, at + into.length))
          at += into.length
        },
      },
      sink: { write: async (bytes) => void parts.push(new Uint8Array(bytes)) },
    })
    const sealed = new Uint8Array(Buffer.concat(parts))
    assert.ok(Buffer.from(await openAgeBytes(sealed, identity)).equals(plain))

    const opened: Uint8Array[] = []
    await using hash = openHash(1e9, 2)
    const file = await AgeFile.open(memoryReader(sealed), identity)
    await file.stream({
      pool,
      sink: { write: async (bytes) => void opened.push(new Uint8Array(bytes)) },
      hash,
    })
    assert.ok(Buffer.concat(opened).equals(plain))
    assert.equal(await hash.digest(), digestOf(sealed))
  }
})

test("an error in a worker thread, the source or the sink ends the stream with that error, and the pool goes on", async () => {
  const { identity, recipient } = keys.x25519
  await using pool = new ChunkPool(2)
  const sealed = await sealAgeBytes(randomContent(9 * 1_048_576), [recipient])
  const bent = new Uint8Array(sealed)
  bent[5 * 1_048_576] = (bent[5 * 1_048_576] ?? 0) ^ 0x80
  let written = 0
  const sink = { write: async (bytes: Uint8Array) => void (written += bytes.length) }
  await assert.rejects((await AgeFile.open(memoryReader(bent), identity)).stream({ pool, sink }), withCode("corrupt"))
  assert.ok(written < 5 * 1_048_576)

  const full = { write: async () => Promise.reject(new SealingError("too-large", "sink is full")) }
  await assert.rejects((await AgeFile.open(memoryReader(sealed), identity)).stream({ pool, sink: full }), withCode("too-large"))

  const source = { sizeBytes: 9 * 1_048_576, fill: async () => Promise.reject(new SealingError("source-changed", "gone")) }
  await assert.rejects(sealAgeFile({ pool, recipients: [recipient], source, sink }), withCode("source-changed"))

  const aborted = AbortSignal.abort(new SealingError("missing", "stopped by the test"))
  await assert.rejects((await AgeFile.open(memoryReader(sealed), identity)).stream({ pool, sink, signal: aborted }), withCode("missing"))
  await (await AgeFile.open(memoryReader(sealed), identity)).stream({ pool, sink })
})

test("readRange() gives any part of the plaintext", async () => {
  const plain = randomContent(3 * chunkBytes + 11)
  const file = await AgeFile.open(memoryReader(await sealAgeBytes(plain, [keys.x25519.recipient])), keys.x25519.identity)
  const range = fc.tuple(fc.nat(plain.length), fc.nat(plain.length)).map(([a, b]) => [Math.min(a, b), Math.abs(a - b)] as const)
  await fc.assert(
    fc.asyncProperty(range, async ([offset, length]) => {
      assert.deepEqual(await file.readRange(offset, length), plain.slice(offset, offset + length))
    }),
    { numRuns: 60, examples: [[[0, 0]], [[plain.length, 0]], [[chunkBytes, chunkBytes]], [[chunkBytes - 1, 2]]] },
  )
  await assert.rejects(file.readRange(plain.length, 1), TypeError)
  await assert.rejects(file.readRange(-1, 1), TypeError)
})

test("readRange() reads only the chunks it needs, and refuses a cut or damaged file", async () => {
  const sealed = await sealAgeBytes(randomContent(5 * chunkBytes), [keys.x25519.recipient])
  let bytesRead = 0
  const counting = memoryReader(sealed)
  const reader = { ...counting, read: (offset: number, into: Uint8Array) => ((bytesRead += into.length), counting.read(offset, into)) }
  const file = await AgeFile.open(reader, keys.x25519.identity)
  bytesRead = 0
  await file.readRange(chunkBytes + 5, 10)
  assert.equal(bytesRead, 2 * sealedChunkBytes)
  bytesRead = 0
  await file.readRange(2 * chunkBytes + 5, 10)
  assert.equal(bytesRead, sealedChunkBytes)

  const cut = await AgeFile.open(memoryReader(sealed.subarray(0, sealed.length - sealedChunkBytes)), keys.x25519.identity)
  await assert.rejects(cut.readRange(0, 1), withCode("truncated"))
  const bent = new Uint8Array(sealed)
  bent[200 + 2 * sealedChunkBytes] = (bent[200 + 2 * sealedChunkBytes] ?? 0) ^ 1
  await assert.rejects((await AgeFile.open(memoryReader(bent), keys.x25519.identity)).readRange(2 * chunkBytes, 1), withCode("corrupt"))
})

test("every cut of a file is refused", async () => {
  const sealed = await sealAgeBytes(randomContent(70), [keys.x25519.recipient])
  for (let length = 0; length < sealed.length; length++) {
    await assert.rejects(openAgeBytes(sealed.subarray(0, length), keys.x25519.identity), (error: unknown) => {
      assert.ok(error instanceof SealingError && (error.code === "truncated" || error.code === "corrupt"), `cut to ${length}: ${String(error)}`)
      return true
    })
  }
})

test("every flipped bit of a file is refused, with an error of ours", async () => {
  const sealed = await sealAgeBytes(randomContent(20), [keys.x25519.recipient])
  for (let at = 0; at < sealed.length; at++) {
    const bent = new Uint8Array(sealed)
    bent[at] = (bent[at] ?? 0) ^ (1 << (at % 8))
    await assert.rejects(openAgeBytes(bent, keys.x25519.identity), SealingError, `byte ${at}`)
  }
})

test("bytes behind the payload are refused", async () => {
  for (const size of [0, 10, chunkBytes]) {
    const sealed = await sealAgeBytes(randomContent(size), [keys.x25519.recipient])
    for (const more of [1, 16, 17, 100_000]) {
      await assert.rejects(openAgeBytes(new Uint8Array([...sealed, ...new Uint8Array(more)]), keys.x25519.identity), SealingError)
    }
  }
})

test("a file opens with a rewrapped header in the place of its own", async () => {
  const plain = randomContent(100_000)
  const sealed = await sealAgeBytes(plain, [keys.x25519.recipient])
  const header = await rewrapHeader(parseAgeHeader(sealed).bytes, keys.x25519.identity, [keys.hybrid.recipient])
  const file = await AgeFile.open(memoryReader(sealed), keys.hybrid.identity, header)
  assert.deepEqual(await file.readRange(0, plain.length), plain)
  const other = parseAgeHeader(await sealAgeBytes(plain, [keys.hybrid.recipient])).bytes
  await assert.rejects((await AgeFile.open(memoryReader(sealed), keys.hybrid.identity, other)).readRange(0, 1), withCode("corrupt"))
  await assert.rejects(AgeFile.open(memoryReader(sealed), keys.hybrid.identity, new Uint8Array([...header, 1])), withCode("malformed"))
})
