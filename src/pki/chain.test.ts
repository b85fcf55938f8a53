import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import {
  authorityKeyIdOf,
  basicConstraintsOf,
  keyUsageOf,
  makeCertificate,
  makeKeyPair,
  makeRevocationList,
  purposesOf,
  subjectKeyIdOf,
} from "./authority.testing.ts"
import type { CertificateInput, ExtensionInput } from "./authority.testing.ts"
import { parseCertificate } from "./certificate.ts"
import type { Certificate } from "./certificate.ts"
import { describeName, verifyChain } from "./chain.ts"
import type { ChainInput } from "./chain.ts"
import { parseRevocationList } from "./crl.ts"

const purpose = "2.23.133.8.1"
const time = Date.parse("2025-01-01T00:00:00Z")
const keys = { root: makeKeyPair(), middle: makeKeyPair(), leaf: makeKeyPair(), other: makeKeyPair() }
const ca = [basicConstraintsOf(true), keyUsageOf(0x06)]

function certificate(input: CertificateInput): Certificate {
  return parseCertificate(makeCertificate(input))
}

const rootInput: CertificateInput = { subject: "root", issuer: "root", key: keys.root, issuerKey: keys.root, extensions: ca }
const middleInput: CertificateInput = { subject: "middle", issuer: "root", key: keys.middle, issuerKey: keys.root, serial: 2, extensions: ca }
const leafInput: CertificateInput = {
  subject: "leaf",
  issuer: "middle",
  key: keys.leaf,
  issuerKey: keys.middle,
  serial: 3,
  extensions: [purposesOf(false, purpose)],
}
const root = certificate(rootInput)
const middle = certificate(middleInput)
const leaf = certificate(leafInput)
const good: ChainInput = { leaf, intermediates: [middle], roots: [root], time, extendedKeyUsage: purpose }

function names(input: ChainInput): readonly string[] {
  return verifyChain(input).map(({ subject }) => describeName(subject))
}

function withMiddle(change: Partial<CertificateInput>): ChainInput {
  return { ...good, intermediates: [certificate({ ...middleInput, ...change })] }
}

function withLeaf(change: Partial<CertificateInput>): ChainInput {
  return { ...good, leaf: certificate({ ...leafInput, ...change }) }
}

function refuses(input: ChainInput, code: string): void {
  assert.throws(() => verifyChain(input), { name: "PkiError", code })
}

test("verifyChain() gives the chain from leaf to root, whatever else is offered and in whatever order", () => {
  const stranger = certificate({ ...rootInput, subject: "stranger", issuer: "stranger" })
  assert.deepEqual(names(good), ['"leaf"', '"middle"', '"root"'])
  assert.deepEqual(names({ ...good, intermediates: [stranger, root, middle], roots: [stranger, root] }), ['"leaf"', '"middle"', '"root"'])
  assert.deepEqual(names({ ...good, roots: [middle], intermediates: [] }), ['"leaf"', '"middle"'])
})

test("verifyChain() refuses a missing intermediate, a missing root and a root that is only offered", () => {
  refuses({ ...good, intermediates: [] }, "wrong-chain")
  refuses({ ...good, roots: [] }, "wrong-chain")
  refuses({ ...good, roots: [], intermediates: [middle, root] }, "wrong-chain")
  refuses({ ...good, roots: [certificate({ ...rootInput, serial: 9, key: keys.other, issuerKey: keys.other })] }, "wrong-signature")
  refuses({ ...good, leaf: root, extendedKeyUsage: purpose }, "wrong-chain")
})

test("verifyChain() refuses a signature by another key under the same name", () => {
  refuses(withLeaf({ issuerKey: keys.other }), "wrong-signature")
  refuses(withMiddle({ issuerKey: keys.other }), "wrong-signature")
})

test("verifyChain() finds its way past a namesake with another key", () => {
  const namesake = certificate({ ...middleInput, key: keys.other })
  assert.equal(verifyChain({ ...good, intermediates: [namesake, middle] }).length, 3)
})

test("verifyChain() gives the reason of the way that came furthest", () => {
  const late = certificate({ ...middleInput, notAfter: "2021-01-01T00:00:00Z" })
  const namesake = certificate({ ...middleInput, key: keys.other })
  refuses({ ...good, intermediates: [namesake, late] }, "expired")
})

