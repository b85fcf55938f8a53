import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { encodeBase64, encodeUtf8, parseBase64Url } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"
import { parseSshPublicKey, sshPublicKeyText, writeSshString } from "./ssh-key.ts"

const text = sshPublicKeyText(generateKeyPairSync("ed25519").publicKey)
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "jwk" })
const point = [parseBase64Url(ec.x ?? ""), parseBase64Url(ec.y ?? "")] as const

function line(type: string, ...parts: readonly Uint8Array[]): string {
  const blob = new ByteWriter()
  writeSshString(blob, encodeUtf8(type))
  for (const part of parts) writeSshString(blob, part)
  return `${type} ${encodeBase64(blob.take())}`
}

function encodePoint(form: number, x: Uint8Array, y: Uint8Array): Uint8Array {
  return new ByteWriter().u8(form).bytes(x).bytes(y).take()
}

test("parseSshPublicKey() gives the canonical text without comment and newline", () => {
  for (const form of [text, `${text} clinic a`, `${text}\n`, `${text} `]) assert.equal(parseSshPublicKey(form).text, text)
})

test("parseSshPublicKey() gives a key that has the same text", () => {
  assert.equal(sshPublicKeyText(parseSshPublicKey(text).key), text)
})

test("parseSshPublicKey() accepts P-256 and refuses other curves, forms and points", () => {
  const type = "ecdsa-sha2-nistp256"
  const name = encodeUtf8("nistp256")
  assert.equal(parseSshPublicKey(line(type, name, encodePoint(4, ...point))).type, type)
  assert.throws(() => parseSshPublicKey(line(type, encodeUtf8("nistp384"), encodePoint(4, ...point))), { code: "malformed", path: "ssh-key.curve" })
  assert.throws(() => parseSshPublicKey(line(type, name, encodePoint(6, ...point))), { code: "malformed", path: "ssh-key.point.form" })
  assert.throws(() => parseSshPublicKey(line(type, name, encodePoint(4, point[0], point[0]))), { code: "wrong-key" })
})

test("parseSshPublicKey() refuses other types, lengths, tails and forms of text", () => {
  assert.throws(() => parseSshPublicKey(line("ssh-rsa", new Uint8Array(4))), { code: "unsupported" })
  assert.throws(() => parseSshPublicKey(line("ssh-ed25519", new Uint8Array(31))), { code: "malformed" })
  assert.throws(() => parseSshPublicKey(line("ssh-ed25519", new Uint8Array(32), new Uint8Array(1))), { code: "trailing-bytes" })
  assert.throws(() => parseSshPublicKey(line("ssh-ed25519")), { code: "truncated" })
  assert.throws(() => parseSshPublicKey(line("ssh-ed25519", new Uint8Array(1025))), { code: "too-large" })
  assert.throws(() => parseSshPublicKey(text.replace("ssh-ed25519", "ssh-ed448")), { code: "malformed" })
  for (const wrong of ["", "ssh-ed25519", ` ${text}`, `${text}\nx`, `${text}\t`, text.replace(" ", "  ")])
    assert.throws(() => parseSshPublicKey(wrong), { code: "malformed" }, JSON.stringify(wrong))
  assert.throws(() => parseSshPublicKey(`${text} ${"x".repeat(2048)}`), { code: "too-large" })
})

test("sshPublicKeyText() refuses keys that are not Ed25519", () => {
  assert.throws(() => sshPublicKeyText(generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey), TypeError)
})
