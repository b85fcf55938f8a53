import assert from "node:assert/strict"
import { execFileSync, spawnSync } from "node:child_process"
import { constants, createDecipheriv, createHmac, diffieHellman, privateDecrypt } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { bytesEqual, concatBytes } from "../../bytes/compare.ts"
import { readAll } from "../../bytes/reader.ts"
import { encodeHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hashSizes } from "../../pki/signatures.ts"
import { kdfA, kdfE } from "./client/kdf.ts"
import { noSoftwareTpm, noTpmTools, startSoftwareTpm } from "./client/swtpm.testing.ts"
import { drawCredentialSeed, makeCredential } from "./credential.ts"
import type { Credential } from "./credential.ts"
import { parseIdObject } from "./format.ts"
import { publicKeyOf, tpmName } from "./keys.ts"
import { parseSizedPublicArea } from "./public-area.ts"
import type { EccPublicArea, RsaPublicArea } from "./public-area.ts"
import { endorsementAttributes, makeEccKey, makeRsaKey, without } from "./software-tpm.testing.ts"
import type { SoftwareKey } from "./software-tpm.testing.ts"

const aes = { algorithm: "aes", keyBits: 128, mode: "cfb" } as const
const endorsement = { attributes: new Set(endorsementAttributes), symmetric: aes, authPolicy: new Uint8Array(32) }
const rsaKey = makeRsaKey(endorsement)
const rsa = { ...rsaKey, area: without(rsaKey.area, "scheme") }
const name = concatBytes(Uint8Array.of(0, 0x0b), new Uint8Array(32).fill(5))
const challenge = new Uint8Array(32).fill(6)

function makeEcc(curve: "P-256" | "P-384"): SoftwareKey<EccPublicArea> {
  const key = makeEccKey({
    ...endorsement,
    curve,
    nameAlg: curve === "P-384" ? "sha384" : "sha256",
    symmetric: { ...aes, keyBits: curve === "P-384" ? 256 : 128 },
  })
  return { ...key, area: without(key.area, "scheme") }
}

/** What a TPM does in ActivateCredential, from the specification and not from the code under test. */
function activate(key: SoftwareKey<RsaPublicArea | EccPublicArea>, credential: Credential, keyName: Uint8Array): Uint8Array {
  const { area } = key
  const size = hashSizes[area.nameAlg]
  const seed = readAll("secret", credential.secret, (outer) => {
    const reader = outer.sub(outer.u16be("size"), "secret")
    if (area.type === "rsa") {
      const oaep = { key: key.privateKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: area.nameAlg, oaepLabel: Buffer.from("IDENTITY\0") }
      return new Uint8Array(privateDecrypt(oaep, reader.rest("encrypted")))
    }
    const x = reader.bytes(reader.u16be("x"), "x")
    const y = reader.bytes(reader.u16be("y"), "y")
    reader.finish()
    const shared = diffieHellman({ privateKey: key.privateKey, publicKey: publicKeyOf({ ...area, x, y }) })
    return kdfE(area.nameAlg, new Uint8Array(shared), "IDENTITY", x, area.x, size)
  })
  assert.equal(seed.length, size)
  const { integrityHmac, encIdentity } = parseIdObject(credential.credentialBlob)
  const none = new Uint8Array(0)
  const macKey = kdfA(area.nameAlg, seed, "INTEGRITY", none, none, size)
  const mac = createHmac(area.nameAlg, macKey).update(encIdentity).update(keyName).digest()
  if (!bytesEqual(new Uint8Array(mac), integrityHmac)) throw new Error("integrity")
  const bits = area.symmetric?.keyBits ?? 0
  const cipher = createDecipheriv(`aes-${bits}-cfb`, kdfA(area.nameAlg, seed, "STORAGE", keyName, none, bits / 8), new Uint8Array(16))
  return readAll("identity", new Uint8Array(cipher.update(encIdentity)), (reader) => reader.bytes(reader.u16be("size"), "secret"))
}

for (const key of [rsa, makeEcc("P-256"), makeEcc("P-384")]) {
  const what = key.area.type === "ecc" ? key.area.curve : "RSA"
  test(`makeCredential() for ${what} opens for the named key and for no other`, () => {
    const credential = makeCredential(key.area, name, challenge, drawCredentialSeed(key.area))
    assert.deepEqual(activate(key, credential, name), challenge)
    assert.throws(() => activate(key, credential, concatBytes(name.slice(0, 33), Uint8Array.of(0))), /integrity/)
  })
}

test("makeCredential() is fresh with fresh randomness", () => {
  const [one, two] = [0, 1].map(() => makeCredential(rsa.area, name, challenge, drawCredentialSeed(rsa.area)))
  assert.notDeepEqual(one?.credentialBlob, two?.credentialBlob)
})

test("makeCredential() refuses keys that are no endorsement keys, and challenges and seeds that do not fit", () => {
  const seed = drawCredentialSeed(rsa.area)
  assert.throws(() => makeCredential(makeRsaKey().area, name, challenge, seed), { code: "wrong-key" })
  assert.throws(() => makeCredential(rsa.area, name, new Uint8Array(33), seed), TypeError)
  assert.throws(() => makeCredential(rsa.area, name, new Uint8Array(0), seed), TypeError)
  assert.throws(() => makeCredential(rsa.area, name, challenge, { kind: "rsa", seed: new Uint8Array(31) }), TypeError)
  const ecc = makeEcc("P-256")
  assert.throws(() => makeCredential(ecc.area, name, challenge, seed), TypeError)
  assert.throws(() => makeCredential(rsa.area, name, challenge, drawCredentialSeed(ecc.area)), TypeError)
  assert.throws(() => makeCredential(ecc.area, name, challenge, drawCredentialSeed(makeEcc("P-384").area)), TypeError)
})

for (const kind of ["rsa", "ecc"] as const) {
  test(`makeCredential() for ${kind} is opened by a real TPM through tpm2_activatecredential`, { skip: noSoftwareTpm || noTpmTools }, async () => {
    await using software = await startSoftwareTpm()
    const file = (what: string): string => join(software.folder, what)
    const tools = (command: string, ...options: readonly string[]): void => {
      const env = { ...process.env, TPM2TOOLS_TCTI: `swtpm:path=${software.location.unix}` }
      execFileSync(command, [...options], { env, stdio: "pipe", cwd: software.folder })
    }
    if (spawnSync("tpm2_createek", ["--version"]).status !== 0) return
    tools("tpm2_createek", "-c", "ek.ctx", "-G", kind, "-u", "ek.pub")
    tools("tpm2_flushcontext", "-t")
    tools("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub")
    tools("tpm2_flushcontext", "-t")
    const ek = parseSizedPublicArea(new Uint8Array(readFileSync(file("ek.pub"))))
    const ak = parseSizedPublicArea(new Uint8Array(readFileSync(file("ak.pub"))))
    const made = makeCredential(ek, tpmName(ak), challenge, drawCredentialSeed(ek))
    // File form of tpm2-tools: magic, version, then both structures.
    writeFileSync(file("cred"), new ByteWriter().u32be(0xbadcc0de).u32be(1).bytes(made.credentialBlob).bytes(made.secret).take())
    tools("tpm2_startauthsession", "--policy-session", "-S", "session.ctx")
    tools("tpm2_policysecret", "-S", "session.ctx", "-c", "e")
    tools("tpm2_activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "cred", "-o", "out", "-P", "session:session.ctx")
    assert.equal(encodeHex(new Uint8Array(readFileSync(file("out")))), encodeHex(challenge))
  })
}