test("verifyChain() keeps apart what key identifiers keep apart", () => {
  const named = certificate({ ...leafInput, extensions: [...(leafInput.extensions ?? []), authorityKeyIdOf("0102")] })
  const input = { ...good, leaf: named }
  assert.equal(verifyChain(input).length, 3)
  assert.equal(verifyChain({ ...input, intermediates: [certificate({ ...middleInput, extensions: [...ca, subjectKeyIdOf("0102")] })] }).length, 3)
  refuses({ ...input, intermediates: [certificate({ ...middleInput, extensions: [...ca, subjectKeyIdOf("0103")] })] }, "wrong-chain")
})

for (const [what, make] of [
  ["leaf", withLeaf],
  ["intermediate", withMiddle],
  ["root", (change: Partial<CertificateInput>) => ({ ...good, roots: [certificate({ ...rootInput, ...change })] })],
] as const) {
  test(`verifyChain() judges the dates of the ${what}`, () => {
    const [notBefore, notAfter] = ["2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"]
    assert.equal(verifyChain(make({ notBefore, notAfter })).length, 3)
    refuses(make({ notBefore: "2025-01-01T00:00:01Z" }), "expired")
    refuses(make({ notAfter: "2024-12-31T23:59:59Z" }), "expired")
  })
}

test("verifyChain() wants every issuer to be an authority that may sign certificates", () => {
  refuses(withMiddle({ extensions: [keyUsageOf(0x04)] }), "wrong-certificate")
  refuses(withMiddle({ extensions: [basicConstraintsOf(false), keyUsageOf(0x04)] }), "wrong-certificate")
  refuses(withMiddle({ extensions: [basicConstraintsOf(true), keyUsageOf(0x82)] }), "wrong-certificate")
  refuses({ ...good, roots: [certificate({ ...rootInput, version: undefined, extensions: undefined })] }, "wrong-certificate")
  assert.equal(verifyChain(withMiddle({ extensions: [basicConstraintsOf(true)] })).length, 3)
})

test("verifyChain() holds path lengths", () => {
  const lower: CertificateInput = { ...middleInput, subject: "lower", issuer: "middle", key: keys.other, issuerKey: keys.middle }
  const long = { ...withLeaf({ issuer: "lower", issuerKey: keys.other }), intermediates: [middle, certificate(lower)] }
  const limited = (pathLength: number): ChainInput => ({
    ...long,
    roots: [certificate({ ...rootInput, extensions: [basicConstraintsOf(true, pathLength), keyUsageOf(0x04)] })],
  })
  assert.equal(verifyChain(limited(2)).length, 4)
  refuses(limited(1), "wrong-certificate")
  refuses(limited(0), "wrong-certificate")
  assert.equal(verifyChain(withMiddle({ extensions: [basicConstraintsOf(true, 0), keyUsageOf(0x04)] })).length, 3)
})

test("verifyChain() does not count self-issued intermediates", () => {
  const renewed = certificate({ ...rootInput, key: keys.other, issuerKey: keys.root, serial: 7 })
  const limitedRoot = certificate({ ...rootInput, extensions: [basicConstraintsOf(true, 0), keyUsageOf(0x04)] })
  const direct = certificate({ ...leafInput, issuer: "root", issuerKey: keys.other })
  assert.equal(verifyChain({ ...good, leaf: direct, intermediates: [renewed], roots: [limitedRoot] }).length, 3)
})

test("verifyChain() refuses critical extensions that nobody handles", () => {
  const unknown: ExtensionInput = { oid: "1.2.3", critical: true, value: new Uint8Array(0) }
  const policies: ExtensionInput = { ...unknown, oid: "2.5.29.32" }
  refuses(withMiddle({ extensions: [...ca, unknown] }), "wrong-certificate")
  const leafWith = withLeaf({ extensions: [purposesOf(false, purpose), unknown] })
  refuses(leafWith, "wrong-certificate")
  assert.equal(verifyChain({ ...leafWith, handledExtensions: ["1.2.3"] }).length, 3)
  refuses({ ...withMiddle({ extensions: [...ca, unknown] }), handledExtensions: ["1.2.3"] }, "wrong-certificate")
  assert.equal(verifyChain(withMiddle({ extensions: [...ca, policies] })).length, 3)
  refuses(withLeaf({ extensions: [purposesOf(false, purpose), policies] }), "wrong-certificate")
  assert.equal(verifyChain(withMiddle({ extensions: [...ca, { ...unknown, critical: false }] })).length, 3)
})

