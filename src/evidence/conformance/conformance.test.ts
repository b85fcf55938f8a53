import assert from "node:assert/strict"
import { existsSync } from "node:fs"
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { reviewedDifferences } from "./reviewed.ts"
import { allAgree, runConformance } from "./run.ts"
import { wordRules } from "./words.ts"

const root = resolve(import.meta.dirname, "../../..")
const vectors = resolve(root, process.env["PERUN_VECTORS"] ?? "../shared/vectors")
const skip = existsSync(vectors) ? false : "skipped: no vectors"
const judgedKinds = ["host", "tpm", "eventlog", "ima", "ek-certs", "sgx", "tdx", "snp", "azure-vtpm"]

test("every vector case of the judged kinds agrees, or differs for a reviewed reason", { skip }, async () => {
  const rows = await runConformance(vectors, { kinds: judgedKinds })
  assert.ok(rows.length >= 108)
  assert.deepEqual(
    rows.filter((row) => row.verdict === "differs" || row.verdict === "not-judged"),
    [],
  )
  assert.ok(allAgree(rows))
  const reviewed = rows.filter((row) => row.verdict === "reviewed").map(({ kind, case: name }) => `${kind}/${name}`)
  assert.deepEqual(
    reviewed,
    reviewedDifferences.map((line) => `${line.kind}/${line.case}`),
  )
})

test("docs/conformance.md shows the reviewed differences and every word", async () => {
  const text = await readFile(join(root, "docs/conformance.md"), "utf8")
  const lines =
    text
      .split("## Reviewed differences")[1]
      ?.split("\n")
      .filter((line) => line.startsWith("| ")) ?? []
  const expected = reviewedDifferences.map(({ kind, case: name, reason }) => `| ${kind} | ${name} | ${reason} |`)
  assert.deepEqual(lines.slice(2), expected)
  for (const { word } of wordRules) assert.ok(text.includes(`\`${word}\``), word)
})

test("runConformance() takes one kind's folder and one case's", { skip }, async () => {
  const kind = await runConformance(join(vectors, "ek-certs"))
  assert.ok(kind.length >= 6)
  assert.ok(kind.every((row) => row.kind === "ek-certs"))
  const single = await runConformance(join(vectors, "host/ng"))
  assert.deepEqual(
    single.map(({ kind: of, case: name, expect, verdict }) => [of, name, expect, verdict]),
    [["host", "ng", "accept", "agrees"]],
  )
})

test("runConformance() does not judge a kind without rules, nor a kind that is not there", { skip }, async () => {
  const [row] = await runConformance(join(vectors, "cca"))
  assert.equal(row?.verdict, "not-judged")
  const rows = await runConformance(vectors, { kinds: ["no-such-kind"] })
  assert.deepEqual(
    rows.map((found) => found.verdict),
    ["not-judged"],
  )
  assert.equal(allAgree(rows), false)
  assert.equal(allAgree([]), false)
})

test("runConformance() fails plainly on a folder that does not exist", async () => {
  await assert.rejects(runConformance("/no/such/folder"), { code: "unavailable" })
})

interface Change {
  readonly facts?: (facts: Record<string, unknown>) => void
  readonly files?: Readonly<Record<string, string>>
  readonly name?: string
}

