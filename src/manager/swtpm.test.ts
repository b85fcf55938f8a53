import assert from "node:assert/strict"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { test } from "node:test"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import { parseEventLog } from "../evidence/eventlog/format.ts"
import { hostPcrs } from "../evidence/host/verify.ts"
import { certifiedKey, endorsementKeyDigest, parseStoredCertificate } from "../evidence/tpm/endorsements.ts"
import { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import { noSoftwareTpm, startSoftwareTpm } from "../evidence/tpm/client/swtpm.testing.ts"
import { parsePemCertificates } from "../pki/certificate.ts"
import { routes } from "../protocol/routes.ts"
import type { Challenge, ClaimRequest } from "../protocol/messages.ts"
import type { LaboratoryMachine } from "./machine.testing.ts"
import { type AgentKeys, makeAgent, makeParts, TestStudy } from "./study.testing.ts"
import { hostMachine } from "../policy/fixtures.testing.ts"

/** Brings a TPM's registers to where a machine's logs lead, as firmware and kernel do. */
async function boot(tpm: HostTpm, machine: LaboratoryMachine): Promise<void> {
  for (const { register, type, digests } of parseEventLog(machine.eventLog).events) {
    const digest = digests.get("sha256")
    if (type !== 3 && digest !== undefined) await tpm.pcrExtend(register, "sha256", digest)
  }
  for (const digest of machine.imaExtends) await tpm.pcrExtend(10, "sha256", digest)
}

test("a TPM enrols, claims and renews: ActivateCredential and quotes by a real command interface", { skip: noSoftwareTpm }, async () => {
  await using device = await startSoftwareTpm({ certified: true })
  await using tpm = await HostTpm.open(device.location)
  const parts = await makeParts()
  const { machine } = parts
  await boot(tpm, machine)
  const endorsement = await tpm.collectEndorsement()
  const [certificate] = endorsement.ekCertificates
  assert.ok(certificate)
  const [issuer] = parsePemCertificates(await readFile(join(device.folder, "ca", "issuercert.pem"), "utf8"))
  assert.ok(issuer)
  const study = await TestStudy.create({ ...parts, authority: { root: issuer.der, certify: () => issuer.der } })
  const endorsementKey: Digest = endorsementKeyDigest(certifiedKey(parseStoredCertificate(certificate).certificate).key)
  // swtpm certifies from this very second on.
  study.clock.wall = Date.now()
  const policy = study.policy({ expires: "2029-12-31T00:00:00Z" })
  const host = hostMachine(policy, "host")
  const laboratoryRoots = [digestOf(issuer.der)]
  const digest = await study.agree({
    ...policy,
    machines: { host: { ...host, tpm: { ...host.tpm, endorsementKeys: [endorsementKey], laboratoryRoots } } },
  })
  const agent = await makeAgent()
  await enrol(study, tpm, agent)
  await study.queue(digest)

  const prove = async (challenge: Challenge): Promise<ClaimRequest> => {
    const extraData = study.sessionOf(challenge, agent, await tpm.attestationKeyName())
    const quote = await tpm.quote(extraData, [{ bank: "sha256", pcrs: hostPcrs.pcrs }])
    return {
      challenge: challenge.challenge,
      hpkeKey: encodeBase64(agent.hpke.publicKey),
      bundle: {
        perun: 1,
        tpm: {
          quote: encodeBase64(quote.attest),
          signature: encodeBase64(quote.signature),
          akPublic: encodeBase64(await tpm.attestationPublic()),
          ...(challenge.imaFrom === 0 ? { eventLog: encodeBase64(machine.eventLog) } : {}),
          ima: { from: challenge.imaFrom, list: encodeBase64(machine.imaList(challenge.imaFrom)) },
        },
      },
    }
  }
  const grant = await study.call(routes.claimRun, agent, { body: await prove(await study.challenge(agent)) })
  assert.deepEqual(await study.openGrant(agent, grant), { records: parts.records.identity, trainer: parts.trainer.identity })
  const lease = grant.lease.id
  const body = await prove(await study.challenge(agent, "host-1", lease))
  assert.deepEqual(await study.call(routes.renewLease, agent, { params: { lease }, body }), { seconds: 60 })
  // A register that moved without a line in the log.
  await tpm.pcrExtend(10, "sha256", new Uint8Array(32).fill(1))
  const late = await prove(await study.challenge(agent, "host-1", lease))
  await assert.rejects(study.call(routes.renewLease, agent, { params: { lease }, body: late }), { code: "pcr-mismatch" })
})

async function enrol(study: TestStudy, tpm: HostTpm, agent: AgentKeys): Promise<void> {
  const { ekCertificates, ekPublic, akPublic } = await tpm.collectEndorsement()
  const body = {
    host: "host-1",
    ekCertificates: ekCertificates.map((certificate) => encodeBase64(certificate)),
    ekPublic: encodeBase64(ekPublic),
    akPublic: encodeBase64(akPublic),
  }
  const begun = await study.call(routes.beginEnrolment, agent, { body })
  assert.ok("credentialBlob" in begun)
  const secret = await tpm.activate(parseBase64(begun.credentialBlob), parseBase64(begun.secret))
  const answer = { secret: encodeBase64(secret) }
  const view = await study.call(routes.answerEnrolment, agent, { params: { enrolment: begun.enrolment }, body: answer })
  assert.equal(view.identity.rootKind, "laboratory")
}
