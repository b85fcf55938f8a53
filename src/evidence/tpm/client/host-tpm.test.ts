import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { test } from "node:test"
import { promisify } from "node:util"
import { concatBytes } from "../../../bytes/compare.ts"
import { encodeHex, encodeUtf8 } from "../../../bytes/text.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash, verifySignature } from "../../../pki/signatures.ts"
import { drawCredentialSeed, makeCredential } from "../credential.ts"
import { parseAttest, parseTpmSignature, type PcrSelection } from "../format.ts"
import { padStart, publicKeyOf, tpmName, tpmNameText } from "../keys.ts"
import { encodePublicArea, parseSizedPublicArea } from "../public-area.ts"
import { createPrimary, handleEntity, passwordUse } from "./commands.ts"
import { TpmConnection } from "./connection.ts"
import { permanentHandles } from "./constants.ts"
import { TpmError } from "./errors.ts"
import { HostTpm } from "./host-tpm.ts"
import { attestationTemplates, endorsementProfiles, openAttestationKey } from "./keys.ts"
import { parseSealedBytes, encodeSealedBytes, maxSealedBytes } from "./seal.ts"
import { noSoftwareTpm, noTpmTools, startSoftwareTpm } from "./swtpm.testing.ts"

const run = promisify(execFile)
const skip = { skip: noSoftwareTpm }
const skipWithTools = { skip: noSoftwareTpm !== false ? noSoftwareTpm : noTpmTools }
const selection: PcrSelection = { bank: "sha256", pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14] }
const nonce = hash("sha256", encodeUtf8("nonce"))

const withCode = (code: TpmError["code"]) => (error: unknown) => error instanceof TpmError && error.code === code

test("quote() is signed by the attestation key over nonce, selection and the register values", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  await tpm.pcrExtend(10, "sha256", nonce)
  const quoted = await tpm.quote(nonce, [selection])
  const area = parseSizedPublicArea(await tpm.attestationPublic())
  const attest = parseAttest(quoted.attest)
  assert.deepEqual(attest.extraData, nonce)
  assert.ok(attest.attested.type === "quote")
  assert.deepEqual(attest.attested.selection, [selection])
  const values = await tpm.readPcrs(selection)
  assert.deepEqual(values.get(10), hash("sha256", new Uint8Array(32), nonce))
  assert.deepEqual(attest.attested.pcrDigest, hash("sha256", ...selection.pcrs.map((pcr) => values.get(pcr) ?? new Uint8Array(0))))
  const signature = parseTpmSignature(quoted.signature)
  assert.ok(signature.algorithm === "ecdsa")
  verifySignature("ecdsa-sha256", publicKeyOf(area), quoted.attest, concatBytes(padStart(signature.r, 32), padStart(signature.s, 32)), {
    ecdsa: "raw",
  })
  assert.deepEqual(new Set(area.attributes), attestationTemplates[0]?.attributes)
  await assert.rejects(tpm.quote(new Uint8Array(33), [selection]), TypeError)
})

test("quote() gives the TPM at most 32 bytes of extraData", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  assert.deepEqual(parseAttest((await tpm.quote(new Uint8Array(32), [selection])).attest).extraData, new Uint8Array(32))
  await assert.rejects(tpm.quote(new Uint8Array(33), [selection]), TypeError)
})

test("quote() satisfies tpm2_checkquote", skipWithTools, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const { attest, signature } = await tpm.quote(nonce, [selection])
  const file = (name: string): string => join(software.folder, name)
  await writeFile(file("attest"), attest)
  await writeFile(file("signature"), signature)
  await writeFile(file("ak"), await tpm.attestationPublic())
  const check = (qualification: string): Promise<unknown> =>
    run("tpm2_checkquote", ["-u", file("ak"), "-m", file("attest"), "-s", file("signature"), "-q", qualification])
  await check(encodeHex(nonce))
  await assert.rejects(check(encodeHex(hash("sha256", nonce))))
})

test("the attestation key is the same after a restart of the client, and in a fresh TPM another", skip, async () => {
  await using software = await startSoftwareTpm()
  const names: string[] = []
  for (let round = 0; round < 2; round++) {
    await using tpm = await HostTpm.open(software.location)
    names.push(await tpm.attestationKeyName())
    assert.equal(names.at(-1), tpmNameText(parseSizedPublicArea(await tpm.attestationPublic())))
  }
  assert.equal(names[0], names[1])
  await using other = await startSoftwareTpm()
  await using tpm = await HostTpm.open(other.location)
  assert.notEqual(await tpm.attestationKeyName(), names[0])
})