test("verifyChain() wants the purpose in the leaf and not excluded above", () => {
  refuses(withLeaf({ extensions: [] }), "wrong-certificate")
  refuses(withLeaf({ extensions: [purposesOf(false, "1.2.3")] }), "wrong-certificate")
  refuses(withLeaf({ extensions: [purposesOf(false, "2.5.29.37.0")] }), "wrong-certificate")
  refuses(withMiddle({ extensions: [...ca, purposesOf(false, "1.2.3")] }), "wrong-certificate")
  assert.equal(verifyChain(withMiddle({ extensions: [...ca, purposesOf(true, "1.2.3", purpose)] })).length, 3)
  assert.equal(verifyChain(withMiddle({ extensions: [...ca, purposesOf(true, "2.5.29.37.0")] })).length, 3)
})

test("verifyChain() without a purpose refuses a critical one", () => {
  const { extendedKeyUsage: _, ...open } = good
  assert.equal(verifyChain(open).length, 3)
  refuses({ ...open, leaf: withLeaf({ extensions: [purposesOf(true, purpose)] }).leaf }, "wrong-certificate")
})

test("verifyChain() takes SHA-1 only when told, and unknown algorithms never", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
  const weak = {
    ...withLeaf({ issuerKey: rsa, hash: "sha1" }),
    intermediates: [certificate({ ...middleInput, key: rsa })],
  }
  refuses(weak, "weak-algorithm")
  assert.equal(verifyChain({ ...weak, insecureAllowSha1: true }).length, 3)
  refuses({ ...good, leaf: { ...leaf, signatureAlgorithm: { scheme: undefined, oid: "1.2.3" } } }, "weak-algorithm")
})

test("verifyChain() refuses issuers with keys that are too small", () => {
  const small = generateKeyPairSync("rsa", { modulusLength: 1024 })
  refuses({ ...withLeaf({ issuerKey: small }), intermediates: [certificate({ ...middleInput, key: small })] }, "wrong-key")
})

test("verifyChain() bounds the search", () => {
  refuses({ ...good, intermediates: Array.from({ length: 33 }, () => middle) }, "wrong-chain")
  assert.equal(verifyChain({ ...good, intermediates: Array.from({ length: 32 }, () => middle) }).length, 3)
  const ladder = Array.from({ length: 9 }, (_, step) =>
    certificate({
      ...middleInput,
      subject: `m${step}`,
      issuer: step === 8 ? "root" : `m${step + 1}`,
      issuerKey: step === 8 ? keys.root : keys.middle,
    }),
  )
  refuses({ ...withLeaf({ issuer: "m0" }), intermediates: ladder }, "wrong-chain")
  assert.equal(verifyChain({ ...withLeaf({ issuer: "m3" }), intermediates: ladder }).length, 8)
  refuses({ ...withLeaf({ issuer: "m2" }), intermediates: ladder }, "wrong-chain")
})

test("verifyChain() gives up on certificates that all sign each other", () => {
  const web = Array.from({ length: 20 }, (_, serial) =>
    certificate({ ...middleInput, issuer: "middle", issuerKey: keys.middle, serial: serial + 10 }),
  )
  assert.throws(() => verifyChain({ ...good, intermediates: web }), { code: "wrong-chain", message: /too many/ })
})

test("verifyChain() refuses what a revocation list names, at every place below the root", () => {
  const byMiddle = parseRevocationList(makeRevocationList({ issuer: "middle", issuerKey: keys.middle, serials: [3] }))
  const byRoot = parseRevocationList(makeRevocationList({ issuer: "root", issuerKey: keys.root, serials: [2] }))
  const empty = parseRevocationList(makeRevocationList({ issuer: "middle", issuerKey: keys.middle, serials: [] }))
  const emptyRoot = parseRevocationList(makeRevocationList({ issuer: "root", issuerKey: keys.root, serials: [3] }))
  refuses({ ...good, revocationLists: [byMiddle] }, "revoked")
  refuses({ ...good, revocationLists: [byRoot] }, "revoked")
  refuses({ ...good, revocationLists: [empty, byRoot] }, "revoked")
  assert.equal(verifyChain({ ...good, revocationLists: [empty, emptyRoot] }).length, 3)
  assert.equal(verifyChain({ ...good, revocationLists: [empty, emptyRoot], requireRevocationLists: true }).length, 3)
  refuses({ ...good, revocationLists: [empty], requireRevocationLists: true }, "wrong-certificate")
  refuses({ ...good, requireRevocationLists: true }, "wrong-certificate")
})
