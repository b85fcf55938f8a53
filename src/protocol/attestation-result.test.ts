import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { generateKeyPairSync, sign } from "node:crypto"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { encodeBase64Url, encodeUtf8, parseBase64Url, parseUtf8 } from "../bytes/text.ts"
import { derElement, tags } from "../pki/der.ts"
import { earProfile, type ResultFacts, signAttestationResult, verifierId, verifyAttestationResult } from "./attestation-result.ts"

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-384" })
const now = Date.parse("2026-11-22T12:00:00Z")
const facts: ResultFacts = {
  nonce: "bm9uY2Utb2YtdGhlLXJlYWRlcg",
  audience: "https://relying-party.example",
  issuedAt: now / 1000,
  expiresAt: now / 1000 + 60,
  appraisedAt: now / 1000 - 5,
  submodules: { tpm: { status: "warning", vector: { hardware: 32, executables: 2 }, findings: ["insecure-laboratory"], laboratory: true } },
  policy: digestOf(Uint8Array.of(1)),
  manager: "1".repeat(32),
  run: "2".repeat(32),
  job: "train",
  evidence: digestOf(Uint8Array.of(2)),
  laboratory: true,
}
const { nonce, audience, policy } = facts
const expected = { key: publicKey, nonce, audience, policy, time: now }
const token = await signAttestationResult(facts, privateKey)
const claims = JSON.parse(parseUtf8(parseBase64Url(token.split(".")[1] ?? ""))) as Record<string, unknown>
const submod = (claims["submods"] as { readonly tpm: Record<string, unknown> }).tpm

/** A token of any content that the manager's own key signs. */
function signed(payload: unknown, header: object = { alg: "ES384", typ: "eat+jwt" }, key = privateKey, hash = "sha384"): string {
  const text = typeof payload === "string" ? payload : JSON.stringify(payload)
  const input = `${encodeBase64Url(encodeUtf8(JSON.stringify(header)))}.${encodeBase64Url(encodeUtf8(text))}`
  return `${input}.${encodeBase64Url(new Uint8Array(sign(hash, encodeUtf8(input), { key, dsaEncoding: "ieee-p1363" })))}`
}

test("verifyAttestationResult() gives back what was signed, in the draft's spelling", async () => {
  assert.deepEqual(await verifyAttestationResult(token, expected), { ...facts, status: "warning" })
  assert.deepEqual(await verifyAttestationResult(signed(claims), expected), { ...facts, status: "warning" })
  assert.equal(claims["eat_profile"], "tag:ietf.org,2026:rats/ear#04")
  assert.deepEqual(submod, {
    ear_status: "warning",
    ear_trustworthiness_vector: { hardware: 32, executables: 2 },
    ear_appraisal_policy_ids: [policy],
    ear_verifier_claims: { perun_findings: ["insecure-laboratory"], perun_laboratory: true },
  })
})

test("verifyAttestationResult() ignores claims that it does not know, as the draft says", async () => {
  const more = { ...claims, other: 1, submods: { tpm: { ...submod, other: 2 } } }
  assert.equal((await verifyAttestationResult(signed(more), expected)).status, "warning")
})

const wrongClaims: readonly (readonly [string, Record<string, unknown>])[] = [
  ["another profile", { eat_profile: "tag:ietf.org,2026:rats/ear#05" }],
  ["a nonce of somebody else", { eat_nonce: "bm9uY2Utb2YtYW5vdGhlcg" }],
  ["another audience", { aud: "https://other.example" }],
  ["a time of issue in the future", { iat: now / 1000 + 61, exp: now / 1000 + 90 }],
  ["an expired result", { exp: now / 1000 }],
  ["an end before its issue", { iat: now / 1000 + 30, exp: now / 1000 + 20 }],
  ["an appraisal after its issue", { perun_appraised: now / 1000 + 1 }],
  ["another policy", { submods: { tpm: { ...submod, ear_appraisal_policy_ids: [digestOf(Uint8Array.of(3))] } } }],
  ["a submodule's status that is better than its vector", { submods: { tpm: { ...submod, ear_status: "affirming" } }, ear_status: "affirming" }],
  ["an overall status that is better than a submodule's", { ear_status: "affirming" }],
  ["affirmed hardware under a laboratory root", { submods: { tpm: { ...submod, ear_trustworthiness_vector: { hardware: 2, executables: 33 } } } }],
  ["a laboratory that only the submodule tells of", { perun_laboratory: false }],
]
for (const [what, change] of wrongClaims)
  test(`verifyAttestationResult() refuses ${what}`, async () => {
    await assert.rejects(verifyAttestationResult(signed({ ...claims, ...change }), expected), { code: "wrong-result" })
  })

