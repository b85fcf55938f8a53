import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import fc from "fast-check"
import { MalformedError, PerunError } from "../bytes/error.ts"
import { encodeBase64 } from "../bytes/text.ts"
import {
  checkpointText,
  cosign,
  cosignedAt,
  demandWitnessed,
  encodeWitnessRequest,
  parseCheckpoint,
  parseWitnessRequest,
  signCheckpoint,
  verifyCheckpoint,
} from "./checkpoint.ts"
import { leafHash } from "./merkle.ts"
import { encodeNote, type NoteKey, parseNote } from "./note.ts"

function keyPair(name: string, type: 1 | 4) {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  const key: NoteKey = { name, type, publicKey: new Uint8Array(publicKey.export({ format: "der", type: "spki" }).subarray(-32)) }
  return { privateKey, key }
}

const log = keyPair("perun/log-1", 1)
const [first, second, third] = [keyPair("hospital.example/w", 4), keyPair("university.example/w", 4), keyPair("state.example/w", 4)]
const root = leafHash(Uint8Array.of(1))
const checkpoint = { origin: "perun/log-1", size: 41, root }
const signed = signCheckpoint(checkpoint, log.privateKey, log.key.publicKey)
const now = 1_800_000_000

/** The checkpoint with cosignatures at these times. */
function witnessed(
  ...cosigners: readonly (readonly [{ key: NoteKey; privateKey: typeof log.privateKey }, number])[]
): ReturnType<typeof parseCheckpoint> {
  const { text, signatures } = parseNote(signed)
  return parseCheckpoint(
    encodeNote({ text, signatures: [...signatures, ...cosigners.map(([{ key, privateKey }, at]) => cosign(text, key, privateKey, at))] }),
  )
}

test("the checkpoint of C2SP's documents reads, and its text is made again", () => {
  const published =
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
  const found = parseCheckpoint(published)
  assert.deepEqual(
    [found.origin, found.size, encodeBase64(found.root)],
    ["example.com/behind-the-sofa", 20_852_163, "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="],
  )
  assert.equal(checkpointText(found), found.note.text)
  assert.equal(encodeNote(found.note), published)
})

test("a signed checkpoint verifies by the log's key alone, and for its origin alone", () => {
  const { origin, size } = verifyCheckpoint(signed, log.key)
  assert.deepEqual([origin, size], ["perun/log-1", 41])
  const stranger = keyPair("perun/log-1", 1)
  assert.throws(() => verifyCheckpoint(signed, stranger.key), { code: "wrong-checkpoint" })
  assert.throws(() => verifyCheckpoint(signed, { ...log.key, name: "perun/log-2" }), { code: "wrong-checkpoint" })
  const other = signCheckpoint({ ...checkpoint, origin: "perun/log-2" }, log.privateKey, log.key.publicKey)
  assert.throws(() => verifyCheckpoint(other, log.key), { code: "wrong-checkpoint" })
})

test("checkpoints of another form are refused", () => {
  const refused = (text: string): void => {
    assert.throws(() => parseCheckpoint(encodeNote({ text, signatures: parseNote(signed).signatures })), { code: "malformed" }, JSON.stringify(text))
  }
  const hash = encodeBase64(root)
  for (const size of ["", "01", "-1", "1.0", "1e3", " 1", "9007199254740993", "99999999999999999"]) refused(`o\n${size}\n${hash}\n`)
  for (const other of ["", "AAAA", `${hash}=`, hash.slice(0, -4)]) refused(`o\n1\n${other}\n`)
  refused("o\n1\n")
  refused(`\n1\n${hash}\n`)
  refused(`o\n1\n${hash}\n\nextension\n`)
  assert.equal(parseCheckpoint(encodeNote({ text: `o\n1\n${hash}\nextension\n`, signatures: parseNote(signed).signatures })).size, 1)
})

