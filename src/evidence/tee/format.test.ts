import assert from "node:assert/strict"
import { test } from "node:test"
import { makeLabAuthority } from "../../../lab/devices/dcap/authority.ts"
import { encodeLabCertificate, encodeLabRevocationList, intelName, makeLabKey } from "../../../lab/devices/dcap/x509.ts"
import { encodeBase64, encodeUtf8 } from "../../bytes/text.ts"
import { parseCertificate } from "../../pki/certificate.ts"
import { parseRevocationList } from "../../pki/crl.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { encodeTeeEvidence, parseTeeEvidence } from "./format.ts"
import { maxTeeEvidenceBytes } from "./hardware.ts"
import type { TeeEvidence } from "./format.ts"
import type { SnpTeeEvidence } from "./hardware.ts"

const key = makeLabKey()
const name = intelName("x")
const dates = { notBefore: 0, notAfter: 86_400_000 }
const certificateDer = encodeLabCertificate({
  subject: name,
  issuer: name,
  key,
  issuerKey: key,
  serial: "01",
  ...dates,
  extensions: [],
  signature: "ecdsa-sha256",
})
const listDer = encodeLabRevocationList({ issuer: name, issuerKey: key, thisUpdate: 0, nextUpdate: 86_400_000, serials: [], extensions: [] })
const certificate = parseCertificate(certificateDer)
const list = parseRevocationList(listDer)

const bytes = (...values: readonly number[]): Uint8Array => Uint8Array.from(values)
const collateral = {
  tcbInfo: { document: bytes(1), issuerChain: bytes(2) },
  qeIdentity: { document: bytes(3), issuerChain: bytes(4) },
  rootCrl: bytes(5),
  pckCrl: bytes(6),
  pckChain: bytes(7),
}
const endorsements = { signer: certificate, intermediates: [certificate, certificate], revocationLists: [list] }
const snp: SnpTeeEvidence = { kind: "snp", report: bytes(8, 9), endorsements }

/** Every member that can be there, and each kind with nothing but what must be. */
const full: readonly TeeEvidence[] = [
  { kind: "sgx", quote: bytes(10, 11), collateral },
  { kind: "tdx", quote: bytes(12), collateral, eventLog: bytes(13) },
  snp,
]
const least: readonly TeeEvidence[] = [
  { kind: "sgx", quote: bytes(10, 11) },
  { kind: "tdx", quote: bytes(12) },
  { kind: "snp", report: bytes(8, 9) },
]
const text = (evidence: TeeEvidence): string => JSON.stringify(encodeTeeEvidence(evidence))

testParserLaws({
  name: "parseTeeEvidence",
  parse: parseTeeEvidence,
  samples: [...full, ...least].map((evidence) => encodeUtf8(text(evidence))),
  encode: (evidence) => encodeUtf8(text(evidence)),
})

test("parseTeeEvidence() gives back every member, and none that was not there", () => {
  for (const evidence of [...full, ...least]) assert.deepEqual(parseTeeEvidence(text(evidence)), evidence)
  for (const member of Object.keys(collateral) as (keyof typeof collateral)[]) {
    const one: TeeEvidence = { kind: "tdx", quote: bytes(1), collateral: { [member]: collateral[member] } }
    assert.deepEqual(parseTeeEvidence(text(one)), one)
  }
})

test("encodeTeeEvidence() writes this form", () => {
  assert.deepEqual(encodeTeeEvidence({ kind: "tdx", quote: bytes(1, 2), collateral: { rootCrl: bytes(3) }, eventLog: bytes(4) }), {
    perun: 1,
    kind: "tdx",
    quote: "AQI=",
    collateral: { rootCrl: "Aw==" },
    eventLog: "BA==",
  })
  assert.deepEqual(encodeTeeEvidence(snp), {
    perun: 1,
    kind: "snp",
    report: "CAk=",
    endorsements: {
      signer: encodeBase64(certificateDer),
      intermediates: [encodeBase64(certificateDer), encodeBase64(certificateDer)],
      revocationLists: [encodeBase64(listDer)],
    },
  })
})

/** The document with one member, found by path, set to another value; undefined takes it out. */
function changed(evidence: TeeEvidence, path: readonly string[], value: unknown): string {
  const copy = JSON.parse(text(evidence)) as Record<string, unknown>
  let at = copy
  for (const step of path.slice(0, -1)) at = at[step] as Record<string, unknown>
  const last = path.at(-1) ?? ""
  if (value === undefined) delete at[last]
  else at[last] = value
  return JSON.stringify(copy)
}

/** Paths of all objects in a document. */
function objectsIn(value: unknown, path: readonly string[] = []): readonly (readonly string[])[] {
  if (typeof value !== "object" || value === null) return []
  const inner = Object.entries(value).flatMap(([step, member]) => objectsIn(member, [...path, step]))
  return Array.isArray(value) ? inner : [path, ...inner]
}

