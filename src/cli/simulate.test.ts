/** perun policy simulate over evidence of laboratory devices, as a child process: the manager's own judgement, without a manager. */
import assert from "node:assert/strict"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { AzureVm } from "../../lab/devices/azure-vm.testing.ts"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { labTdRequirement } from "../../lab/devices/td.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { encodeTeeEvidence } from "../evidence/tee/format.ts"
import { LaboratoryMachine } from "../manager/machine.testing.ts"
import { makeAgent, makeParts, TestStudy } from "../manager/study.testing.ts"
import { signStatement } from "../pki/statement.ts"
import { type Policy, policyDigest } from "../policy/document.ts"
import { routes } from "../protocol/routes.ts"
import { demandStatus, type Ended } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-simulate-"))
after(() => rm(base, { recursive: true, force: true }))
const write = async (name: string, content: object | string): Promise<string> => {
  const path = join(base, name)
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content))
  return path
}

const parts = await makeParts()
const study = await TestStudy.create(parts)
const policy = study.policy()
const file = await write("policy.json", policy)
const references = [await write("boot.json", parts.references.boot), await write("ima.json", parts.references.ima)].flatMap((path) => [
  "--reference",
  path,
])
const digest = await study.submit(policy)
for (const party of [parts.clinic, parts.vendor, parts.consortium]) await study.sign(digest, party)
const foreign = new LaboratoryMachine(parts.authority, "changed")
await study.enrol(await makeAgent())
await study.enrol(await makeAgent(), "host-2", foreign)
const { hosts } = await study.call(routes.listHosts, study.as(parts.clinic))
const own =
  hosts.length === 2
    ? hosts
    : [
        ...hosts,
        ...(await study.store.list("hosts"))
          .filter(({ host }) => host === "host-2")
          .map(({ host, identity, enrolledAt, retired }) => ({ host, identity, enrolledAt, retired })),
      ]
const enrolled = ["--enrolled", await write("hosts.json", { ok: true, hosts: own })]
const nonce = new Uint8Array(32).fill(7)
const good = await write("good.json", parts.machine.bundle(nonce))
const other = await write("other.json", foreign.bundle(nonce))

interface Told {
  readonly outcome: string
  readonly job: string
  readonly insecureLaboratory: boolean
  readonly findings: readonly { readonly code: string; readonly effect: string }[]
  readonly reason?: string
}

function verdicts({ stdout }: Ended): readonly Told[] {
  return (JSON.parse(stdout.split("\n")[0] ?? "") as { verdicts: readonly Told[] }).verdicts
}

async function simulated(status: number, words: readonly string[]): Promise<readonly Told[]> {
  return verdicts(await demandStatus(["policy", "simulate", ...words, "--json"], status, { PERUN_HOME: base }))
}

test("policy simulate lets in the machine that the manager would let in, and says INSECURE LABORATORY", async () => {
  const [told] = await simulated(0, [file, good, ...references, ...enrolled])
  assert.deepEqual([told?.outcome, told?.job, told?.insecureLaboratory], ["would-be-granted", "train", true])
  const { stdout } = await demandStatus(["policy", "simulate", file, good, ...references, ...enrolled], 0, { PERUN_HOME: base })
  assert.match(stdout, /would .*good\.json be let in for train, on host\? yes/)
  assert.match(stdout, /INSECURE LABORATORY/)
})

test("policy simulate says what stands against a machine: which event, which key, which reference", async () => {
  const [yes, no] = await simulated(10, [file, good, other, ...references, ...enrolled])
  assert.equal(yes?.outcome, "would-be-granted")
  const codes = no?.findings.filter(({ effect }) => effect === "refusal").map(({ code }) => code) ?? []
  assert.equal(no?.outcome, "would-be-refused")
  assert.ok(codes.includes("endorsement-key-not-listed"), codes.join())
  assert.ok(
    codes.some((code) => code.startsWith("boot-")),
    codes.join(),
  )
  const [unproved] = await simulated(10, [file, good, ...references])
  assert.deepEqual([unproved?.outcome, unproved?.findings[0]?.code], ["would-be-refused", "identity-missing"])
  const [unknown] = await simulated(10, [file, good, ...enrolled])
  assert.deepEqual([unknown?.outcome, unknown?.reason?.includes("--reference")], ["not-judged", true])
  const { stdout } = await demandStatus(["policy", "simulate", file, other, ...references, ...enrolled], 10, { PERUN_HOME: base })
  assert.match(stdout, /be let in for train, on host\? no: \d+ findings stand against it/)
})

