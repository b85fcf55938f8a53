/** Drives perun evidence verify over evidence of TEEs, as a child process. */
import assert from "node:assert/strict"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeSgxQuote, makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { labTdRequirement } from "../../lab/devices/td.ts"
import { encodeDcapCollateral } from "../evidence/dcap/endorsements.ts"
import { encodeChain } from "../evidence/dcap/certificates.ts"
import { encodeTeeEvidence } from "../evidence/tee/format.ts"
import { policy as fixture } from "../policy/fixtures.testing.ts"
import { demandStatus, type Ended, lastEvent } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-tee-"))
after(() => rm(base, { recursive: true, force: true }))
const authority = makeLabAuthority({ keys: makeLabKeys(), time: Date.now() })
const reportData = new Uint8Array(64).fill(0x21, 0, 32)
const nonce = "21".repeat(32)
const write = async (name: string, content: Uint8Array | string): Promise<string> => {
  const path = join(base, name)
  await writeFile(path, content)
  return path
}
const root = await write("root.pem", encodeChain([authority.root.certificate.der]))
const collateral = await write("collateral.json", encodeDcapCollateral(authority.tdxCollateral))
const quote = makeTdxQuote(authority, reportData, { version: 5, body: "1.5" })
const raw = await write("quote", quote)
const json = await write("evidence.json", JSON.stringify(encodeTeeEvidence({ kind: "tdx", quote, collateral: authority.tdxCollateral })))

async function verify(status: number, ...words: readonly string[]): Promise<Ended> {
  return demandStatus(["evidence", "verify", ...words, "--laboratory-root", root], status, {})
}

test("evidence verify takes a raw quote with its collateral, our JSON, and a folder as other tools leave it", async () => {
  const folder = join(base, "folder")
  await mkdir(folder)
  const { tcbInfo, qeIdentity, rootCrl, pckCrl } = authority.tdxCollateral
  for (const [name, content] of Object.entries({
    "quote.bin": quote,
    "tcb_info.json": tcbInfo.document,
    "tcb_info_issuer_chain.pem": tcbInfo.issuerChain,
    "qe_identity.json": qeIdentity.document,
    "qe_identity_issuer_chain.pem": qeIdentity.issuerChain,
    "root_ca_crl.der": rootCrl,
    "pck_crl.der": pckCrl,
  }))
    await writeFile(join(folder, name), content)
  for (const words of [[raw, "--collateral", collateral], [json], [folder]]) {
    const { stdout } = await verify(0, ...words, "--nonce", nonce)
    assert.match(stdout, /^INSECURE LABORATORY/m)
    assert.match(stdout, /MRTD 4d4d/)
    assert.match(stdout, /UpToDate/)
  }
})

test("evidence verify --json tells claims, what is proved and until when", async () => {
  const event = lastEvent((await verify(0, json, "--nonce", nonce, "--json")).stdout)
  assert.deepEqual([event["ok"], event["kind"], event["fresh"], event["insecureLaboratory"], event["faults"]], [true, "tdx", true, true, []])
  assert.ok(typeof event["validUntil"] === "string" && Date.parse(event["validUntil"]) > Date.now())
})

test("evidence verify refuses another question, another root, a changed bit, debugging and missing collateral with status 10", async () => {
  await verify(10, json, "--nonce", "22".repeat(32))
  await demandStatus(["evidence", "verify", json, "--nonce", nonce], 10, {})
  const changed = quote.map((byte, at) => (at === 200 ? byte ^ 1 : byte))
  await verify(10, await write("changed", changed), "--collateral", collateral, "--nonce", nonce)
  const debug = makeTdxQuote(authority, reportData, { report: { tdAttributes: "0100001000000000" } })
  const { stderr } = await verify(10, await write("debug", debug), "--collateral", collateral, "--nonce", nonce)
  assert.match(stderr, /debugging is on/)
  assert.match((await verify(10, raw, "--nonce", nonce)).stderr, /not given: TCB info, QE identity, root CA CRL, PCK CRL/)
  await verify(10, json, "--nonce", nonce, "--at", "2027-12-31T00:00:00Z")
})

test("evidence verify holds a TEE against a policy's demands", async () => {
  const requirement = labTdRequirement({ runtime: "4d".repeat(48), source: "", packages: "" }, authority.root)
  const rtmrs = { "0": "any", "1": "any", "2": "any", "3": "any" } as const
  const policyOf = async (name: string, mrTd: string): Promise<string> =>
    write(`${name}.json`, JSON.stringify({ ...fixture, manager: { accept: [{ tdx: { ...requirement, mrTd: [mrTd], rtmrs } }] } }))
  const good = await policyOf("good", "4d".repeat(48))
  assert.match((await verify(0, json, "--nonce", nonce, "--policy", good)).stdout, /acceptable/)
  const { stdout } = await verify(10, json, "--nonce", nonce, "--policy", await policyOf("other", "4e".repeat(48)))
  assert.match(stdout, /tee-measurement-differs MRTD: found 4d/)
})

test("evidence verify takes no option that it would not look at", async () => {
  const policy = await write("any.json", JSON.stringify(fixture))
  const host = await write("host.json", '{"perun":1,"tpm":{}}')
  assert.match((await verify(2, host, "--nonce", nonce, "--policy", policy)).stderr, /--policy is for evidence of a TEE/)
  assert.match((await verify(2, host, "--nonce", nonce, "--collateral", collateral)).stderr, /--collateral is for evidence of a TEE/)
  assert.match((await verify(2, json, "--nonce", nonce, "--enrolled", policy)).stderr, /--enrolled is for evidence of a host/)
  await verify(2, json, "--nonce", nonce, "--policy", policy)
})

test("evidence verify warns of a platform that is out of date", async () => {
  const older = makeLabAuthority({
    keys: makeLabKeys(),
    time: Date.now(),
    tdxTcbInfo: (good) => JSON.parse(JSON.stringify(good).replaceAll('"UpToDate"', '"OutOfDate"')) as typeof good,
  })
  const quoted = makeTdxQuote(older, reportData, { version: 5, body: "1.5" })
  const path = await write("older.json", JSON.stringify(encodeTeeEvidence({ kind: "tdx", quote: quoted, collateral: older.tdxCollateral })))
  const olderRoot = await write("older.pem", encodeChain([older.root.certificate.der]))
  const { stdout } = await demandStatus(["evidence", "verify", path, "--nonce", nonce, "--laboratory-root", olderRoot], 0, {})
  assert.match(stdout, /the platform is not at the level/)
})

test("evidence verify reads SGX quotes too", async () => {
  const sgx = await write("sgx.bin", makeSgxQuote(authority, reportData))
  const bundle = await write("sgx.json", encodeDcapCollateral(authority.sgxCollateral))
  assert.match((await verify(0, sgx, "--collateral", bundle, "--nonce", nonce)).stdout, /MRENCLAVE e1e1/)
})

test("evidence verify says in one line what it cannot read", async () => {
  await verify(2, json)
  await verify(2, json, "--nonce", "21")
  await verify(30, await write("cut", quote.subarray(0, 500)), "--nonce", nonce)
  await verify(30, await write("bad.json", '{"perun":1,"kind":"tdx","quote":"AA==","more":1}'), "--nonce", nonce)
  await verify(
    20,
    await write(
      "version",
      Uint8Array.from(quote, (byte, at) => (at === 0 ? 9 : byte)),
    ),
    "--nonce",
    nonce,
  )
  await verify(40, json, "--nonce", nonce, "--collateral", join(base, "none.json"))
})