const malformed: readonly (readonly [string, Record<string, unknown>])[] = [
  ["a list of audiences", { aud: [audience] }],
  ["a time with a fraction", { exp: now / 1000 + 59.5 }],
  ["an end that no calendar has", { exp: 8_640_000_000_001 }],
  ["a tier that is none", { ear_status: "trusted" }],
  ["a value out of its range", { submods: { tpm: { ...submod, ear_trustworthiness_vector: { hardware: 128 } } } }],
  ["no submodule", { submods: {} }],
  ["a second policy", { submods: { tpm: { ...submod, ear_appraisal_policy_ids: [policy, policy] } } }],
  ["a nonce that is too short", { eat_nonce: "abcdefg" }],
]
for (const [what, change] of malformed)
  test(`verifyAttestationResult() refuses ${what}`, async () => {
    await assert.rejects(verifyAttestationResult(signed({ ...claims, ...change }), expected), { code: /^(malformed|too-large)$/ })
  })

test("verifyAttestationResult() refuses a result without one of its claims", async () => {
  for (const name of Object.keys(claims)) {
    const { [name]: _, ...rest } = claims
    await assert.rejects(verifyAttestationResult(signed(rest), expected), { code: "malformed" }, name)
  }
})

test("verifyAttestationResult() takes ES384 and nothing else, whatever the header says", async () => {
  const p256 = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const none = `${encodeBase64Url(encodeUtf8(JSON.stringify({ alg: "none", typ: "eat+jwt" })))}.${token.split(".")[1]}.AA`
  for (const other of [signed(claims, { alg: "ES256", typ: "eat+jwt" }, p256.privateKey, "sha256"), none])
    await assert.rejects(verifyAttestationResult(other, expected), { code: "wrong-result", path: "alg" })
  await assert.rejects(verifyAttestationResult(token, { ...expected, key: p256.publicKey }), { code: "wrong-result", path: "key" })
})

test("verifyAttestationResult() refuses a token of another type and a header that says more", async () => {
  await assert.rejects(verifyAttestationResult(signed(claims, { alg: "ES384", typ: "JWT" }), expected), { code: "wrong-result", path: "typ" })
  for (const more of [{ crit: ["b64"], b64: false }, { jwk: {} }, { kid: "x" }])
    await assert.rejects(verifyAttestationResult(signed(claims, { alg: "ES384", typ: "eat+jwt", ...more }), expected), { code: "unknown-field" })
})

test("verifyAttestationResult() refuses another key's signature and every changed letter", async () => {
  const { privateKey: other } = generateKeyPairSync("ec", { namedCurve: "P-384" })
  await assert.rejects(verifyAttestationResult(signed(claims, undefined, other), expected), { code: "wrong-result", path: "signature" })
  for (let at = 0; at < token.length; at += 7) {
    const changed = `${token.substring(0, at)}${token[at] === "A" ? "B" : "A"}${token.substring(at + 1)}`
    await assert.rejects(
      verifyAttestationResult(changed, expected),
      { code: /^(wrong-result|malformed|unknown-field|duplicate|truncated)$/ },
      String(at),
    )
  }
})

test("verifyAttestationResult() refuses a token of another form, and claims that stand twice", async () => {
  for (const wrong of ["", "a.b", `${token}.x`, token.replaceAll(".", "~")])
    await assert.rejects(verifyAttestationResult(wrong, expected), { code: "malformed" })
  await assert.rejects(verifyAttestationResult("a".repeat(40_000), expected), { code: "too-large" })
  const twice = JSON.stringify(claims).replace("{", `{"aud":"https://other.example",`)
  await assert.rejects(verifyAttestationResult(signed(twice), expected), { code: "duplicate" })
})

test("a result is checked by OpenSSL and Python, which know nothing of us", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-ear-"))
  try {
    const path = (name: string): string => join(folder, name)
    const [header = "", payload = "", signature = ""] = token.split(".")
    // JWS has r and s side by side, OpenSSL wants them in a SEQUENCE (RFC 7518, 3.4).
    const raw = parseBase64Url(signature)
    const integer = (half: Uint8Array): Uint8Array => derElement(tags.integer, Uint8Array.of(0), half)
    const minimal = (half: Uint8Array): Uint8Array =>
      (half[0] ?? 0) >= 0x80 ? integer(half) : derElement(tags.integer, half.slice(half.findIndex((byte) => byte !== 0)))
    await writeFile(path("signature.der"), derElement(tags.sequence, minimal(raw.slice(0, 48)), minimal(raw.slice(48))))
    await writeFile(path("input"), `${header}.${payload}`)
    await writeFile(path("key.pem"), publicKey.export({ format: "pem", type: "spki" }))
    const check = ["dgst", "-sha384", "-verify", path("key.pem"), "-signature", path("signature.der")]
    assert.match(execFileSync("openssl", [...check, path("input")], { encoding: "utf8" }), /Verified OK/)
    await writeFile(path("changed"), `${header}.${payload.replace(/^./, "f")}`)
    assert.throws(() => execFileSync("openssl", [...check, path("changed")], { stdio: "pipe" }))
    const program = `import base64, json, sys\np = sys.argv[1]\nc = json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4)))\nprint(c["eat_profile"], c["ear_status"], c["submods"]["tpm"]["ear_trustworthiness_vector"]["hardware"])`
    assert.equal(execFileSync("python3", ["-c", program, payload], { encoding: "utf8" }), `${earProfile} warning 32\n`)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test("verifierId names the version of this program", async () => {
  const { version } = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }
  assert.equal(verifierId.build, `perun ${version}`)
})