test("policy simulate says of evidence that is not genuine that it is not, and judges the others", async () => {
  const bundle = parts.machine.bundle(nonce)
  const { signature } = bundle.tpm
  const forged = await write("forged.json", {
    ...bundle,
    tpm: { ...bundle.tpm, signature: `${signature.substring(0, 40)}${signature[40] === "A" ? "B" : "A"}${signature.substring(41)}` },
  })
  const [no, yes] = await simulated(10, [file, forged, good, ...references, ...enrolled])
  assert.deepEqual([no?.outcome, no?.reason?.includes("[wrong-signature]"), yes?.outcome], ["not-genuine", true, "would-be-granted"])
})

test("policy simulate judges by the time given, and only jobs of the policy", async () => {
  await demandStatus(["policy", "simulate", file, good, ...references, ...enrolled, "--at", "2028-01-01T00:00:00Z"], 10, { PERUN_HOME: base })
  await demandStatus(["policy", "simulate", file, good, "--job", "serve"], 2, { PERUN_HOME: base })
  await demandStatus(["policy", "simulate", file, good, "--at", "soon"], 2, { PERUN_HOME: base })
})

test("policy simulate says whether the policy would be active with these signatures, and whose are missing", async () => {
  const signatures = []
  for (const party of [parts.clinic, parts.vendor, parts.consortium])
    signatures.push(await write(`${party.name}.json`, signStatement("policy", policyDigest(policy), party.privateKey)))
  const words = (list: readonly string[]): readonly string[] => [
    file,
    good,
    ...references,
    ...enrolled,
    ...list.flatMap((path) => ["--approval", path]),
  ]
  await simulated(0, words(signatures))
  const { stdout } = await demandStatus(["policy", "simulate", ...words(signatures.slice(0, 2))], 10, { PERUN_HOME: base })
  assert.match(stdout, /missing: consortium/)
})

test("policy simulate holds a TEE against the alternatives of an enclave machine", async () => {
  const authority = makeLabAuthority({ keys: makeLabKeys(), time: Date.now() })
  const quote = makeTdxQuote(authority, new Uint8Array(64), { version: 5, body: "1.5" })
  const evidence = await write("td.json", encodeTeeEvidence({ kind: "tdx", quote, collateral: authority.tdxCollateral }))
  const rtmrs = { "0": "any", "1": "any", "2": "any", "3": "any" } as const
  const demanded = labTdRequirement({ runtime: "4d".repeat(48), source: "", packages: "" }, authority.root)
  const tdx = { ...demanded, rtmrs, mrTd: ["4d".repeat(48)] } as const
  const enclave = (demand: typeof tdx): Policy => ({ ...policy, machines: { host: { level: "enclave", accept: [{ tdx: demand }], guest: "none" } } })
  const [yes] = await simulated(0, [await write("td-policy.json", enclave(tdx)), evidence])
  assert.deepEqual([yes?.outcome, yes?.insecureLaboratory], ["would-be-granted", true])
  const [no] = await simulated(10, [await write("td-other.json", enclave({ ...tdx, mrTd: ["ab".repeat(48)] })), evidence])
  assert.equal(no?.outcome, "would-be-refused")
  const [wrong] = await simulated(10, [file, evidence, ...references])
  assert.ok(wrong?.reason?.includes("[surplus-piece]"))
})

test("policy simulate judges a confidential VM of Azure by its registers, over a session's digest only", async () => {
  const vm = new AzureVm(makeLabAuthority({ keys: makeLabKeys(), time: Date.now() }))
  const azure = vm.requirement
  const enclave = (demand: typeof azure): Policy => ({
    ...policy,
    machines: { host: { level: "enclave", accept: [{ azure: demand }], guest: "none" } },
  })
  const file = await write("azure-policy.json", enclave(azure))
  const evidence = await write("azure.json", encodeTeeEvidence(vm.evidence(sessionReportData(new Uint8Array(32).fill(9)))))
  const [yes] = await simulated(0, [file, evidence])
  assert.deepEqual([yes?.outcome, yes?.insecureLaboratory], ["would-be-granted", true])
  const pcr4 = { ...azure, pcrs: { ...azure.pcrs, "4": ["ab".repeat(32)] } }
  const [no] = await simulated(10, [await write("azure-other.json", enclave(pcr4)), evidence])
  assert.deepEqual(
    no?.findings.flatMap(({ code, effect }) => (effect === "refusal" ? [code] : [])),
    ["tee-measurement-differs"],
  )
  const loose = await write("azure-loose.json", encodeTeeEvidence(vm.evidence(new Uint8Array(64), { extraData: new Uint8Array(20) })))
  const [unbound] = await simulated(10, [file, loose])
  assert.ok(unbound?.findings.some(({ code }) => code === "tee-not-bound"))
})
