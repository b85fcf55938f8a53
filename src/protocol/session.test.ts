import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { encodeBase64, encodeUtf8 } from "../bytes/text.ts"
import { signStatement } from "../pki/statement.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { encodeSessionHeader, makeSessionHeader, sessionDigest, verifySessionHeader, type SessionStatement } from "./session.ts"

const { privateKey, publicKey } = generateKeyPairSync("ed25519")
const now = new Date("2026-11-22T12:00:00Z")
const tlsKey = `sha256:${"ab".repeat(32)}` as const
const statement: SessionStatement = { perun: 1, manager: "0".repeat(32), tlsKey, notAfter: "2026-11-22T13:00:00Z" }
const expected = { manager: statement.manager, peerTlsKey: tlsKey, now }

test("verifySessionHeader() returns the identity's key text", () => {
  assert.equal(verifySessionHeader(makeSessionHeader(statement, privateKey), expected), sshPublicKeyText(publicKey))
})

test("verifySessionHeader() refuses a call without header", () => {
  assert.throws(() => verifySessionHeader(undefined, expected), { code: "unauthenticated" })
})

const refused: Record<string, SessionStatement> = {
  "a statement for another manager": { ...statement, manager: "1".repeat(32) },
  "a statement for another TLS key": { ...statement, tlsKey: `sha256:${"cd".repeat(32)}` },
  "a statement that ended": { ...statement, notAfter: "2026-11-22T12:00:00Z" },
  "a statement that lasts longer than a day": { ...statement, notAfter: "2026-11-23T12:00:01Z" },
}
for (const [what, changed] of Object.entries(refused))
  test(`verifySessionHeader() refuses ${what}`, () => {
    assert.throws(() => verifySessionHeader(makeSessionHeader(changed, privateKey), expected), { code: "wrong-session" })
  })

test("verifySessionHeader() refuses a statement that was changed after it was signed", () => {
  const signature = signStatement("session", sessionDigest(statement), privateKey)
  const header = encodeSessionHeader({ ...statement, notAfter: "2026-11-22T14:00:00Z" }, signature)
  assert.throws(() => verifySessionHeader(header, expected), { code: "wrong-session" })
})

test("verifySessionHeader() refuses a signature made for another purpose", () => {
  const signature = signStatement("policy", sessionDigest(statement), privateKey)
  assert.throws(() => verifySessionHeader(encodeSessionHeader(statement, signature), expected), { code: "wrong-session" })
})

test("verifySessionHeader() refuses what is no header", () => {
  for (const header of ["", "%%%", encodeBase64(encodeUtf8("{}")), encodeBase64(encodeUtf8("[")), "A".repeat(20_000)])
    assert.throws(() => verifySessionHeader(header, expected), { code: "wrong-session" })
})
