import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../../bytes/compare.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash } from "../../../pki/signatures.ts"
import { authorizeCommand, openResponse, TpmSession } from "./sessions.ts"
import type { SessionUse } from "./sessions.ts"

const empty = new Uint8Array(0)
const nonceCaller = new Uint8Array(32).fill(1)
const nonceTpm = new Uint8Array(32).fill(2)
const cpHash = hash("sha256", Uint8Array.of(3))
const parameters = new ByteWriter().sized16be(Uint8Array.of(4, 5)).take()

function sessionOf(kind: "hmac" | "policy", salt: Uint8Array = empty): TpmSession {
  return new TpmSession({ handle: 0x02000000, kind, salt, nonceCaller, nonceTpm })
}

function useOf(session: SessionUse["session"], change: Partial<SessionUse> = {}): SessionUse {
  return { session, authValue: empty, entityName: Uint8Array.of(6), ...change }
}

test("authorizeCommand() draws a new nonce for every command, so that no answer fits twice", () => {
  const session = sessionOf("hmac", Uint8Array.of(7))
  const nonces = Array.from({ length: 3 }, () => {
    authorizeCommand(0x17b, [], parameters, [useOf(session)])
    return Buffer.from(session.nonceCaller).toString("hex")
  })
  assert.equal(new Set([...nonces, Buffer.from(nonceCaller).toString("hex")]).size, 4)
})

test("authorizeCommand() encrypts in no password session, and in one session only", () => {
  for (const purpose of [{ decrypt: true }, { encrypt: true }]) {
    const session = sessionOf("hmac", Uint8Array.of(7))
    assert.throws(() => authorizeCommand(0x17b, [], parameters, [useOf("password", { decrypt: true })]), TypeError)
    assert.throws(() => authorizeCommand(0x17b, [], parameters, [useOf(session, purpose), useOf(session, purpose)]), TypeError)
  }
})

test("commandHmac() counts the authValue in an HMAC session only, and leaves out nothing but an unkeyed policy session's", () => {
  const lengths = (session: TpmSession, authValue: Uint8Array): Uint8Array => session.commandHmac(useOf(session, { authValue }), cpHash, empty, 1)
  const [hmacSession, policySession] = [sessionOf("hmac", Uint8Array.of(7)), sessionOf("policy", Uint8Array.of(7))]
  assert.notDeepEqual(lengths(hmacSession, Uint8Array.of(8)), lengths(hmacSession, empty))
  assert.deepEqual(lengths(policySession, Uint8Array.of(8)), lengths(policySession, empty))
  assert.equal(lengths(sessionOf("hmac"), empty).length, 32)
  assert.equal(lengths(sessionOf("policy"), empty).length, 0)
})

test("acceptResponse() wants an HMAC of every session but an unkeyed policy session", () => {
  const answer = { nonceTpm, attributes: 1, hmac: empty }
  for (const session of [sessionOf("hmac"), sessionOf("hmac", Uint8Array.of(7)), sessionOf("policy", Uint8Array.of(7))])
    assert.throws(() => session.acceptResponse(useOf(session), cpHash, answer, "Test"), { code: "forged-response" })
  const unkeyed = sessionOf("policy")
  unkeyed.acceptResponse(useOf(unkeyed), cpHash, { ...answer, nonceTpm: nonceCaller }, "Test")
  assert.deepEqual(unkeyed.nonceTpm, nonceCaller)
})

test("openResponse() refuses a byte behind the authorizations", () => {
  const uses = [useOf("password")]
  const authorization = new ByteWriter().u16be(0).u8(1).u16be(0).take()
  const open = (bytes: Uint8Array): Uint8Array => openResponse("Test", 0x17b, parameters, new ByteReader("answer", bytes), uses)
  assert.deepEqual(open(authorization), parameters)
  assert.throws(() => open(concatBytes(authorization, Uint8Array.of(0))), { code: "trailing-bytes" })
})
