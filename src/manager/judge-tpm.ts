import type { Digest } from "../bytes/digest.ts"
import { encodeHex, parseBase64, parseHex } from "../bytes/text.ts"
import { decodeHostBundle, sessionDigest } from "../evidence/bundle.ts"
import { EvidenceError } from "../evidence/errors.ts"
import { firmwareQuirks, type FirmwareQuirk } from "../evidence/eventlog/verify.ts"
import { hostPcrs, previousHost, verifyHost } from "../evidence/host/verify.ts"
import { drawCredentialSeed, makeCredential } from "../evidence/tpm/credential.ts"
import { tpmIdentity } from "../evidence/tpm/identity.ts"
import { tpmName } from "../evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../evidence/tpm/public-area.ts"
import { laboratoryRoot, loadVendorRoots, type TrustedRoot } from "../evidence/tpm/roots.ts"
import { verifyEndorsementCertificate } from "../evidence/tpm/verify.ts"
import { parseCertificate } from "../pki/certificate.ts"
import { appraise } from "../policy/appraise.ts"
import { own, type Policy } from "../policy/document.ts"
import type { BootReference, References } from "../policy/reference.ts"
import type { EnrolmentRequest } from "../protocol/messages.ts"
import type { Judgement, JudgeRequest, MachineJudge, PendingEnrolment, SessionFacts } from "./judge.ts"

/** Length of the secret that an enrolling TPM must find: what fits one SHA-256 credential. */
const secretBytes = 32

/**
 * The judge of machines with a TPM 2.0: endorsement chains to pinned vendor roots and to the operator's laboratory roots, host bundles through verifyHost
 * and appraise. `laboratoryRoots` are certificates (DER).
 */
export class TpmJudge implements MachineJudge {
  readonly #roots: readonly TrustedRoot[]
  readonly #randomBytes: (length: number) => Uint8Array

  constructor(laboratoryRoots: readonly Uint8Array[], randomBytes: (length: number) => Uint8Array) {
    this.#roots = [...loadVendorRoots(), ...laboratoryRoots.map((der) => laboratoryRoot(parseCertificate(der)))]
    this.#randomBytes = randomBytes
  }

  sessionDigest(session: SessionFacts): Digest {
    return `sha256:${encodeHex(digestBytes(session))}`
  }

  async beginEnrolment(request: EnrolmentRequest, time: Date): Promise<PendingEnrolment> {
    const [leaf, ...issuers] = request.ekCertificates.map((text, index) => parseBase64(text, `ekCertificates.${index}`))
    if (leaf === undefined) throw new EvidenceError("missing-piece", "no endorsement key certificate", { path: "ekCertificates" })
    const endorsementKey = parseSizedPublicArea(parseBase64(request.ekPublic, "ekPublic"))
    const attestationKey = parseSizedPublicArea(parseBase64(request.akPublic, "akPublic"))
    const endorsement = verifyEndorsementCertificate(
      { certificate: leaf, intermediates: issuers.map(parseCertificate), publicArea: endorsementKey },
      { role: "endorsement", roots: this.#roots, time: time.getTime(), revocationLists: [], quirks: [] },
    )
    // The identity counts only once the TPM has found the secret below.
    const identity = tpmIdentity(endorsement, attestationKey)
    const expectedSecret = this.#randomBytes(secretBytes)
    const credential = makeCredential(endorsementKey, tpmName(attestationKey), expectedSecret, drawCredentialSeed(endorsementKey))
    return { identity, credentialBlob: credential.credentialBlob, encryptedSecret: credential.secret, expectedSecret }
  }

  async judge(request: JudgeRequest): Promise<Judgement> {
    const { session, policy, references, time, previous, identity } = request
    const boot = bootReferenceOf(policy, session.job, references)
    const genuine = verifyHost(decodeHostBundle(request.bundle), {
      extraData: digestBytes(session),
      requiredPcrs: hostPcrs,
      quirks: (boot?.quirks ?? []).filter(isFirmwareQuirk),
      identity,
      previous: previous?.host ?? "none",
      commandLineCandidates: (boot?.commandLines ?? []).map(({ text }) => text),
    })
    const decision = appraise(genuine, {
      policy,
      job: session.job,
      references,
      time,
      ...(previous === undefined ? {} : { previous: previous.decision }),
    })
    if (decision.outcome === "refused") return { decision, judged: undefined }
    return { decision, judged: { decision, host: previousHost(genuine.claims) } }
  }
}

function digestBytes(session: SessionFacts): Uint8Array {
  parseHex(session.nonce, "nonce")
  return sessionDigest({ ...session, version: 1, deviceEvidence: [] })
}

function bootReferenceOf(policy: Policy, jobName: string, references: References): BootReference | undefined {
  const machine = own(policy.machines, own(policy.jobs, jobName)?.machine ?? "")
  const reference = machine === undefined ? undefined : references.get(machine.boot.reference)
  return reference?.kind === "boot" ? reference : undefined
}

function isFirmwareQuirk(name: string): name is FirmwareQuirk {
  return Object.hasOwn(firmwareQuirks, name)
}