test(
  "collectEndorsement() gives the key that swtpm_setup's certificate is for, and activate() opens a credential for it",
  skipWithTools,
  async () => {
    await using software = await startSoftwareTpm({ certified: true })
    await using tpm = await HostTpm.open(software.location)
    const { ekCertificates, ekPublic, akPublic } = await tpm.collectEndorsement()
    const area = parseSizedPublicArea(ekPublic)
    assert.ok(area.type === "rsa")
    assert.equal(ekCertificates.length, 1)
    assert.ok(Buffer.from(ekCertificates[0] ?? []).includes(Buffer.from(area.unique)))
    const credential = await makeCredentialByTools(software.folder, ekPublic, akPublic, nonce)
    assert.deepEqual(await tpm.activate(credential.credentialBlob, credential.secret), nonce)
  },
)

test("activate() refuses a credential for another key, another TPM, and a changed one", skipWithTools, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  await using otherSoftware = await startSoftwareTpm()
  await using other = await HostTpm.open(otherSoftware.location)
  const { ekPublic, akPublic } = await tpm.collectEndorsement()
  const foreign = await other.collectEndorsement()
  const good = await makeCredentialByTools(software.folder, ekPublic, akPublic, nonce)
  assert.deepEqual(await tpm.activate(good.credentialBlob, good.secret), nonce)
  const otherKey = await makeCredentialByTools(software.folder, ekPublic, foreign.akPublic, nonce)
  await assert.rejects(tpm.activate(otherKey.credentialBlob, otherKey.secret), withCode("wrong-credential"))
  const otherTpm = await makeCredentialByTools(software.folder, foreign.ekPublic, akPublic, nonce)
  await assert.rejects(tpm.activate(otherTpm.credentialBlob, otherTpm.secret), TpmError)
  const changed = Uint8Array.from(good.credentialBlob)
  changed[40] = (changed[40] ?? 0) ^ 1
  await assert.rejects(tpm.activate(changed, good.secret), withCode("wrong-credential"))
  await assert.rejects(tpm.activate(concatBytes(good.credentialBlob, Uint8Array.of(0)), good.secret), { code: "trailing-bytes" })
  assert.deepEqual(await tpm.activate(good.credentialBlob, good.secret), nonce)
})

for (const profile of endorsementProfiles) {
  test(`collectEndorsement() and activate() work with an endorsement key of profile ${profile.name}`, skip, async (context) => {
    await using software = await startSoftwareTpm()
    await using connection = await TpmConnection.open(software.location)
    const point = await endorsementKeyBytes(connection, encodePublicArea(profile.template)).catch((error: unknown) => {
      if (error instanceof TpmError && error.code === "unsupported") return undefined
      throw error
    })
    if (point === undefined) return context.skip("this software TPM lacks the key size")
    await writeNv(connection, profile.certificateIndex, concatBytes(encodeUtf8("certificate of "), point, new Uint8Array(700)))
    await connection[Symbol.asyncDispose]()
    await using tpm = await HostTpm.open(software.location)
    const { ekCertificates, ekPublic, akPublic } = await tpm.collectEndorsement()
    assert.equal(ekCertificates[0]?.length, 715 + point.length)
    const area = parseSizedPublicArea(ekPublic)
    assert.deepEqual(area.authPolicy, profile.template.authPolicy)
    const seed = drawCredentialSeed(area)
    const own = makeCredential(area, tpmName(parseSizedPublicArea(akPublic)), nonce, seed)
    assert.deepEqual(await tpm.activate(own.credentialBlob, own.secret), nonce)
    if (noTpmTools !== false) return
    const credential = await makeCredentialByTools(software.folder, ekPublic, akPublic, nonce)
    assert.deepEqual(await tpm.activate(credential.credentialBlob, credential.secret), nonce)
  })
}

test("the policies of the high profiles are PolicyOR of PolicyA and the policy in NV", () => {
  // EK Credential Profile, B.6: PolicyA and PolicyC for SHA-256.
  const policyA = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
  const policyC = "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde"
  const profile = endorsementProfiles.find(({ name }) => name === "H-2")
  const digest = hash("sha256", new Uint8Array(32), new ByteWriter().u32be(0x171).take(), Buffer.from(policyA + policyC, "hex"))
  assert.deepEqual(profile?.template.authPolicy, digest)
  assert.equal(encodeHex(endorsementProfiles[0]?.template.authPolicy ?? new Uint8Array(0)), policyA)
})

