import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { PerunError } from "../bytes/error.ts"
import { signCheckpoint, verifyCheckpoint } from "../log/checkpoint.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { makeAgent, makeParts, TestStudy } from "../manager/study.testing.ts"
import { logKeyOf } from "../protocol/receipts.ts"
import { routes } from "../protocol/routes.ts"
import { notProved, parseRunCertificate, proofLines, runCertificateSchema, verifyRunCertificate } from "../protocol/run-certificate.ts"
import { at, changedAt, type Finished, finishedRun, otherThan, places, reported } from "./finished-run.testing.ts"
import { makeRunCertificate } from "../client/run-certificate.ts"

const parts = await makeParts()
const { clinic, vendor, consortium } = parts
const good = await finishedRun(parts, reported)

test("a certificate says which model came of what, by whose signatures, and what is not proved", () => {
  const parsed = parseRunCertificate(JSON.stringify(good.certificate))
  const proof = verifyRunCertificate(parsed, good.pins)
  assert.deepEqual(
    [proof.run, proof.job, proof.end, proof.laboratory, proof.machine.level, proof.metrics.count, proof.metrics.shown],
    [good.run, "train", "succeeded", true, "administered", 2, true],
  )
  assert.deepEqual(
    proof.signedBy.map(({ name, key }) => [name, key]),
    [clinic, vendor, consortium].map(({ name, key }) => [name, key]),
  )
  assert.deepEqual(
    proof.inputs.map(({ artifact, owner }) => [artifact, owner]),
    [
      ["records", "clinic"],
      ["trainer", "vendor"],
    ],
  )
  const [model] = proof.outputs
  assert.deepEqual([model?.name, model?.votes, model?.missing, model?.released.map(({ to }) => to)], ["model", ["clinic"], [], ["consortium"]])
  const text = proofLines(proof).map(({ what, text: line }) => `${what} ${line}`)
  assert.ok(text.some((line) => line.startsWith("machine host-1, as host of level administered, INSECURE LABORATORY")))
  assert.ok(notProved(proof).some((line) => line.includes("INSECURE LABORATORY")))
  assert.ok(notProved(proof).some((line) => line.includes("UNATTESTED MANAGER")))
})

test("metrics stay out unless they are asked for; their chain is there all the same", async () => {
  const { certificate, pins } = await finishedRun(parts)
  assert.equal(certificate.metrics, undefined)
  assert.deepEqual(verifyRunCertificate(certificate, pins).metrics, { ...verifyRunCertificate(good.certificate, good.pins).metrics, shown: false })
})

test("pins: another manager, another party's key, and a party that has not signed are refused", () => {
  const { key } = parts.stranger
  assert.throws(() => verifyRunCertificate(good.certificate, { managers: [key] }), { code: "wrong-manager" })
  assert.throws(() => verifyRunCertificate(good.certificate, { managers: [] }), { code: "wrong-manager" })
  const pinned = (parties: Readonly<Record<string, string>>) => () => verifyRunCertificate(good.certificate, { ...good.pins, parties })
  assert.doesNotThrow(pinned({ clinic: clinic.key }))
  assert.throws(pinned({ clinic: key }), { code: "wrong-run-certificate" })
  assert.throws(pinned({ clinic: vendor.key }), { code: "wrong-run-certificate" })
  assert.throws(pinned({ nobody: clinic.key }), { code: "wrong-run-certificate" })
})

function refuses(changed: unknown, pins: Finished["pins"]): boolean {
  try {
    verifyRunCertificate(parseRunCertificate(JSON.stringify(changed)), pins)
    return false
  } catch (error) {
    assert.ok(error instanceof PerunError, String(error))
    return true
  }
}

test("every single value of a certificate, changed, is refused: nothing in it is without a signature", () => {
  const leaves = places(good.certificate).filter((path) => typeof at(good.certificate, path) !== "object")
  assert.ok(leaves.length > 200)
  const accepted = leaves.filter((path) => !refuses(changedAt(good.certificate, path, otherThan), good.pins))
  assert.deepEqual(accepted, [])
})

