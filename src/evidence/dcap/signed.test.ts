import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8, parseUtf8 } from "../../bytes/text.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import type { LabDocument } from "../../../lab/devices/dcap/authority.ts"
import { assertRefuses, testBitFlips, testFuzz, testTruncations } from "../testing/parser-laws.ts"
import { encodeChain, readChain, verifyPckChain, verifySigningChain } from "./certificates.ts"
import { openSignedJson, signingChainVerifier, verifyCrl, verifyTcbInfo } from "./collateral.ts"
import { parseQeIdentity } from "./qe-identity.ts"
import { readSgxExtensions } from "./sgx-extensions.ts"
import { splitSignedJson } from "./signed-json.ts"
import { parseTcbInfo } from "./tcb-info.ts"

/** Every object of the collateral by itself: each bit that is signed, each truncation, fuzz. */

/** Short, for every bit is tried. */
const shortLevels = (good: LabDocument): LabDocument => ({ ...good, tcbLevels: (good["tcbLevels"] as readonly LabDocument[]).slice(0, 1), tdxModuleIdentities: [] }) // prettier-ignore
const authority = makeLabAuthority({ keys: makeLabKeys(), tdxTcbInfo: shortLevels, tdQeIdentity: (good) => ({ ...good, tcbLevels: [] }) })
const { tcbInfo, qeIdentity, rootCrl, pckCrl } = authority.tdxCollateral
const { root, pckChain, signingChain } = authority
const [leafDer = new Uint8Array(0), authorityDer = new Uint8Array(0), rootDer = new Uint8Array(0)] = readChain(pckChain, 3, "chain")
const chain = verifyPckChain(pckChain, [root], labTime)
const signer = verifySigningChain(signingChain, [root], labTime).leaf
const foreign = makeLabAuthority()

const objects: readonly (readonly [name: string, bytes: Uint8Array, verify: (bytes: Uint8Array) => unknown])[] = [
  ["openSignedJson() of TCB info", tcbInfo.document, (document) => openSignedJson(document, "tcbInfo", signer)],
  ["openSignedJson() of a QE identity", qeIdentity.document, (document) => openSignedJson(document, "enclaveIdentity", signer)],
  ["verifyCrl() of the root", rootCrl, (der) => verifyCrl(der, root.certificate, labTime, "root CA CRL")],
  ["verifyCrl() of the authority", pckCrl, (der) => verifyCrl(der, chain.authority, labTime, "PCK CRL")],
  ["verifyPckChain() with its PCK certificate", leafDer, (der) => verifyPckChain(pem(der, authorityDer, rootDer), [root], labTime)],
  ["verifyPckChain() with its authority", authorityDer, (der) => verifyPckChain(pem(leafDer, der, rootDer), [root], labTime)],
  ["verifyPckChain() with its root", rootDer, (der) => verifyPckChain(pem(leafDer, authorityDer, der), [root], labTime)],
]

function pem(...certificates: readonly Uint8Array[]): Uint8Array {
  return encodeUtf8(encodeChain(certificates))
}

for (const [name, bytes, verify] of objects) {
  testBitFlips(name, bytes, verify)
  testTruncations(name, bytes, verify)
  testFuzz(name, [bytes], verify)
}

testFuzz("verifyPckChain()", [pckChain], (bytes) => verifyPckChain(bytes, [root], labTime))
testFuzz("verifySigningChain()", [signingChain], (bytes) => verifySigningChain(bytes, [root], labTime))
testFuzz("parseTcbInfo()", [splitSignedJson(tcbInfo.document, "tcbInfo").body], parseTcbInfo)
testFuzz("parseQeIdentity()", [splitSignedJson(qeIdentity.document, "enclaveIdentity").body], parseQeIdentity)

const sgxOid = "1.2.840.113741.1.13.1"
const extension = chain.leaf.extensions.get(sgxOid)?.value ?? new Uint8Array(0)
const readRows = (value: Uint8Array): unknown => readSgxExtensions({ ...chain.leaf, extensions: new Map([[sgxOid, { critical: false, value }]]) })
testTruncations("readSgxExtensions()", extension, readRows)
testFuzz("readSgxExtensions()", [extension], readRows)

test("readChain() takes lines of 64 and 76 characters, both ends of line, blank lines, and one NUL", () => {
  const text = parseUtf8(pckChain)
  const wide = text.replace(/([A-Za-z0-9+/=]{64})\n(?=[A-Za-z0-9+/=]+\n)/g, "$1").replace(/([A-Za-z0-9+/=]{76})(?=[A-Za-z0-9+/=])/g, "$1\n")
  for (const form of [text, text.trimEnd(), `${text}\0`, text.replaceAll("\n", "\r\n"), text.replaceAll("-----\n-----", "-----\n\n-----"), wide])
    assert.equal(readChain(encodeUtf8(form), 3, "chain").length, 3)
  const bad = [
    `${text}\0\0`,
    ` ${text}`,
    `${text}x`,
    text.replace("\nM", "\n M"),
    text.replace("\n", "\nProc-Type: 4\n"),
    text.replace(/([A-Za-z0-9+/=]{10})/, "$1\n"),
    `${text}${text}`,
    "",
  ]
  for (const [at, form] of bad.entries()) assertRefuses(() => readChain(encodeUtf8(form), 3, "chain"), `form ${at}`)
  assertRefuses(() => readChain(new Uint8Array(16_385).fill(0x20), 3, "chain"), "16 KiB", "too-large")
})

test("signingChainVerifier() verifies another chain anew", () => {
  const verify = signingChainVerifier(root, undefined, labTime)
  assert.equal(verify(signingChain), verify(Uint8Array.from(signingChain)))
  assertRefuses(() => verify(foreign.signingChain), "another chain", "wrong-chain")
  assert.equal(verify(signingChain).root, root)
})

test("collateral of one root is not taken under another, though both have the same names", () => {
  assertRefuses(
    () => verifyTcbInfo(foreign.tdxCollateral.tcbInfo, signingChainVerifier(root, undefined, labTime), labTime),
    "TCB info",
    "wrong-chain",
  )
  assertRefuses(() => verifyCrl(foreign.tdxCollateral.rootCrl, root.certificate, labTime, "root CA CRL"), "root CRL", "wrong-signature")
  assertRefuses(() => verifyCrl(foreign.tdxCollateral.pckCrl, chain.authority, labTime, "PCK CRL"), "PCK CRL", "wrong-signature")
})