test("collectEndorsement() uses the vendor's template and nonce", skip, async () => {
  await using software = await startSoftwareTpm()
  await using connection = await TpmConnection.open(software.location)
  const [profile] = endorsementProfiles
  assert.ok(profile?.template.type === "rsa" && profile.nonceIndex !== undefined)
  const template = encodePublicArea({ ...profile.template, unique: concatBytes(nonce, new Uint8Array(224)) })
  const key = await endorsementKeyBytes(connection, template)
  await writeNv(connection, profile.certificateIndex, key)
  await writeNv(connection, profile.nonceIndex, nonce)
  await writeNv(connection, profile.templateIndex, encodePublicArea(profile.template))
  await connection[Symbol.asyncDispose]()
  await using tpm = await HostTpm.open(software.location)
  const area = parseSizedPublicArea((await tpm.collectEndorsement()).ekPublic)
  assert.ok(area.type === "rsa")
  assert.deepEqual(area.unique, key)
})

test("collectEndorsement() puts the vendor's nonce into the point of a curve too, and refuses one that does not fit", skip, async () => {
  const profile = endorsementProfiles.find(({ name }) => name === "L-2")
  assert.ok(profile?.template.type === "ecc" && profile.nonceIndex !== undefined)
  for (const length of [32, 33]) {
    await using software = await startSoftwareTpm()
    await using connection = await TpmConnection.open(software.location)
    const key = await endorsementKeyBytes(connection, encodePublicArea({ ...profile.template, x: nonce, y: new Uint8Array(32) }))
    await writeNv(connection, profile.certificateIndex, key)
    await writeNv(connection, profile.nonceIndex, concatBytes(nonce, new Uint8Array(length - 32)))
    await using tpm = HostTpm.over(connection)
    if (length > 32) await assert.rejects(tpm.collectEndorsement(), withCode("unsupported"))
    else {
      const area = parseSizedPublicArea((await tpm.collectEndorsement()).ekPublic)
      assert.ok(area.type === "ecc")
      assert.deepEqual(concatBytes(area.x, area.y), key)
    }
  }
})

test("collectEndorsement() takes seven on-die intermediates, of all indexes that are for them, and no more", skip, async () => {
  await using software = await startSoftwareTpm()
  const profile = endorsementProfiles.find(({ name }) => name === "L-2")
  assert.ok(profile !== undefined)
  await using connection = await TpmConnection.open(software.location)
  await writeNv(connection, profile.certificateIndex, await endorsementKeyBytes(connection, encodePublicArea(profile.template)))
  const indexes = [0x01c00100, 0x01c00101, 0x01c00102, 0x01c00103, 0x01c00104, 0x01c00105, 0x01c001ff]
  for (const index of indexes) await writeNv(connection, index, encodeUtf8(index.toString(16)))
  await using tpm = HostTpm.over(connection)
  assert.equal((await tpm.collectEndorsement()).ekCertificates.length, 1 + 7)
  await writeNv(connection, 0x01c00106, encodeUtf8("one more"))
  await assert.rejects(tpm.collectEndorsement(), withCode("unsupported"))
})

test("collectEndorsement() passes over certificates of keys that the TPM does not have, and adds on-die intermediates", skip, async () => {
  await using software = await startSoftwareTpm()
  const [first, second] = endorsementProfiles
  assert.ok(first !== undefined && second !== undefined)
  await using connection = await TpmConnection.open(software.location)
  await writeNv(connection, first.certificateIndex, new Uint8Array(900))
  await writeNv(connection, first.templateIndex, Uint8Array.of(0x00, 0x25, 0x00, 0x0b, 0, 0, 0, 0, 0, 0))
  const certificate = await endorsementKeyBytes(connection, encodePublicArea(second.template))
  await writeNv(connection, second.certificateIndex, certificate)
  await writeNv(connection, 0x01c00101, encodeUtf8("second"))
  await writeNv(connection, 0x01c00100, encodeUtf8("first"))
  await writeNv(connection, 0x01c00200, encodeUtf8("something else"))
  await using tpm = HostTpm.over(connection)
  const { ekCertificates } = await tpm.collectEndorsement()
  assert.deepEqual(ekCertificates, [certificate, encodeUtf8("first"), encodeUtf8("second")])
})