test("a cosignature counts for its witness, its checkpoint and its time", () => {
  const { note } = witnessed([first, now - 10], [first, now - 5], [second, now])
  assert.deepEqual(cosignedAt(note, first.key), [now - 10, now - 5])
  assert.deepEqual(cosignedAt(note, second.key), [now])
  assert.deepEqual(cosignedAt(note, third.key), [])
  const changed = { ...note, text: note.text.replace("41", "42") }
  assert.throws(() => cosignedAt(changed, first.key), { code: "wrong-checkpoint" })
  const later = note.signatures.map((one) => ({ ...one, signature: one.signature.map((byte, at) => (at === 7 ? byte ^ 1 : byte)) }))
  assert.throws(() => cosignedAt({ ...note, signatures: later }, first.key), { code: "wrong-checkpoint" })
  const short = note.signatures.map((one) => ({ ...one, signature: one.signature.slice(0, 71) }))
  assert.throws(() => cosignedAt({ ...note, signatures: short }, first.key), MalformedError)
})

test("the log's own signature is no cosignature, though it were made with the same key", () => {
  const { text, signatures } = parseNote(signed)
  const asWitness: NoteKey = { ...log.key, type: 4 }
  assert.deepEqual(cosignedAt({ text, signatures }, asWitness), [])
  const { note } = witnessed([{ key: { ...log.key, type: 4 }, privateKey: log.privateKey }, now])
  assert.throws(() => verifyCheckpoint(encodeNote({ text: note.text, signatures: note.signatures.slice(1) }), log.key), { code: "wrong-checkpoint" })
})

test("demandWitnessed() counts each witness once, and only lately", () => {
  const demand = { witnesses: [first.key, second.key, third.key], atLeast: 2, maxAgeSeconds: 60 }
  demandWitnessed(witnessed([first, now], [second, now - 60]), demand, now)
  demandWitnessed(witnessed([first, now], [second, now - 500], [second, now - 60]), demand, now)
  for (const cosigners of [
    [],
    [[first, now]],
    [
      [first, now],
      [first, now - 1],
    ],
    [
      [first, now],
      [second, now - 61],
    ],
    [
      [first, now],
      [second, now + 61],
    ],
  ] as const)
    assert.throws(() => demandWitnessed(witnessed(...cosigners), demand, now), { code: "not-witnessed" })
  const stranger = keyPair("hospital.example/w", 4)
  assert.throws(() => demandWitnessed(witnessed([stranger, now], [second, now]), demand, now), { code: "not-witnessed" })
  assert.throws(() => demandWitnessed(witnessed(), { ...demand, witnesses: [first.key, { ...first.key, name: "other" }] }, now), TypeError)
})

test("what a witness is asked comes back as it was, in the form of the specification", () => {
  const request = { oldSize: 7, proof: [root, leafHash(Uint8Array.of(2))], checkpoint: signed }
  const text = encodeWitnessRequest(request)
  assert.ok(text.startsWith(`old 7\n${encodeBase64(root)}\n`))
  assert.deepEqual(parseWitnessRequest(text), request)
  assert.deepEqual(parseWitnessRequest(encodeWitnessRequest({ oldSize: 0, proof: [], checkpoint: signed })), {
    oldSize: 0,
    proof: [],
    checkpoint: signed,
  })
  for (const wrong of [
    text.replace("old 7", "old 07"),
    text.replace("old", "new"),
    text.replace("\n\n", "\n"),
    text.replace(encodeBase64(root), "AAAA"),
    "",
  ])
    assert.throws(() => parseWitnessRequest(wrong), { code: "malformed" })
  const long = encodeWitnessRequest({ ...request, proof: Array.from({ length: 64 }, () => root) })
  assert.throws(() => parseWitnessRequest(long), { code: "malformed" })
})

test("whatever comes in, only errors of ours come out", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ unit: "binary" }),
        fc.string().map((more) => signed.replace("41", more)),
        fc.string().map((more) => `old ${more}\n\n${signed}`),
      ),
      (input) => {
        for (const read of [() => parseCheckpoint(input), () => parseWitnessRequest(input)])
          try {
            read()
          } catch (error) {
            assert.ok(error instanceof PerunError, String(error))
          }
      },
    ),
    { numRuns: 5000 },
  )
})