for (const evidence of full) {
  test(`parseTeeEvidence() refuses unknown members anywhere in ${evidence.kind} evidence`, () => {
    const paths = objectsIn(encodeTeeEvidence(evidence))
    assert.equal(paths.length, evidence.kind === "snp" ? 2 : 4)
    for (const path of paths) {
      const unknown = changed(evidence, [...path, "extra"], "AA==")
      assert.throws(() => parseTeeEvidence(unknown), { code: "unknown-field", path: ["evidence", ...path].join(".") })
    }
  })

  test(`parseTeeEvidence() refuses a doubled member anywhere in ${evidence.kind} evidence`, () => {
    const names = text(evidence).match(/"\w+":/g) ?? []
    assert.notEqual(names.length, 0)
    for (const member of new Set(names)) {
      const doubled = text(evidence).replace(member, `${member}1,${member}`)
      assert.throws(() => parseTeeEvidence(doubled), { code: "duplicate" }, member)
    }
  })

  test(`parseTeeEvidence() refuses loose base64 and other types in ${evidence.kind} evidence`, () => {
    const document = encodeTeeEvidence(evidence) as Record<string, unknown>
    for (const member of Object.keys(document).filter((known) => !["perun", "kind"].includes(known)))
      for (const value of [null, 1, [], member === "collateral" || member === "endorsements" ? "AA==" : {}, "AA", "AA==\n", "AB==", "-_8="])
        assert.throws(() => parseTeeEvidence(changed(evidence, [member], value)), { code: "malformed" }, `${member}: ${JSON.stringify(value)}`)
  })

  test(`parseTeeEvidence() refuses ${evidence.kind} evidence without its signed part, of another version or kind`, () => {
    const signed = evidence.kind === "snp" ? "report" : "quote"
    for (const [member, value] of [
      [signed, undefined],
      ["perun", undefined],
      ["perun", 2],
      ["perun", "1"],
      ["kind", undefined],
      ["kind", "cca"],
    ] as const)
      assert.throws(() => parseTeeEvidence(changed(evidence, [member], value)), { code: "malformed" }, member)
  })
}

test("parseTeeEvidence() takes an event log with TDX only, and collateral and endorsements each with its own kind", () => {
  for (const [evidence, member, value] of [
    [full[0], "eventLog", "AA=="],
    [full[2], "eventLog", "AA=="],
    [least[0], "endorsements", {}],
    [least[1], "report", "AA=="],
    [least[2], "collateral", {}],
    [least[2], "quote", "AA=="],
  ] as const) {
    assert.ok(evidence !== undefined)
    assert.throws(() => parseTeeEvidence(changed(evidence, [member], value)), { code: "unknown-field" }, `${evidence.kind} ${member}`)
  }
})

test("parseTeeEvidence() names the byte string that is not base64", () => {
  const [, tdx] = full
  assert.ok(tdx !== undefined)
  for (const path of [
    ["quote"],
    ["eventLog"],
    ["collateral", "rootCrl"],
    ["collateral", "pckCrl"],
    ["collateral", "pckChain"],
    ["collateral", "tcbInfo", "document"],
    ["collateral", "tcbInfo", "issuerChain"],
    ["collateral", "qeIdentity", "document"],
    ["collateral", "qeIdentity", "issuerChain"],
  ])
    assert.throws(() => parseTeeEvidence(changed(tdx, path, "?")), { code: "malformed", path: ["evidence", ...path].join(".") })
  for (const path of [["report"], ["endorsements", "signer"], ["endorsements", "intermediates", "1"], ["endorsements", "revocationLists", "0"]])
    assert.throws(() => parseTeeEvidence(changed(snp, path, "?")), { code: "malformed", path: ["evidence", ...path].join(".") })
})

test("parseTeeEvidence() wants certificates and lists where they belong", () => {
  for (const [path, der] of [
    [["endorsements", "signer"], listDer],
    [["endorsements", "intermediates", "0"], listDer],
    [["endorsements", "revocationLists", "0"], certificateDer],
  ] as const)
    assert.throws(() => parseTeeEvidence(changed(snp, path, encodeBase64(der))), { name: "MalformedError" }, path.join("."))
})

/** Base64 of so many bytes; a multiple of three, so that there is no filling. */
const base64Of = (length: number): string => encodeBase64(new Uint8Array(length))

for (const [path, evidence, most] of [
  [["quote"], full[0], 32_768],
  [["quote"], full[1], 32_768],
  [["report"], snp, 32_768],
  [["eventLog"], full[1], 1_048_576],
  [["collateral", "tcbInfo", "document"], full[1], 1_048_576],
  [["collateral", "qeIdentity", "issuerChain"], full[1], 16_384],
  [["collateral", "rootCrl"], full[0], 4_194_304],
  [["collateral", "pckCrl"], full[0], 4_194_304],
  [["collateral", "pckChain"], full[0], 16_384],
] as const)
  test(`parseTeeEvidence() takes ${path.join(".")} of ${evidence?.kind ?? ""} up to ${most} bytes`, () => {
    assert.ok(evidence !== undefined)
    parseTeeEvidence(changed(evidence, path, base64Of(most)))
    assert.throws(() => parseTeeEvidence(changed(evidence, path, base64Of(most + 3))), { code: "too-large" })
  })

test("parseTeeEvidence() bounds certificates in size and number, and the whole", () => {
  for (const path of [
    ["endorsements", "signer"],
    ["endorsements", "intermediates", "0"],
  ])
    // prettier-ignore
    assert.throws(() => parseTeeEvidence(changed(snp, path, base64Of(8_195))), { code: "too-large" })
  assert.throws(() => parseTeeEvidence(changed(snp, ["endorsements", "revocationLists", "0"], base64Of(16_387))), { code: "too-large" })
  for (const [member, der] of [
    ["intermediates", certificateDer],
    ["revocationLists", listDer],
  ] as const) {
    const of = (count: number): string => changed(snp, ["endorsements", member], Array(count).fill(encodeBase64(der)))
    parseTeeEvidence(of(4))
    assert.throws(() => parseTeeEvidence(of(5)), { code: "too-large" })
  }
  assert.throws(() => parseTeeEvidence(text(snp) + " ".repeat(maxTeeEvidenceBytes)), { code: "too-large" })
})

test("a laboratory's collateral comes back as it was", () => {
  const { tdxCollateral, pckChain } = makeLabAuthority()
  const evidence: TeeEvidence = { kind: "tdx", quote: bytes(1), collateral: { ...tdxCollateral, pckChain } }
  assert.deepEqual(parseTeeEvidence(text(evidence)), evidence)
})
