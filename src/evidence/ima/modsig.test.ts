import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../../bytes/text.ts"
import { derElement, derOid } from "../../pki/der.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { readModsig } from "./modsig.ts"

const sequence = 0x30
const set = 0x31
const integer = 0x02
const octets = 0x04
const contextZero = 0xa0
const contextOne = 0xa1

const content = hash("sha256", encodeUtf8("content"))
const signature = encodeUtf8("signature")
const signedData = derOid("1.2.840.113549.1.7.2")
const version = derElement(integer, Uint8Array.of(1))
const hashOids = { sha1: "1.3.14.3.2.26", sha256: "2.16.840.1.101.3.4.2.1", sha384: "2.16.840.1.101.3.4.2.2", sha512: "2.16.840.1.101.3.4.2.3" }
const more = derElement(octets, Uint8Array.of(0))

function algorithm(oid: string): Uint8Array {
  return derElement(sequence, derOid(oid), derElement(0x05))
}

interface SignerParts {
  readonly hash?: string
  readonly attributes?: readonly Uint8Array[]
  readonly signatureAlgorithm?: Uint8Array
  readonly behind?: readonly Uint8Array[]
}

function signer(parts: SignerParts = {}): Uint8Array {
  const attributes = parts.attributes === undefined ? [] : [derElement(contextZero, ...parts.attributes)]
  return derElement(
    sequence,
    version,
    derElement(sequence, derElement(sequence)),
    algorithm(parts.hash ?? hashOids.sha256),
    ...attributes,
    parts.signatureAlgorithm ?? algorithm("1.2.840.113549.1.1.1"),
    derElement(octets, signature),
    ...(parts.behind ?? []),
  )
}

function attribute(oid: string, ...values: readonly Uint8Array[]): Uint8Array {
  return derElement(sequence, derOid(oid), derElement(set, ...values))
}

const messageDigestOid = "1.2.840.113549.1.9.4"
const messageDigest = attribute(messageDigestOid, derElement(octets, content))
const contentType = attribute("1.2.840.113549.1.9.3", derOid("1.2.840.113549.1.7.1"))

interface Parts {
  readonly type?: Uint8Array
  readonly optional?: readonly Uint8Array[]
  readonly signers?: readonly Uint8Array[]
  readonly signerInfos?: readonly Uint8Array[]
  readonly inSignedData?: readonly Uint8Array[]
  readonly inContent?: readonly Uint8Array[]
  readonly inInfo?: readonly Uint8Array[]
}

/** ContentInfo with SignedData, RFC 5652 §3 and §5.1. */
function contentInfo(parts: Parts = {}): Uint8Array {
  const data = derElement(
    sequence,
    version,
    derElement(set, algorithm(hashOids.sha256)),
    derElement(sequence, derOid("1.2.840.113549.1.7.1")),
    ...(parts.optional ?? []),
    ...(parts.signerInfos ?? [derElement(set, ...(parts.signers ?? [signer()]))]),
    ...(parts.inSignedData ?? []),
  )
  const outer = derElement(contextZero, data, ...(parts.inContent ?? []))
  return derElement(sequence, parts.type ?? signedData, outer, ...(parts.inInfo ?? []))
}

const plain = { hashAlgorithm: "sha256", signedDigest: content, signature } as const

test("readModsig() gives each signer with the digest that its signature is over", () => {
  assert.deepEqual(readModsig(contentInfo(), content), [plain])
  const attributes = [contentType, messageDigest]
  const signed = hash("sha256", derElement(set, ...attributes))
  const signers = [signer({ attributes }), signer()]
  assert.deepEqual(readModsig(contentInfo({ signers }), content), [{ ...plain, signedDigest: signed }, plain])
})

for (const name of Object.keys(hashOids) as HashName[])
  test(`readModsig() reads signers over ${name}`, () => {
    const attributes = [messageDigest]
    const [found] = readModsig(contentInfo({ signers: [signer({ hash: hashOids[name], attributes })] }), content) ?? []
    assert.equal(found?.hashAlgorithm, name)
    assert.deepEqual(found?.signedDigest, hash(name, derElement(set, messageDigest)))
  })

test("readModsig() reads over certificates, revocation lists and unsigned attributes", () => {
  const optional = [derElement(contextZero, more), derElement(contextOne, more)]
  assert.deepEqual(readModsig(contentInfo({ optional, signers: [signer({ behind: [derElement(contextOne, more)] })] }), content), [plain])
})

const otherDigest = attribute(messageDigestOid, derElement(octets, new Uint8Array(32)))
const leftOut: readonly (readonly [string, Uint8Array])[] = [
  ["over an unknown hash", signer({ hash: "1.2.3" })],
  ["over another content", signer({ attributes: [otherDigest] })],
  ["whose attributes hold no digest", signer({ attributes: [contentType] })],
]
for (const [what, of] of leftOut)
  test(`readModsig() leaves out a signer ${what}`, () => {
    assert.deepEqual(readModsig(contentInfo({ signers: [of, signer()] }), content), [plain])
  })

test("readModsig() reads up to eight signers", () => {
  const many = (count: number): readonly Uint8Array[] => Array.from({ length: count }, () => signer())
  assert.equal(readModsig(contentInfo({ signers: many(8) }), content)?.length, 8)
  assert.equal(readModsig(contentInfo({ signers: many(9) }), content), undefined)
})

const otherForms: readonly (readonly [string, Uint8Array])[] = [
  ["another content type", contentInfo({ type: derOid("1.2.840.113549.1.7.1") })],
  ["something behind the content", contentInfo({ inInfo: [more] })],
  ["something behind the SignedData", contentInfo({ inContent: [more] })],
  ["something behind the signers", contentInfo({ inSignedData: [more] })],
  ["something else in place of the signers", contentInfo({ signerInfos: [derElement(sequence, signer())] })],
  ["no signers at all", contentInfo({ signerInfos: [] })],
  ["a signer that is none", contentInfo({ signers: [derElement(set)] })],
  ["a signer without signature algorithm", contentInfo({ signers: [signer({ signatureAlgorithm: derElement(set) })] })],
  ["a signer with more behind", contentInfo({ signers: [signer({ behind: [derElement(contextOne, more), more] })] })],
  ["a signer with another thing than unsigned attributes", contentInfo({ signers: [signer({ behind: [more] })] })],
  ["two digests of the content", contentInfo({ signers: [signer({ attributes: [messageDigest, messageDigest] })] })],
  ["two values of the digest", contentInfo({ signers: [signer({ attributes: [attribute(messageDigestOid, derElement(octets, content), more)] })] })],
  [
    "an attribute with more behind its values",
    contentInfo({
      signers: [signer({ attributes: [derElement(sequence, derOid(messageDigestOid), derElement(set, derElement(octets, content)), more)] })],
    }),
  ],
]
for (const [what, der] of otherForms)
  test(`readModsig() refuses ${what}`, () => {
    assert.equal(readModsig(der, content), undefined)
  })
