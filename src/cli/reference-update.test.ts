/** `reference update`, `withdraw` and `fetch` as real processes against a real manager: a delegate changes what it may, and everybody sees it. */
import assert from "node:assert/strict"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { type Digest, digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { updatesOfPolicy } from "../client/reference-updates.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { type ImaReference, referenceDigest } from "../policy/reference.ts"
import type { PolicyView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { demandStatus, lastEvent } from "./process.testing.ts"
import { RealStudy, type TestParty } from "./study.testing.ts"

describe("updates of references", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  const references = captureReferences(machine)
  const next: ImaReference = {
    ...references.ima,
    name: "next",
    files: { ...references.ima.files, [digestOf(encodeUtf8("next"))]: ["/usr/bin/next"] },
  }
  let folder: string
  let study: RealStudy
  let file: string

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "perun-update-"))
    file = join(folder, "next.json")
    await writeFile(file, JSON.stringify(next))
    study = await RealStudy.start({
      root: authority.root,
      endorsementKey: machine.endorsementKey,
      references,
      imaUpdates: { by: "vendor", until: "2027-01-01T00:00:00Z", overlapSeconds: 60 },
    })
    await study.agree()
  })
  after(async () => {
    await study[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  })

  async function run(party: TestParty, words: readonly string[], status = 0): Promise<Record<string, unknown>> {
    return lastEvent((await demandStatus([...words, "--json"], status, party.environment)).stdout)
  }

  async function view(): Promise<PolicyView> {
    using connection = await study.connect(study.clinic)
    return connection.call(routes.getPolicy, { params: { digest: study.digest } })
  }

  const update = ["reference", "update"]

  test("what may not be is refused here, in one line, and nothing is sent", async () => {
    assert.equal((await run(study.clinic, [...update, study.digest, file, "--machine", "host", "--yes"], 10))["code"], "not-permitted")
    assert.equal((await run(study.vendor, [...update, study.digest, file, "--machine", "other", "--yes"], 10))["code"], "not-found")
    const boot = join(folder, "boot.json")
    await writeFile(boot, JSON.stringify(references.boot))
    assert.match(
      String((await run(study.vendor, [...update, study.digest, boot, "--machine", "host", "--yes"], 10))["message"]),
      /nobody may update the boot reference of host/,
    )
    const wide = join(folder, "wide.json")
    await writeFile(wide, JSON.stringify({ ...next, violationClasses: { all: ["/"] } }))
    assert.match(String((await run(study.vendor, [...update, study.digest, wide, "--machine", "host", "--yes"], 10))["message"]), /violationClasses/)
    assert.deepEqual((await view()).referenceUpdates, [])
  })

  test("the delegate puts it there; every party sees it, fetches it, and an owner takes it back", async () => {
    const shown = await run(study.vendor, [...update, study.digest, file, "--machine", "host", "--yes"])
    assert.equal(shown["reference"], referenceDigest(next))
    const { stdout } = await demandStatus(["policy", "status", study.digest], 0, study.clinic.environment)
    assert.match(stdout, new RegExp(`reference  host ima: ${referenceDigest(next)} or ${referenceDigest(references.ima)}`))
    assert.match(stdout, new RegExp(String(shown["update"])))
    const out = join(folder, "fetched.json")
    await run(study.clinic, ["reference", "fetch", study.digest, referenceDigest(next), "--out", out])
    assert.equal(referenceDigest(JSON.parse(await readFile(out, "utf8"))), referenceDigest(next))
    const receipts = await demandStatus(["audit", "list", "--json"], 0, study.clinic.environment)
    assert.match(receipts.stdout, /reference-updated/)
    const back = await run(study.clinic, ["reference", "withdraw", study.digest, String(shown["update"]), "--yes"])
    assert.equal((back["withdrawn"] as { by: string }).by, "clinic")
    const { acceptedReferences } = await view()
    assert.deepEqual(acceptedReferences, [{ machine: "host", piece: "ima", references: [referenceDigest(references.ima)] }])
  })

  test("a manager cannot make an update up", async () => {
    const true_ = await view()
    const [first] = true_.referenceUpdates
    assert.ok(first)
    assert.equal(updatesOfPolicy(true_, study.digest).length, 1)
    const spoilt = (change: Partial<typeof first>): PolicyView => ({ ...true_, referenceUpdates: [{ ...first, ...change }] })
    const other: Digest = referenceDigest(references.boot)
    assert.throws(() => updatesOfPolicy(spoilt({ reference: other }), study.digest), { code: "wrong-digest" })
    assert.throws(() => updatesOfPolicy(spoilt({ update: other }), study.digest), { code: "wrong-digest" })
    assert.throws(() => updatesOfPolicy(spoilt({ by: "clinic" }), study.digest), { code: "not-permitted" })
    assert.throws(() => updatesOfPolicy(spoilt({ signature: true_.approvals[0]?.signature ?? first.signature }), study.digest), {
      code: "wrong-signature",
    })
    assert.throws(() => updatesOfPolicy(true_, other), { code: "wrong-digest" })
  })
})