test("every member and element taken away, or doubled, is refused, but for what a certificate may leave out", () => {
  const inner = places(good.certificate).filter((path) => path.length > 0)
  const accepted = inner.filter((path) => {
    const parent = path.slice(0, -1)
    const last = path.at(-1)
    const without = changedAt(good.certificate, parent, (value) =>
      Array.isArray(value)
        ? value.filter((_, index) => index !== last)
        : Object.fromEntries(Object.entries(value as object).filter(([name]) => name !== last)),
    )
    return !refuses(without, good.pins)
  })
  // Metrics as a whole, and receipts that no statement rests on: the maker may leave them out, and is said to.
  const kinds = accepted.map((path) => (path[0] === "receipts" ? good.certificate.receipts[Number(path[1])]?.receipt.kind : path.join(".")))
  assert.deepEqual([...new Set(kinds)].toSorted(), [
    "artifact-deposited",
    "metrics",
    "output-released",
    "policy-signed",
    "policy-submitted",
    "vote-cast",
  ])
  assert.ok(accepted.every((path) => path.length <= 2))
  for (const list of ["receipts", "metrics", "outputs"] as const) {
    const doubled = { ...good.certificate, [list]: [...(good.certificate[list] ?? []), ...(good.certificate[list] ?? []).slice(-1)] }
    assert.ok(refuses(doubled, good.pins), list)
  }
})

test("parts of another run, another manager, and another study do not fit", async () => {
  const { study, run } = good
  const again = await study.queue(good.certificate.receipts[0]?.receipt.policy ?? ("" as never))
  await assert.rejects(makeRunCertificate(study.connectionOf(clinic), again), { code: "wrong-state" })
  const agent = await makeAgent()
  await study.claim(agent)
  await study.call(routes.finishRun, agent, { params: { run: again }, body: { status: "failed", reason: "job-failed" } })
  const second = await makeRunCertificate(study.connectionOf(clinic), again)
  assert.equal(verifyRunCertificate(second, good.pins).end, "failed")
  assert.ok(refuses({ ...second, run }, good.pins))
  assert.ok(refuses({ ...good.certificate, receipts: second.receipts, checkpoint: second.checkpoint }, good.pins))
  const foreign = await finishedRun(parts)
  assert.ok(refuses(foreign.certificate, good.pins))
  assert.ok(refuses({ ...good.certificate, manager: foreign.certificate.manager }, { managers: [...good.pins.managers, ...foreign.pins.managers] }))
  assert.ok(refuses({ ...good.certificate, checkpoint: foreign.certificate.checkpoint }, good.pins))
  assert.ok(refuses({ ...good.certificate, approvals: foreign.certificate.approvals }, good.pins))
  assert.ok(refuses({ ...good.certificate, policy: foreign.certificate.policy }, good.pins))
})

test("a checkpoint that the log's own key did not sign is refused, whatever tree it names", () => {
  const log = logKeyOf(good.study.manager.description)
  const { origin, size, root } = verifyCheckpoint(good.certificate.checkpoint, log)
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  const raw = new Uint8Array(publicKey.export({ format: "der", type: "spki" })).slice(-32)
  assert.ok(sshPublicKeyText(privateKey).startsWith("ssh-ed25519"))
  assert.ok(refuses({ ...good.certificate, checkpoint: signCheckpoint({ origin, size, root }, privateKey, raw) }, good.pins))
})

test("an output that was handed out without the votes is refused; one that waits says whose vote is missing", async () => {
  const [output] = good.certificate.outputs
  assert.ok(output)
  assert.throws(() => verifyRunCertificate({ ...good.certificate, outputs: [{ ...output, votes: [] }] }, good.pins), { code: "votes-missing" })
  const study = await TestStudy.create(parts)
  const { run, agent } = await study.running()
  await study.makeOutput(agent, run)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  const proof = verifyRunCertificate(await makeRunCertificate(study.connectionOf(vendor), run), { managers: [study.manager.description.key] })
  assert.deepEqual([proof.outputs[0]?.missing, proof.outputs[0]?.released], [["clinic"], []])
})

test("a withdrawal is shown, and a run that it ended has a certificate that says so", async () => {
  const study = await TestStudy.create(parts)
  const { digest, run } = await study.running()
  await study.withdraw(digest, clinic)
  const proof = verifyRunCertificate(await makeRunCertificate(study.connectionOf(vendor), run), { managers: [study.manager.description.key] })
  assert.deepEqual([proof.end, proof.withdrawn.map(({ by }) => by)], ["policy-withdrawn", ["clinic"]])
})

test("10,000 seeded changes let only our own errors out", () => {
  let seed = 7
  const next = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  const text = JSON.stringify(good.certificate)
  const small = { ...good.certificate, receipts: good.certificate.receipts.slice(0, 3) }
  const paths = places(small)
  const values: readonly unknown[] = [null, 0, -1, "", "a", [], {}, true, 2 ** 53, "sha256:", "\u0000"]
  for (let count = 0; count < 9_000; count++) {
    const path = paths[next(paths.length)] ?? []
    refuses(
      changedAt(small, path, () => values[next(values.length)]),
      good.pins,
    )
  }
  for (let count = 0; count < 1_000; count++) {
    const cut = text.slice(0, next(text.length))
    assert.throws(() => parseRunCertificate(cut), PerunError)
  }
  assert.ok(runCertificateSchema.safeParse(good.certificate).success)
})