test(
  "collectEndorsement() refuses a certificate of another key, and does not take a persistent key that is not the certificate's",
  skip,
  async () => {
    await using software = await startSoftwareTpm()
    const [profile] = endorsementProfiles
    assert.ok(profile?.persistentHandle !== undefined)
    {
      await using connection = await TpmConnection.open(software.location)
      await writeNv(connection, profile.certificateIndex, new Uint8Array(900))
    }
    {
      await using tpm = await HostTpm.open(software.location)
      await assert.rejects(tpm.collectEndorsement(), withCode("unsupported"))
    }
    await using connection = await TpmConnection.open(software.location)
    await using attestationKey = await openAttestationKey(connection)
    const evict = new ByteWriter().u32be(profile.persistentHandle).take()
    const handles = [handleEntity(permanentHandles.owner), attestationKey]
    await connection.execute({ command: "EvictControl", handles, sessions: [passwordUse()], parameters: evict })
    await attestationKey[Symbol.asyncDispose]()
    await using tpm = HostTpm.over(connection)
    await assert.rejects(tpm.collectEndorsement(), withCode("unsupported"))
  },
)

test("collectEndorsement() takes a persistent key only if it is of the template's form and named by the certificate", skip, async () => {
  const profile = endorsementProfiles.find(({ name }) => name === "L-2")
  const [attestationTemplate] = attestationTemplates
  assert.ok(profile?.persistentHandle !== undefined && profile.template.type === "ecc" && attestationTemplate?.type === "ecc")
  const nameless = { ...profile.template, x: nonce }
  // Of the right form, but another key than the certificate's; and in the certificate's bytes, but of another form.
  for (const [foreign, inCertificate] of [
    [nameless, []],
    [attestationTemplate, [attestationTemplate]],
  ] as const) {
    await using software = await startSoftwareTpm()
    await using connection = await TpmConnection.open(software.location)
    const own = await endorsementKeyBytes(connection, encodePublicArea(profile.template))
    const others: Uint8Array[] = []
    for (const template of inCertificate) others.push(await endorsementKeyBytes(connection, encodePublicArea(template)))
    await writeNv(connection, profile.certificateIndex, concatBytes(own, ...others))
    {
      await using key = await createPrimary(connection, permanentHandles.endorsement, encodePublicArea(foreign))
      const handles = [handleEntity(permanentHandles.owner), key]
      const parameters = new ByteWriter().u32be(profile.persistentHandle).take()
      await connection.execute({ command: "EvictControl", handles, sessions: [passwordUse()], parameters })
    }
    await using tpm = HostTpm.over(connection)
    const area = parseSizedPublicArea((await tpm.collectEndorsement()).ekPublic)
    assert.ok(area.type === "ecc")
    assert.deepEqual(concatBytes(area.x, area.y), own)
  }
})

test("unseal() gives back what sealToPcrs() took, until a register changes", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const secret = encodeUtf8("the vault key")
  const sealed = parseSealedBytes(encodeSealedBytes(await tpm.sealToPcrs(secret, selection)))
  assert.deepEqual(await tpm.unseal(sealed), secret)
  await tpm.pcrExtend(15, "sha256", nonce)
  assert.deepEqual(await tpm.unseal(sealed), secret)
  await tpm.cap(14, "sha256")
  await assert.rejects(tpm.unseal(sealed), withCode("policy-failed"))
})

test("unseal() refuses what another TPM sealed, and changed bytes", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  await using otherSoftware = await startSoftwareTpm()
  await using other = await HostTpm.open(otherSoftware.location)
  const sealed = await tpm.sealToPcrs(nonce, selection)
  await assert.rejects(other.unseal(sealed), withCode("wrong-credential"))
  const parentName = sealed.parentName.map((byte, at) => (at === 5 ? byte ^ 1 : byte))
  await assert.rejects(tpm.unseal({ ...sealed, parentName }), withCode("wrong-credential"))
  const privateBytes = Uint8Array.from(sealed.privateBytes)
  privateBytes[60] = (privateBytes[60] ?? 0) ^ 1
  await assert.rejects(tpm.unseal({ ...sealed, privateBytes }), withCode("wrong-credential"))
  await assert.rejects(tpm.unseal({ ...sealed, selection: { bank: "sha256", pcrs: [0] } }), withCode("policy-failed"))
})

test("parseSealedBytes() refuses cut, doubled and longer blobs", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const sealed = await tpm.sealToPcrs(nonce, selection)
  const blob = encodeSealedBytes(sealed)
  for (let length = 0; length < blob.length; length++) assert.throws(() => parseSealedBytes(blob.slice(0, length)), { name: "MalformedError" })
  assert.throws(() => parseSealedBytes(concatBytes(blob, Uint8Array.of(0))), { code: "trailing-bytes" })
  const twoBanks = new ByteWriter().sized16be(sealed.parentName).sized16be(new Uint8Array(4)).sized16be(nonce).sized16be(nonce).take()
  assert.throws(() => parseSealedBytes(twoBanks), { code: "malformed" })
})

