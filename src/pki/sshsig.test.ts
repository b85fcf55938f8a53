import assert from "node:assert/strict"
import { generateKeyPairSync, sign } from "node:crypto"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { concatBytes } from "../bytes/compare.ts"
import { encodeBase64, encodeUtf8, parseBase64Url } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"
import { hash } from "./signatures.ts"
import { writeSshString } from "./ssh-key.ts"
import { parseSshSignature, verifySshSignature } from "./sshsig.ts"

const message = encodeUtf8("perun policy sha256:00")
const pair = generateKeyPairSync("ed25519")
const rawKey = parseBase64Url(pair.publicKey.export({ format: "jwk" }).x ?? "")

interface Parts {
  magic: string
  version: number
  keyType: string
  application: string
  namespace: string
  reserved: string
  hash: string
  signatureType: string
  flags: number
  tail: Uint8Array
}

const securityKey: Parts = {
  magic: "SSHSIG",
  version: 1,
  keyType: "sk-ssh-ed25519@openssh.com",
  application: "ssh:",
  namespace: "perun-policy",
  reserved: "",
  hash: "sha512",
  signatureType: "sk-ssh-ed25519@openssh.com",
  flags: 1,
  tail: new Uint8Array(0),
}
const plain: Parts = { ...securityKey, keyType: "ssh-ed25519", signatureType: "ssh-ed25519" }

/** A laboratory signer that can make every part wrong. */
function make(parts: Parts): string {
  const isSecurityKey = parts.keyType.startsWith("sk-")
  const signed = new ByteWriter().bytes(encodeUtf8("SSHSIG"))
  for (const part of [parts.namespace, parts.reserved, parts.hash]) writeSshString(signed, encodeUtf8(part))
  writeSshString(signed, hash(parts.hash === "sha256" ? "sha256" : "sha512", message))
  const middle = new ByteWriter().u8(parts.flags).u32be(7).take()
  const toSign = isSecurityKey ? concatBytes(hash("sha256", encodeUtf8(parts.application)), middle, hash("sha256", signed.take())) : signed.take()
  const key = new ByteWriter()
  writeSshString(key, encodeUtf8(parts.keyType))
  writeSshString(key, rawKey)
  if (isSecurityKey) writeSshString(key, encodeUtf8(parts.application))
  const inner = new ByteWriter()
  writeSshString(inner, encodeUtf8(parts.signatureType))
  writeSshString(inner, new Uint8Array(sign(null, toSign, pair.privateKey)))
  if (isSecurityKey) inner.bytes(middle)
  inner.bytes(parts.tail)
  const whole = new ByteWriter().bytes(encodeUtf8(parts.magic)).u32be(parts.version)
  writeSshString(whole, key.take())
  for (const part of [parts.namespace, parts.reserved, parts.hash]) writeSshString(whole, encodeUtf8(part))
  writeSshString(whole, inner.take())
  return encodeBase64(whole.take())
}

function check(parts: Parts): void {
  verifySshSignature(parseSshSignature(make(parts)), "perun-policy", message)
}

test("verifySshSignature() accepts a FIDO key with user presence and a plain key", () => {
  check(securityKey)
  check({ ...securityKey, flags: 5, hash: "sha256" })
  check(plain)
})

test("the laboratory signer makes what ssh-keygen -Y check-novalidate accepts", () => {
  const folder = mkdtempSync(join(tmpdir(), "perun-sshsig-"))
  try {
    for (const parts of [plain, securityKey]) {
      const file = join(folder, "s")
      writeFileSync(file, `-----BEGIN SSH SIGNATURE-----\n${make(parts).replace(/.{70}(?=.)/g, "$&\n")}\n-----END SSH SIGNATURE-----\n`)
      execFileSync("ssh-keygen", ["-Y", "check-novalidate", "-n", "perun-policy", "-s", file], { input: message, stdio: "pipe" })
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test("verifySshSignature() refuses a FIDO signature without user presence", () => {
  assert.throws(() => check({ ...securityKey, flags: 4 }), { code: "wrong-signature", path: "sshsig.flags" })
})

test("verifySshSignature() refuses another namespace and another message", () => {
  assert.throws(() => check({ ...plain, namespace: "file" }), { code: "wrong-purpose" })
  assert.throws(() => verifySshSignature(parseSshSignature(make(plain)), "perun-policy", encodeUtf8("x")), { code: "wrong-signature" })
})

test("verifySshSignature() refuses an inner type that is not the key's", () => {
  assert.throws(() => check({ ...plain, signatureType: "rsa-sha2-512" }), { code: "wrong-key" })
})

test("verifySshSignature() refuses bytes behind the inner signature", () => {
  assert.throws(() => check({ ...plain, tail: new Uint8Array(1) }), { code: "trailing-bytes" })
  assert.throws(() => check({ ...securityKey, tail: new Uint8Array(1) }), { code: "trailing-bytes" })
})

test("parseSshSignature() refuses other magic, version, hash, key type and a filled reserved field", () => {
  assert.throws(() => check({ ...plain, magic: "SSHSIX" }), { code: "malformed" })
  assert.throws(() => check({ ...plain, version: 2 }), { code: "unsupported", path: "sshsig.version" })
  assert.throws(() => check({ ...plain, hash: "sha1" }), { code: "unsupported", path: "sshsig.hash_algorithm" })
  assert.throws(() => check({ ...plain, keyType: "ssh-rsa" }), { code: "unsupported", path: "ssh-key.type" })
  assert.throws(() => check({ ...plain, reserved: "x" }), { code: "malformed", path: "sshsig.reserved" })
})

test("parseSshSignature() refuses text that is not one whole armored signature", () => {
  const text = make(plain)
  assert.throws(() => parseSshSignature(`-----BEGIN SSH SIGNATURE-----\n${text}\n`), { code: "malformed" })
  assert.throws(() => parseSshSignature(`-----BEGIN SSH SIGNATURE-----\n${text}\n-----END SSH SIGNATURE-----\nx`), { code: "malformed" })
  assert.throws(() => parseSshSignature(`x${text}`), { code: "malformed" })
  assert.throws(() => parseSshSignature("A".repeat(8196)), { code: "too-large" })
  assert.throws(
    () => parseSshSignature(`${text.replace(/=*$/, "")}AAAA`),
    (error: { code: string }) => ["trailing-bytes", "malformed"].includes(error.code),
  )
  parseSshSignature(`-----BEGIN SSH SIGNATURE-----\r\n${text}\r\n-----END SSH SIGNATURE-----\r\n`)
})
