import assert from "node:assert/strict"
import { test } from "node:test"
import { bytesEqual } from "../../bytes/compare.ts"
import { encodeUtf8, encodeBase64, parseBase64 } from "../../bytes/text.ts"
import { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import { noSoftwareTpm, startSoftwareTpm } from "../../evidence/tpm/client/swtpm.testing.ts"
import { drawCredentialSeed, makeCredential } from "../../evidence/tpm/credential.ts"
import { tpmName, tpmNameText } from "../../evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../../evidence/tpm/public-area.ts"
import { hash } from "../../pki/signatures.ts"
import { enrolmentRequestSchema, type EnrolmentRequest, type HostView } from "../../protocol/messages.ts"
import { enrol, type EnrolmentExchange } from "./enrol.ts"

const skip = { skip: noSoftwareTpm }
const challenge = hash("sha256", encodeUtf8("challenge"))

/** A manager that checks no certificate. */
function fakeManager(
  akPublicFor: (request: EnrolmentRequest) => string = ({ akPublic }) => akPublic,
): EnrolmentExchange & { request?: EnrolmentRequest } {
  const manager: EnrolmentExchange & { request?: EnrolmentRequest } = {
    begin: async (request) => {
      manager.request = enrolmentRequestSchema.parse(request)
      const ek = parseSizedPublicArea(parseBase64(request.ekPublic))
      const ak = parseSizedPublicArea(parseBase64(akPublicFor(request)))
      const { credentialBlob, secret } = makeCredential(ek, tpmName(ak), challenge, drawCredentialSeed(ek))
      return { enrolment: "one", credentialBlob: encodeBase64(credentialBlob), secret: encodeBase64(secret) }
    },
    answer: async (enrolment, { secret }): Promise<HostView> => {
      assert.equal(enrolment, "one")
      assert.ok(bytesEqual(parseBase64(secret), challenge))
      const digest = `sha256:${"0".repeat(64)}` as const
      const identity = { endorsementKey: digest, root: digest, rootKind: "laboratory", description: "", attestationKeyName: "" } as const
      const attestationKeyName = tpmNameText(parseSizedPublicArea(parseBase64(manager.request?.akPublic ?? "")))
      return { host: "host-1", identity: { ...identity, attestationKeyName }, enrolledAt: "2026-01-01T00:00:00Z", retired: false }
    },
  }
  return manager
}

test("enrol() proves that endorsement key and attestation key are in one TPM", skip, async () => {
  await using software = await startSoftwareTpm({ certified: true })
  await using tpm = await HostTpm.open(software.location)
  const manager = fakeManager()
  const { identity } = await enrol(tpm, "host-1", manager)
  assert.equal(identity.attestationKeyName, await tpm.attestationKeyName())
  assert.equal(manager.request?.ekCertificates.length, 1)
})

test("enrol() fails where the manager was shown the attestation key of another TPM", skip, async () => {
  await using software = await startSoftwareTpm({ certified: true })
  await using tpm = await HostTpm.open(software.location)
  await using otherSoftware = await startSoftwareTpm()
  await using other = await HostTpm.open(otherSoftware.location)
  const foreign = encodeBase64(await other.attestationPublic())
  await assert.rejects(
    enrol(
      tpm,
      "host-1",
      fakeManager(() => foreign),
    ),
    { code: "wrong-credential" },
  )
})

test("enrol() of a TPM without endorsement key certificate is unsupported, before anything is sent", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const manager = fakeManager()
  await assert.rejects(enrol(tpm, "host-1", manager), { name: "UnavailableError", code: "unsupported" })
  assert.equal(manager.request, undefined)
})