test("sealToPcrs() takes 1 to 128 bytes", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  for (const size of [1, maxSealedBytes]) {
    const secret = new Uint8Array(size).fill(7)
    assert.deepEqual(await tpm.unseal(await tpm.sealToPcrs(secret, selection)), secret)
  }
  for (const size of [0, maxSealedBytes + 1]) await assert.rejects(tpm.sealToPcrs(new Uint8Array(size), selection), TypeError)
})

test("operations that start together do not run out of slots, and failed ones leave nothing behind", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const sealed = await tpm.sealToPcrs(nonce, { bank: "sha256", pcrs: [16] })
  await Promise.all(
    Array.from({ length: 6 }, async () => [await tpm.unseal(sealed), await tpm.quote(nonce, [selection]), await tpm.collectEndorsement()]),
  )
  await tpm.cap(16, "sha256")
  for (let round = 0; round < 8; round++) await assert.rejects(tpm.unseal(sealed), withCode("policy-failed"))
  await tpm.quote(nonce, [selection])
})

test("open() tidies up what a killed program left in a TPM without resource manager", skip, async () => {
  await using software = await startSoftwareTpm()
  {
    await using connection = await TpmConnection.open(software.location)
    for (let slot = 0; slot < 3; slot++) await openAttestationKey(connection)
    await assert.rejects(openAttestationKey(connection), withCode("no-resources"))
  }
  await using tpm = await HostTpm.open(software.location)
  await tpm.collectEndorsement()
})

test("getRandom() gives as many bytes as asked for, never the same", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const bytes = await tpm.getRandom(100)
  assert.equal(bytes.length, 100)
  assert.notDeepEqual(await tpm.getRandom(100), bytes)
})

/** The part of an endorsement key that a certificate would hold. */
async function endorsementKeyBytes(connection: TpmConnection, template: Uint8Array): Promise<Uint8Array> {
  await using key = await createPrimary(connection, permanentHandles.endorsement, template)
  const { publicArea } = key
  return publicArea.type === "ecc" ? concatBytes(publicArea.x, publicArea.y) : publicArea.unique
}

/** Defines an NV index that anybody may read, and fills it. */
async function writeNv(connection: TpmConnection, index: number, content: Uint8Array): Promise<void> {
  // ownerwrite, authread, ownerread, no_da
  const attributes = 2 ** 1 + 2 ** 17 + 2 ** 18 + 2 ** 25
  const nvPublic = (written: number): Uint8Array =>
    new ByteWriter()
      .u32be(index)
      .u16be(0x000b)
      .u32be(attributes + written)
      .u16be(0)
      .u16be(content.length)
      .take()
  const owner = handleEntity(permanentHandles.owner)
  const define = new ByteWriter().u16be(0).sized16be(nvPublic(0)).take()
  await connection.execute({ command: "NvDefineSpace", handles: [owner], sessions: [passwordUse()], parameters: define })
  const reader = new ByteReader("content", content)
  while (reader.remaining > 0) {
    const offset = reader.offset
    const part = reader.bytes(Math.min(reader.remaining, 512), "part")
    const handles = [owner, handleEntity(index)]
    await connection.execute({
      command: "NvWrite",
      handles,
      sessions: [passwordUse()],
      parameters: new ByteWriter().sized16be(part).u16be(offset).take(),
    })
  }
}

/** MakeCredential as tpm2-tools do it, without a TPM. */
async function makeCredentialByTools(
  folder: string,
  ekPublic: Uint8Array,
  akPublic: Uint8Array,
  secret: Uint8Array,
): Promise<{ readonly credentialBlob: Uint8Array; readonly secret: Uint8Array }> {
  const file = (name: string): string => join(folder, name)
  await writeFile(file("ek"), ekPublic)
  await writeFile(file("plain"), secret)
  const name = encodeHex(tpmName(parseSizedPublicArea(akPublic)))
  await run("tpm2_makecredential", ["-T", "none", "-u", file("ek"), "-s", file("plain"), "-n", name, "-o", file("credential")])
  const reader = new ByteReader("credential", new Uint8Array(await readFile(file("credential"))))
  reader.u32be("magic")
  reader.u32be("version")
  const credentialBlob = new ByteWriter().sized16be(reader.bytes(reader.u16be("size"), "credential")).take()
  return { credentialBlob, secret: reader.rest("secret") }
}
