import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { parseSshPublicKey } from "./ssh-key.ts"
import { signStatement, statementBytes, statementSignatureOfSshSignature, statementSignatureSchema, verifyStatement } from "./statement.ts"

const digest = digestOf(encodeUtf8("a policy"))
const other = digestOf(encodeUtf8("another policy"))
const { privateKey } = generateKeyPairSync("ed25519")

let folder = ""
before(() => (folder = mkdtempSync(join(tmpdir(), "perun-statement-"))))
after(() => rmSync(folder, { recursive: true }))

/** Signs with the real program of OpenSSH, as a stakeholder would. */
function sshSign(
  kind: readonly string[],
  namespace: string,
  message: Uint8Array,
  options: readonly string[] = [],
): { key: string; signature: string } {
  const name = join(folder, kind.join(""))
  try {
    readFileSync(name)
  } catch {
    execFileSync("ssh-keygen", ["-q", "-t", ...kind, "-N", "", "-C", "a comment", "-f", name])
  }
  const file = join(folder, "message")
  writeFileSync(file, message)
  rmSync(`${file}.sig`, { force: true })
  execFileSync("ssh-keygen", ["-Y", "sign", "-q", "-f", name, "-n", namespace, ...options, file], { stdio: "pipe" })
  return { key: readFileSync(`${name}.pub`, "utf8"), signature: readFileSync(`${file}.sig`, "utf8") }
}

test("statementBytes() is the documented text", () => {
  assert.equal(new TextDecoder().decode(statementBytes("policy", digest)), `perun policy ${digest}`)
  assert.throws(() => statementBytes("policy", "sha256:AB"), { code: "malformed" })
})

test("verifyStatement() accepts what signStatement() made and gives the canonical key", () => {
  const signature = signStatement("policy", digest, privateKey)
  statementSignatureSchema.parse(signature)
  assert.equal(verifyStatement("policy", digest, signature), signature.key)
  assert.match(signature.key, /^ssh-ed25519 AAAA\S+$/)
})

test("verifyStatement() refuses another digest, purpose, key or signature", () => {
  const signature = signStatement("policy", digest, privateKey)
  assert.throws(() => verifyStatement("policy", other, signature), { code: "wrong-signature" })
  assert.throws(() => verifyStatement("withdraw", digest, signature), { code: "wrong-signature" })
  const stranger = signStatement("policy", digest, generateKeyPairSync("ed25519").privateKey)
  assert.throws(() => verifyStatement("policy", digest, { ...signature, key: stranger.key }), { code: "wrong-signature" })
  assert.throws(() => verifyStatement("policy", digest, { ...signature, signature: "AAAA" }), { code: "wrong-signature" })
  assert.throws(() => verifyStatement("policy", digest, { ...signature, signature: "?" }), { code: "malformed" })
})

test("verifyStatement() refuses a key text that is not canonical", () => {
  const signature = signStatement("policy", digest, privateKey)
  assert.throws(() => verifyStatement("policy", digest, { ...signature, key: `${signature.key} comment` }), { code: "wrong-key" })
})

test("signStatement() refuses a key that is not a private Ed25519 key", () => {
  assert.throws(() => signStatement("policy", digest, generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey), TypeError)
  assert.throws(() => signStatement("policy", digest, generateKeyPairSync("ed25519").publicKey), TypeError)
})

for (const kind of [["ed25519"], ["ecdsa", "-b", "256"], ["ecdsa", "-b", "384"]]) {
  test(`verifyStatement() accepts ssh-keygen -Y sign with ${kind.join(" ")}`, () => {
    const made = sshSign(kind, "perun-policy", statementBytes("policy", digest))
    const signature = statementSignatureOfSshSignature(made.signature)
    assert.equal(signature.key, parseSshPublicKey(made.key).text)
    assert.equal(verifyStatement("policy", digest, signature), signature.key)
    assert.throws(() => verifyStatement("policy", other, signature), { code: "wrong-signature" })
    assert.throws(() => verifyStatement("vote", digest, signature), { code: "wrong-purpose" })
  })
}

test("verifyStatement() accepts the SHA-256 form of sshsig and its bare base64", () => {
  const made = sshSign(["ed25519"], "perun-vote", statementBytes("vote", digest), ["-O", "hashalg=sha256"])
  const bare = made.signature.split("\n").filter((line) => line !== "" && !line.startsWith("-----"))
  for (const text of [made.signature, bare.join("")]) verifyStatement("vote", digest, statementSignatureOfSshSignature(text))
})

test("verifyStatement() refuses an sshsig whose inner key is not the named key", () => {
  const signature = statementSignatureOfSshSignature(sshSign(["ed25519"], "perun-policy", statementBytes("policy", digest)).signature)
  const stranger = signStatement("policy", digest, privateKey).key
  assert.throws(() => verifyStatement("policy", digest, { ...signature, key: stranger }), { code: "wrong-key" })
})

test("verifyStatement() refuses a raw signature by a key that is not plain Ed25519", () => {
  const made = sshSign(["ecdsa", "-b", "256"], "perun-policy", statementBytes("policy", digest))
  const key = parseSshPublicKey(made.key).text
  assert.throws(() => verifyStatement("policy", digest, { key, format: "ed25519", signature: "AAAA" }), { code: "wrong-key" })
})

test("our Ed25519 keys are OpenSSH's: its key text parses to the same key", () => {
  const made = sshSign(["ed25519"], "perun-policy", statementBytes("policy", digest))
  assert.equal(parseSshPublicKey(made.key).text, made.key.split(" ", 2).join(" "))
})
