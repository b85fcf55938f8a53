import assert from "node:assert/strict"
import { test } from "node:test"
import { bytesEqual } from "../../bytes/compare.ts"
import { encodeUtf8, encodeBase64, parseBase64 } from "../../bytes/text.ts"
import { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import { noSoftwareTpm, startSoftwareTpm } from "../../evidence/tpm/client/swtpm.testing.ts"
import { drawCredentialSeed, makeCredential } from "../../evidence/tpm/credential.ts"
import { tpmName, tpmNameText } from "../../evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../../evidence/tpm/public-area.ts"
import type { TeeEvidenceDocument } from "../../evidence/tee/format.ts"
import { hash } from "../../pki/signatures.ts"
import { type EnrolmentChallenge, tpmEnrolmentRequestSchema, type HostView, type TpmEnrolmentRequest } from "../../protocol/messages.ts"
import { enrolTee, enrolTpm, type EnrolmentExchange } from "./enrol.ts"

const skip = { skip: noSoftwareTpm }
const challenge = hash("sha256", encodeUtf8("challenge"))

/** A manager that checks no certificate. */
function fakeManager(
  akPublicFor: (request: TpmEnrolmentRequest) => string = ({ akPublic }) => akPublic,
): EnrolmentExchange & { request?: TpmEnrolmentRequest } {
  const manager: EnrolmentExchange & { request?: TpmEnrolmentRequest } = {
    begin: async (request) => {
      const shown = tpmEnrolmentRequestSchema.parse(request)
      manager.request = shown
      const ek = parseSizedPublicArea(parseBase64(shown.ekPublic))
      const ak = parseSizedPublicArea(parseBase64(akPublicFor(shown)))
      const { credentialBlob, secret } = makeCredential(ek, tpmName(ak), challenge, drawCredentialSeed(ek))
      return { enrolment: "one", credentialBlob: encodeBase64(credentialBlob), secret: encodeBase64(secret) }
    },
    answer: async (enrolment, answer): Promise<HostView> => {
      assert.equal(enrolment, "one")
      assert.ok("secret" in answer && bytesEqual(parseBase64(answer.secret), challenge))
      const digest = `sha256:${"0".repeat(64)}` as const
      const identity = { endorsementKey: digest, root: digest, rootKind: "laboratory", description: "", attestationKeyName: "" } as const
      const attestationKeyName = tpmNameText(parseSizedPublicArea(parseBase64(manager.request?.akPublic ?? "")))
      return { host: "host-1", identity: { ...identity, attestationKeyName }, enrolledAt: "2026-01-01T00:00:00Z", retired: false }
    },
  }
  return manager
}

test("enrolTpm() proves that endorsement key and attestation key are in one TPM", skip, async () => {
  await using software = await startSoftwareTpm({ certified: true })
  await using tpm = await HostTpm.open(software.location)
  const manager = fakeManager()
  const { identity } = await enrolTpm(tpm, "host-1", manager)
  assert.partialDeepStrictEqual(identity, { attestationKeyName: await tpm.attestationKeyName() })
  assert.equal(manager.request?.ekCertificates.length, 1)
})

test("enrolTpm() fails where the manager was shown the attestation key of another TPM", skip, async () => {
  await using software = await startSoftwareTpm({ certified: true })
  await using tpm = await HostTpm.open(software.location)
  await using otherSoftware = await startSoftwareTpm()
  await using other = await HostTpm.open(otherSoftware.location)
  const foreign = encodeBase64(await other.attestationPublic())
  await assert.rejects(
    enrolTpm(
      tpm,
      "host-1",
      fakeManager(() => foreign),
    ),
    { code: "wrong-credential" },
  )
})

test("enrolTpm() of a TPM without endorsement key certificate is unsupported, before anything is sent", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const manager = fakeManager()
  await assert.rejects(enrolTpm(tpm, "host-1", manager), { name: "UnavailableError", code: "unsupported" })
  assert.equal(manager.request, undefined)
})

test("enrolTee() answers the nonce of the manager that it verified, and no other", async () => {
  const asked: unknown[] = []
  const nonces: string[] = []
  const begun = { enrolment: "one", nonce: "5".repeat(64), manager: "m" }
  const exchange = (challenge: EnrolmentChallenge): EnrolmentExchange => ({
    begin: async (request) => {
      asked.push(request)
      return challenge
    },
    answer: async (_, answer) => {
      asked.push(answer)
      return {} as HostView
    },
  })
  const evidence = { perun: 1, kind: "tdx", quote: "AAAA" } as const
  const collect = async (nonce: string): Promise<TeeEvidenceDocument> => {
    nonces.push(nonce)
    return evidence
  }
  await enrolTee(collect, "m", "host-1", exchange(begun))
  assert.deepEqual([asked, nonces], [[{ host: "host-1", piece: "tee" }, { evidence }], [begun.nonce]])
  await assert.rejects(enrolTee(collect, "m", "host-1", exchange({ ...begun, manager: "other" })), { code: "wrong-grant" })
  await assert.rejects(enrolTee(collect, "m", "host-1", exchange({ enrolment: "one", credentialBlob: "AAAA", secret: "AAAA" })), {
    code: "wrong-grant",
  })
  assert.equal(nonces.length, 1)
})
