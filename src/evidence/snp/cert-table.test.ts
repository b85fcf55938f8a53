import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { AmdAuthority } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import { encodeUtf8, parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { parseRevocationList } from "../../pki/crl.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { parseSnpCertTable } from "./cert-table.ts"

// Nothing here verifies: small keys do.
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const device = new SnpDevice(new AmdAuthority("Milan", { ark: rsa, ask: rsa, asvk: rsa }))
const { authority } = device
const guids = {
  vcek: "63da758de6644564adc5f4b93be8accd",
  vlek: "a8074bc2a25a483eaae639c045a0b8a1",
  ask: "4ab7b379bbac4fe4a02f05aef327c782",
  ark: "c0b406a4a803495297433fb6014cd0ae",
  crl: "92f81bc358114d3d97ffd19f88dc67ea",
  other: "ecae0c0f950243b1afa20ae2e0d565b6",
} as const

function tableOf(entries: readonly (readonly [guid: string, bytes: Uint8Array])[]): Uint8Array {
  const writer = new ByteWriter()
  let offset = 24 * (entries.length + 1)
  for (const [guid, bytes] of entries) {
    writer.bytes(parseHex(guid)).u32le(offset).u32le(bytes.length)
    offset += bytes.length
  }
  writer.bytes(new Uint8Array(24))
  for (const [, bytes] of entries) writer.bytes(bytes)
  return writer.take()
}

const vcek = device.endorsements().signer.der
const vlek = device.endorsements("vlek").signer.der
const crl = authority.revocationList()
const full = tableOf([
  [guids.vcek, vcek],
  [guids.ask, authority.ask],
  [guids.vlek, vlek],
  [guids.other, Uint8Array.of(1, 2)],
  [guids.ark, authority.ark],
  [guids.crl, crl],
])

test("parseSnpCertTable() gives every entry by its kind, and names those it does not know", () => {
  const table = parseSnpCertTable(full)
  assert.deepEqual(table.signers.vcek?.der, vcek)
  assert.deepEqual(table.signers.vlek?.der, vlek)
  assert.deepEqual(table.intermediates.map(({ der }) => der), [authority.ask, authority.ark]) // prettier-ignore
  assert.deepEqual(table.revocationLists, [parseRevocationList(crl)])
  assert.deepEqual(table.unknown, [guids.other])
})

test("parseSnpCertTable() takes an empty table, padding behind, and certificates in PEM", () => {
  assert.deepEqual(parseSnpCertTable(new Uint8Array(4096)), { signers: {}, intermediates: [], revocationLists: [], unknown: [] })
  const pem = `-----BEGIN CERTIFICATE-----\n${Buffer.from(vcek).toString("base64")}\n-----END CERTIFICATE-----\n`
  assert.deepEqual(parseSnpCertTable(tableOf([[guids.vcek, encodeUtf8(pem)]])).signers.vcek?.der, vcek)
})

test("parseSnpCertTable() refuses doubled entries, ranges outside the table, and too many or too much", () => {
  assert.throws(() => parseSnpCertTable(tableOf([[guids.vcek, vcek], [guids.vcek, vcek]])), { code: "duplicate" }) // prettier-ignore
  const outside = new ByteWriter().bytes(parseHex(guids.vcek)).u32le(48).u32le(1).bytes(new Uint8Array(24)).take()
  assert.throws(() => parseSnpCertTable(outside), { code: "truncated" })
  const far = new ByteWriter().bytes(parseHex(guids.vcek)).u32le(0xffffffff).u32le(1).bytes(new Uint8Array(24)).take()
  assert.throws(() => parseSnpCertTable(far), { code: "truncated" })
  const many = (count: number): Uint8Array => tableOf(Array.from({ length: count }, (_, place) => [`ff${place.toString(16).padStart(2, "0")}${"00".repeat(14)}`, new Uint8Array(0)] as const)) // prettier-ignore
  assert.equal(parseSnpCertTable(many(16)).unknown.length, 16)
  assert.throws(() => parseSnpCertTable(many(17)), { code: "too-large" })
  parseSnpCertTable(new Uint8Array(65_536))
  assert.throws(() => parseSnpCertTable(new Uint8Array(65_537)), { code: "too-large" })
})

testParserLaws({ name: "parseSnpCertTable", parse: parseSnpCertTable, samples: [full], refusesTrailing: false, fuzzRuns: 2000 })