/** Judges a changed copy of one case. */
async function judgeChanged(from: string, change: Change): Promise<{ readonly verdict: string | undefined; readonly reason: string | undefined }> {
  const folder = await mkdtemp(join(tmpdir(), "perun-conformance-"))
  try {
    const kind = from.split("/")[0] ?? ""
    const target = join(folder, kind, change.name ?? from.split("/")[1] ?? "")
    await mkdir(target, { recursive: true })
    await cp(join(vectors, from), target, { recursive: true })
    const facts = JSON.parse(await readFile(join(target, "expected.json"), "utf8")) as Record<string, unknown>
    change.facts?.(facts)
    await rm(join(target, "expected.json"))
    await writeFile(join(target, "expected.json"), JSON.stringify(facts))
    for (const [name, text] of Object.entries(change.files ?? {})) await writeFile(join(target, name), text)
    const [row] = await runConformance(folder)
    return { verdict: row?.verdict, reason: row?.reason }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

// prettier-ignore
const changes: readonly (readonly [string, string, Change, string])[] = [
  ["a changed fact", "eventlog/uefi-sha1-log", { facts: (facts) => (facts["events"] = 18) }, "differs"],
  [
    "a changed nested fact",
    "eventlog/hp-elitebook-830g6",
    { facts: (facts) => (facts["againstTpm"] = { sha256: { match: [0], mismatch: [] } }) },
    "differs",
  ],
  ["a fact that no rule reads", "eventlog/uefi-sha1-log", { facts: (facts) => (facts["colour"] = "red") }, "not-judged"],
  ["an unread fact below another", "host/ng", { facts: (facts) => Object.assign(facts["claims"] as object, { shoeSize: 44 }) }, "not-judged"],
  ["a file that no rule reads", "eventlog/uefi-sha1-log", { files: { "extra.bin": "x" } }, "not-judged"],
  ["an unknown word", "eventlog/uefi-sha1-log", { facts: (facts) => (facts["expect"] = "perhaps") }, "not-judged"],
  ["no word", "eventlog/uefi-sha1-log", { facts: (facts) => delete facts["expect"] }, "not-judged"],
  ["a word bound to another case", "ima/keylime-ima-sig-signatures", { name: "other", facts: (facts) => (facts["case"] = "other") }, "not-judged"],
  ["another case's name", "eventlog/uefi-sha1-log", { facts: (facts) => (facts["case"] = "other") }, "differs"],
  ["a genuine host stated as rejected", "host/ng", { facts: (facts) => (facts["expect"] = "reject") }, "differs"],
  ["a forged host stated as accepted", "host/ng-signature-bit", { facts: (facts) => (facts["expect"] = "accept") }, "differs"],
  ["another nonce stated", "host/ng", { facts: (facts) => (facts["nonce"] = "00".repeat(32)) }, "differs"],
  ["a changed certificate fact", "ek-certs/stm-rsa-ff-padding", { facts: (facts) => (facts["trailingBytes"] = 430) }, "differs"],
  ["a changed count", "ek-certs/ca-bundle-roots", { facts: (facts) => (facts["count"] = 27) }, "differs"],
  ["a genuine certificate stated as rejected", "ek-certs/stm-ecc", { facts: (facts) => (facts["expect"] = "reject") }, "differs"],
  ["a changed register value", "ima/tss-ima-ng-small", { facts: (facts) => (facts["sha1"] = { "10": "00".repeat(20) }) }, "differs"],
  [
    "a changed register of the list",
    "ima/supermicro-ima-ng-with-pcr10",
    { facts: (facts) => (facts["pcr10"] = { sha256: "00".repeat(32) }) },
    "differs",
  ],
  ["another quoted digest", "tpm/thinkpad-ecdsa-good", { facts: (facts) => (facts["pcrDigest"] = "00".repeat(32)) }, "differs"],
  ["another reason", "tpm/windows-hello-certify-is-not-a-quote", { facts: (facts) => (facts["reason"] = "wrong-nonce") }, "differs"],
  [
    "another patch level in the certificate",
    "snp/genoa-v5-oak",
    { facts: (facts) => Object.assign(facts["certTcb"] as object, { snp: 24 }) },
    "differs",
  ],
  [
    "another check stated",
    "snp/milan-v3-vlek-aws",
    { facts: (facts) => Object.assign(facts["checks"] as object, { chipIdMatchesCert: true }) },
    "differs",
  ],
  ["a genuine report stated as rejected", "snp/genoa-v5-oak", { facts: (facts) => (facts["expect"] = "reject") }, "differs"],
  [
    "a report without debug stated as one with it",
    "snp/genoa-v5-oak",
    { facts: (facts) => (facts["expect"] = "signature-ok-policy-reject") },
    "differs",
  ],
  ["a wrong key stated as accepted", "snp/milan-vcek-bad-legacy-hwid", { facts: (facts) => (facts["expect"] = "accept") }, "differs"],
  ["another nonce of a vTPM stated", "azure-vtpm/snp-milan-v1", { facts: (facts) => (facts["nonce"] = "00") }, "differs"],
  [
    "another VM configuration stated",
    "azure-vtpm/snp-milan-v1",
    { facts: (facts) => Object.assign(facts["vmConfiguration"] as object, { "secure-boot": false }) },
    "differs",
  ],
  ["a genuine TD stated as rejected", "tdx/qvl-v4-uptodate", { facts: (facts) => (facts["expect"] = "reject") }, "differs"],
  ["a rejected TD stated as accepted", "tdx/qvl-v5-no-tcb-level", { facts: (facts) => (facts["expect"] = "accept") }, "differs"],
  ["another reason to reject", "tdx/qvl-v5-no-tcb-level", { facts: (facts) => (facts["reason"] = "expired") }, "differs"],
  ["an enclave stated as debug", "sgx/qvl-v3-config-and-swhardening", { facts: (facts) => (facts["expect"] = "debug-enclave") }, "differs"],
  ["a TD stated as out of date", "tdx/qvl-v4-uptodate", { facts: (facts) => (facts["expect"] = "outofdate") }, "differs"],
  ["an outdated TD stated as accepted", "tdx/automata-v4-outofdate", { facts: (facts) => (facts["expect"] = "accept") }, "differs"],
  ["another measurement", "tdx/qvl-v4-uptodate", { facts: (facts) => Object.assign(facts["body"] as object, { mrtd: "00".repeat(48) }) }, "differs"],
  ["a check that is stated not to hold", "tdx/qvl-v4-uptodate", { facts: (facts) => Object.assign(facts["checks"] as object, { qe_sig: false }) }, "differs"],
  ["an unknown check", "tdx/qvl-v4-uptodate", { facts: (facts) => Object.assign(facts["checks"] as object, { luck: true }) }, "not-judged"],
  ["another window", "tdx/qvl-v4-uptodate", { facts: (facts) => (facts["collateralWindow"] = ["2025-06-19T10:32:26Z", "2025-07-19T10:00:35Z"]) }, "differs"],
  ["a time outside the window", "tdx/qvl-v4-uptodate", { facts: (facts) => (facts["verifyTime"] = "2025-07-19T10:00:36Z") }, "differs"],
  ["other advisories", "sgx/oasis-v3-swhardening", { facts: (facts) => (facts["advisories"] = ["INTEL-SA-00615"]) }, "differs"],
  ["a revocation that is not there", "tdx/qvl-v4-uptodate", { facts: (facts) => (facts["pckRevoked"] = true) }, "differs"],
  ["nothing missing", "sgx/oasis-v3-swhardening", { facts: (facts) => (facts["missingCollateral"] = []) }, "differs"],
  ["other registers of the log", "tdx/gce-cos113-quote-with-ccel", { facts: (facts) => Object.assign(facts["rtmrsFromCcel"] as object, { rtmr0: "00".repeat(48) }) }, "differs"],
  ["a reviewed case", "ek-certs/nuvoton-ecc-non-canonical-der", {}, "reviewed"],
  ["a reviewed line that is stale", "ek-certs/nuvoton-ecc-non-canonical-der", { facts: (facts) => { facts["expect"] = "reject"; delete facts["trailingBytes"] } }, "differs"], // prettier-ignore
]

for (const [what, from, change, verdict] of changes) {
  test(`runConformance() gives "${verdict}" for ${what}`, { skip }, async () => {
    const row = await judgeChanged(from, change)
    assert.equal(row.verdict, verdict, row.reason)
  })
}
