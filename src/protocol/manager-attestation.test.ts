import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { createServer } from "node:https"
import type { AddressInfo } from "node:net"
import { after, test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { labTdRequirement, startLabTd, tdRegisters } from "../../lab/devices/td.ts"
import { digestOf } from "../bytes/digest.ts"
import { encodeBase64, encodeHex } from "../bytes/text.ts"
import { sessionDigest } from "../evidence/bundle.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { collectGuestAgentQuote } from "../evidence/tee/collectors/guest-agent.ts"
import { decodeTeeEvidence, encodeTeeEvidence } from "../evidence/tee/format.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { demandManagerOf, type ManagerAttestation, managerReportData, verifyManagerAttestation } from "./manager-attestation.ts"
import { connectAsStakeholder, verifyManager } from "./manager-connection.ts"
import { signManagerDescription } from "./manager-description.ts"
import type { ManagerDescription } from "./messages.ts"
import { createTlsIdentity } from "./tls.ts"

const authority = makeLabAuthority({ keys: makeLabKeys(), time: Date.now() })
const measure = (letter: string) => ({ runtime: letter.repeat(96), source: "b".repeat(96), packages: "c".repeat(96) })
const program = measure("a")
const requirement = labTdRequirement(program, authority.root)
const accept: readonly TeeRequirement[] = [{ tdx: requirement }]
const { privateKey } = generateKeyPairSync("ed25519")
const key = sshPublicKeyText(privateKey)
const tls = createTlsIdentity("manager")
const nonce = "17".repeat(32)
const description: ManagerDescription = {
  perun: 1,
  instance: "1".repeat(32),
  key,
  tlsKey: tls.tlsKey,
  depositKey: encodeBase64(new Uint8Array(1216)),
  logKey: key,
  resultKey: "AAAA",
  configuration: digestOf(new Uint8Array(1)),
  vault: { kind: "key-file" },
  evidence: "tdx",
  time: null,
}
const expectation = { accept, nonce, peerTlsKey: tls.tlsKey, time: Date.now() }

function quoteOver(reportData: Uint8Array, of = program): Uint8Array {
  const { mrTd, rtmrs } = tdRegisters(of)
  const one = (values: "any" | readonly string[]): string => (values === "any" ? "" : (values[0] ?? ""))
  const report = { mrTd: one(mrTd), rtmrs: [one(rtmrs[0]), one(rtmrs[1]), one(rtmrs[2]), one(rtmrs[3])] as [string, string, string, string] }
  return makeTdxQuote(authority, reportData, { version: 5, body: "1.5", report })
}

interface Changes {
  readonly reportData?: Uint8Array
  readonly shown?: ManagerDescription
  readonly program?: typeof program
  readonly collateral?: typeof authority.tdxCollateral | undefined
}

function attestation(changes: Changes = {}): ManagerAttestation {
  const quote = quoteOver(changes.reportData ?? managerReportData(description, nonce), changes.program)
  const collateral = "collateral" in changes ? changes.collateral : authority.tdxCollateral
  return {
    perun: 1,
    manager: signManagerDescription(changes.shown ?? description, privateKey),
    evidence: encodeTeeEvidence({ kind: "tdx", quote, ...(collateral === undefined ? {} : { collateral }) }),
  }
}

test("verifyManagerAttestation() accepts a manager whose TEE covers everything that it says", () => {
  const { description: found, accepted } = verifyManagerAttestation(attestation(), expectation)
  assert.deepEqual(found, description)
  assert.deepEqual([accepted.kind, accepted.insecureLaboratory], ["tdx", true])
})

const otherKey = sshPublicKeyText(generateKeyPairSync("ed25519").privateKey)
const changed = {
  instance: "2".repeat(32),
  depositKey: encodeBase64(new Uint8Array(1216).fill(1)),
  logKey: otherKey,
  configuration: digestOf(new Uint8Array(2)),
  vault: { kind: "tpm" },
  evidence: "snp",
  time: { roots: [digestOf(new Uint8Array(3))], maxDifferenceSeconds: 60, holdSeconds: 3600 },
} as const satisfies Partial<ManagerDescription>
for (const [field, value] of Object.entries(changed))
  test(`verifyManagerAttestation() refuses a ${field} that the evidence does not cover`, () => {
    const shown = { ...description, [field]: value } as ManagerDescription
    assert.throws(() => verifyManagerAttestation(attestation({ shown }), expectation), { code: "wrong-nonce" })
  })

test("verifyManagerAttestation() refuses a result key that the evidence does not cover", () => {
  const shown = { ...description, resultKey: "AAAB" }
  assert.throws(() => verifyManagerAttestation(attestation({ shown }), expectation), { code: "wrong-nonce" })
})

test("verifyManagerAttestation() refuses another identity key, even one that signs for itself", () => {
  const thief = generateKeyPairSync("ed25519").privateKey
  const shown = { ...description, key: sshPublicKeyText(thief) }
  const stolen = { ...attestation(), manager: signManagerDescription(shown, thief) }
  assert.throws(() => verifyManagerAttestation(stolen, expectation), { code: "wrong-nonce" })
  assert.throws(() => verifyManagerAttestation({ ...stolen, manager: signManagerDescription(shown, privateKey) }, expectation), {
    code: "wrong-manager",
  })
})

test("verifyManagerAttestation() refuses a TLS key that the evidence does not cover, and a connection that ends elsewhere", () => {
  const { tlsKey } = createTlsIdentity("thief")
  const relayed = attestation({ shown: { ...description, tlsKey } })
  assert.throws(() => verifyManagerAttestation(relayed, { ...expectation, peerTlsKey: tlsKey }), { code: "wrong-nonce" })
  assert.throws(() => verifyManagerAttestation(attestation(), { ...expectation, peerTlsKey: tlsKey }), { code: "wrong-tls-key" })
})

test("verifyManagerAttestation() refuses evidence over another nonce, or of another purpose", () => {
  assert.throws(() => verifyManagerAttestation(attestation(), { ...expectation, nonce: "18".repeat(32) }), { code: "wrong-nonce" })
  // A machine's claim over facts that look alike is no proof of a manager.
  const session = { purpose: "claim", version: 1, manager: description.instance, nonce, hpkeKey: description.depositKey } as const
  const rest = { tlsKey: tls.tlsKey, akName: "", deviceEvidence: [], policy: null, job: null, run: null, lease: null } as const
  const claim = attestation({ reportData: sessionReportData(sessionDigest({ ...session, ...rest })) })
  assert.throws(() => verifyManagerAttestation(claim, expectation), { code: "wrong-nonce" })
})

test("verifyManagerAttestation() tells what differs of a genuine manager that is not accepted", () => {
  const other = attestation({ program: measure("d") })
  assert.throws(() => verifyManagerAttestation(other, expectation), { code: "wrong-manager", message: /MRTD: found d{96}, expected a{96}/ })
  assert.throws(() => verifyManagerAttestation(attestation({ collateral: undefined }), expectation), {
    code: "wrong-manager",
    message: /tee-collateral-missing/,
  })
  assert.throws(() => verifyManagerAttestation(attestation(), { ...expectation, accept: [{ tdx: { ...requirement, laboratoryRoots: [] } }] }), {
    code: "wrong-chain",
  })
  assert.throws(() => verifyManagerAttestation(attestation(), { ...expectation, time: Date.now() + 90 * 86_400_000 }), { code: "expired" })
})

test("demandManagerOf() wants proof where the policy does, and the policy's own demands", () => {
  const { tee } = verifyManagerAttestation(attestation(), expectation)
  demandManagerOf({ accept }, { description, tee })
  assert.throws(() => demandManagerOf({ accept }, { description }), { code: "wrong-manager" })
  assert.throws(() => demandManagerOf({ accept: [{ tdx: { ...requirement, mrTd: ["e".repeat(96)] } }] }, { description, tee }), {
    code: "wrong-manager",
  })
  demandManagerOf({ insecureUnattested: { key } }, { description })
  assert.throws(() => demandManagerOf({ insecureUnattested: { key: otherKey } }, { description, tee }), { code: "wrong-manager" })
})

test("demandManagerOf() wants a clock that is checked where the policy does", () => {
  const {
    tee,
    description: { vault },
  } = verifyManagerAttestation(attestation(), expectation)
  const time = { roots: [digestOf(new Uint8Array(3))], maxDifferenceSeconds: 60, holdSeconds: 3600 }
  demandManagerOf({ accept, time }, { description: { key, time, vault }, tee })
  for (const found of [null, { ...time, roots: [digestOf(new Uint8Array(4))] }, { ...time, holdSeconds: 7200 }])
    assert.throws(() => demandManagerOf({ accept, time }, { description: { key, time: found, vault }, tee }), {
      code: "wrong-manager",
      path: "manager.time",
    })
  demandManagerOf({ accept }, { description: { key, time, vault }, tee })
  // The evidence counts all the same.
  assert.throws(() => demandManagerOf({ accept, time }, { description: { key, time, vault } }), { code: "wrong-manager", path: "" })
})

test("demandManagerOf() wants a vault of a kind that the policy names", () => {
  const { tee } = verifyManagerAttestation(attestation(), expectation)
  const vault = ["tpm", "tee-sealing"] as const
  const known = (found: ManagerDescription["vault"]) => ({ description: { key, time: null, vault: found }, tee })
  demandManagerOf({ accept, vault }, known({ kind: "tpm" }))
  demandManagerOf({ accept }, known({ kind: "key-file" }))
  for (const found of [{ kind: "key-file" }, { kind: "tee-sealing", to: "mrsigner" }] as const)
    assert.throws(() => demandManagerOf({ accept, vault }, known(found)), { code: "wrong-manager", path: "manager.vault" })
})

// A server that says what it is told and writes down what it is asked.
const asked: string[] = []
let answer: (nonce: string) => unknown = () => ({})
const server = createServer(
  { key: tls.privateKeyPem, cert: tls.certificatePem, requestCert: true, rejectUnauthorized: false },
  (request, response) => {
    const url = new URL(request.url ?? "/", "https://manager")
    asked.push(`${request.method} ${url.pathname}`)
    response.setHeader("content-type", "application/json")
    response.end(JSON.stringify(answer(url.searchParams.get("nonce") ?? "")))
  },
)
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
after(() => {
  server.closeAllConnections()
  server.close()
})
const url = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`)
const now = new Date()
const client = generateKeyPairSync("ed25519").privateKey

test("connectAsStakeholder() sends nothing but the question to a manager that fails its proof", async () => {
  const lies: readonly (() => unknown)[] = [
    () => attestation(),
    () => ({ ...attestation(), evidence: undefined }),
    () => ({ ...attestation(), more: 1 }),
    () => ({}),
  ]
  for (const lie of lies) {
    asked.length = 0
    answer = lie
    await assert.rejects(connectAsStakeholder(url, { accept }, client, { now }), { name: /^(Evidence|Malformed|Protocol)Error$/ })
    assert.deepEqual(asked, ["GET /v1/attestation"])
  }
})

test("verifyManager() draws a nonce for every connection, and holds a pinned key against the proof", async () => {
  const nonces = new Set<string>()
  answer = (fresh) => {
    nonces.add(fresh)
    return attestation({ reportData: managerReportData(description, fresh) })
  }
  const identity = createTlsIdentity("client")
  const manager = await verifyManager(url, { accept }, identity, { now })
  assert.equal(manager.accepted?.kind, "tdx")
  await verifyManager(url, { key, accept }, identity, { now })
  assert.equal(nonces.size, 2)
  await assert.rejects(verifyManager(url, { key: otherKey, accept }, identity, { now }), { code: "wrong-manager" })
})

test("collectGuestAgentQuote() gets a quote of the laboratory's TD, and refuses what is none", async () => {
  await using td = await startLabTd(program)
  const reportData = new Uint8Array(64).fill(7)
  const { quote, eventLog } = await collectGuestAgentQuote(td.url, reportData)
  assert.equal(eventLog, undefined)
  const evidence = decodeTeeEvidence(encodeTeeEvidence({ kind: "tdx", quote, collateral: td.authority.tdxCollateral }))
  assert.ok(evidence.kind === "tdx" && encodeHex(evidence.quote) === encodeHex(quote))
  await assert.rejects(collectGuestAgentQuote("http://127.0.0.1:9", reportData), { code: "unavailable" })
  await assert.rejects(collectGuestAgentQuote("unix:/no/such/socket", reportData), { code: "unavailable" })
})
