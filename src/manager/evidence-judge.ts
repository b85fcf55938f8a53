import { parseBase64, parseHex } from "../bytes/text.ts"
import { decodeMachineBundle, enrolmentFields, type MachineBundle, sessionDigest } from "../evidence/bundle.ts"
import { EvidenceError } from "../evidence/errors.ts"
import { previousHost } from "../evidence/host/verify.ts"
import type { HostExpectation } from "../evidence/host/verify.ts"
import type { Genuine } from "../evidence/genuine.ts"
import type { MachineClaims } from "../evidence/machine/claims.ts"
import { verifyMachine } from "../evidence/machine/verify.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { decodeTeeEvidence } from "../evidence/tee/format.ts"
import type { TeeEvidence, TeeEvidenceDocument } from "../evidence/tee/format.ts"
import { teeIdentity } from "../evidence/tee/identity.ts"
import type { TeeIdentity } from "../evidence/tee/identity.ts"
import { teeRootsFor } from "../evidence/tee/roots.ts"
import { verifyTee } from "../evidence/tee/verify.ts"
import type { GenuineTee } from "../evidence/tee/verify.ts"
import type { TpmIdentity } from "../evidence/tpm/claims.ts"
import { drawCredentialSeed, makeCredential } from "../evidence/tpm/credential.ts"
import { tpmIdentity } from "../evidence/tpm/identity.ts"
import { tpmName } from "../evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../evidence/tpm/public-area.ts"
import { laboratoryRoot, loadVendorRoots, type TrustedRoot } from "../evidence/tpm/roots.ts"
import { verifyEndorsementCertificate } from "../evidence/tpm/verify.ts"
import { certificateFingerprint, parseCertificate } from "../pki/certificate.ts"
import type { Digest } from "../bytes/digest.ts"
import { appraise } from "../policy/appraise.ts"
import { demandedPieces, hostRequirementOf, own, type HostRequirement, type Machine } from "../policy/document.ts"
import { hostExpectationOf, teeExpectationOf } from "../policy/expectations.ts"
import { isTeeIdentity } from "../policy/listing.ts"
import type { ReplacedReferences } from "../policy/reference-updates.ts"
import { laboratoryRootsOf } from "../policy/tee.ts"
import type { TpmEnrolmentRequest } from "../protocol/messages.ts"
import type { EnrolmentFacts, Judgement, JudgeRequest, MachineJudge, PendingTpm } from "./judge.ts"

/** Length of the secret that an enrolling TPM must find: what fits one SHA-256 credential. */
const secretBytes = 32

export interface EvidenceJudgeOptions {
  /** Laboratory roots (DER) whose machines may enrol. */
  readonly laboratoryRoots: readonly Uint8Array[]
  readonly randomBytes: (length: number) => Uint8Array
  /** Adds what vouches for a TEE's platform where the evidence comes without it, from what the manager keeps; nothing of it is believed unverified. */
  readonly vouch: (evidence: TeeEvidence, laboratoryRoots: readonly Digest[], time: Date) => Promise<TeeEvidence>
}

/** The judge of machines: TPMs by endorsement chains, TEEs by their makers' chains, bundles through verifyMachine and appraise. */
export class EvidenceJudge implements MachineJudge {
  readonly #options: EvidenceJudgeOptions
  readonly #tpmRoots: readonly TrustedRoot[]
  readonly #laboratoryRoots: readonly Digest[]

  constructor(options: EvidenceJudgeOptions) {
    this.#options = options
    const laboratories = options.laboratoryRoots.map((der) => parseCertificate(der))
    this.#tpmRoots = [...loadVendorRoots(), ...laboratories.map(laboratoryRoot)]
    this.#laboratoryRoots = laboratories.map(certificateFingerprint)
  }

  async beginEnrolment(request: TpmEnrolmentRequest, time: Date): Promise<PendingTpm> {
    const [leaf, ...issuers] = request.ekCertificates.map((text, index) => parseBase64(text, `ekCertificates.${index}`))
    if (leaf === undefined) throw new EvidenceError("missing-piece", "no endorsement key certificate", { path: "ekCertificates" })
    const endorsementKey = parseSizedPublicArea(parseBase64(request.ekPublic, "ekPublic"))
    const attestationKey = parseSizedPublicArea(parseBase64(request.akPublic, "akPublic"))
    const endorsement = verifyEndorsementCertificate(
      { certificate: leaf, intermediates: issuers.map(parseCertificate), publicArea: endorsementKey },
      { role: "endorsement", roots: this.#tpmRoots, time: time.getTime(), revocationLists: [], quirks: [] },
    )
    // The identity counts only once the TPM has found the secret below.
    const identity = tpmIdentity(endorsement, attestationKey)
    const expectedSecret = this.#options.randomBytes(secretBytes)
    const credential = makeCredential(endorsementKey, tpmName(attestationKey), expectedSecret, drawCredentialSeed(endorsementKey))
    return { identity, credentialBlob: credential.credentialBlob, encryptedSecret: credential.secret, expectedSecret }
  }

  async identifyTee(document: TeeEvidenceDocument, facts: EnrolmentFacts, time: Date): Promise<TeeIdentity> {
    const evidence = await this.#options.vouch(decodeTeeEvidence(document), this.#laboratoryRoots, time)
    const reportData = sessionReportData(sessionDigest(enrolmentFields(facts)))
    const roots = teeRootsFor(evidence, this.#laboratoryRoots)
    return teeIdentity(verifyTee(evidence, { reportData, roots, time: time.getTime(), ccelQuirks: [] }))
  }

  async judge(request: JudgeRequest): Promise<Judgement> {
    const machine = machineOf(request)
    const bundle = decodeMachineBundle(request.bundle)
    const vouched = bundle.tee === undefined ? bundle : { ...bundle, tee: await this.#vouched(bundle.tee, machine, request.time) }
    const outcomes: (Judgement | EvidenceError)[] = []
    for (const candidate of request.candidates) {
      const outcome = judgeBy(request, vouched, machine, candidate)
      if (!(outcome instanceof EvidenceError) && outcome.judged !== undefined) return outcome
      outcomes.push(outcome)
    }
    // What is told of a machine that meets none of them is what the newest finds, unless only an older one's firmware faults explain its boot log.
    const told = outcomes.find((outcome) => !(outcome instanceof EvidenceError)) ?? outcomes[0]
    if (told === undefined) throw new TypeError("internal: nothing to hold a machine against")
    if (told instanceof EvidenceError) throw told
    return told
  }

  async #vouched(evidence: TeeEvidence, machine: Machine, time: Date): Promise<TeeEvidence> {
    return machine.level === "enclave" ? this.#options.vouch(evidence, laboratoryRootsOf(machine.accept), time) : evidence
  }
}

/** The machine that a run's policy demands. */
function machineOf({ policy, session }: JudgeRequest): Machine {
  const machine = own(policy.machines, own(policy.jobs, session.job)?.machine ?? "")
  if (machine === undefined) throw new TypeError("internal: run of a job or machine that the policy lacks")
  return machine
}

/** Judges by one candidate; evidence that is not genuine is an outcome, for by another candidate's firmware faults it may be. */
function judgeBy(request: JudgeRequest, bundle: MachineBundle, machine: Machine, replaced: ReplacedReferences): Judgement | EvidenceError {
  const { session, policy, references, time, previous, identity } = request
  let genuine: Genuine<MachineClaims>
  try {
    genuine = verifyMachine(bundle, {
      demanded: demandedPieces(machine),
      session: { ...session, version: 1 },
      ...hostExpectation(request, hostRequirementOf(machine), replaced),
      ...(machine.level === "enclave" ? { tee: teeExpectationOf(machine, time) } : {}),
      ...(request.knownBootLog === undefined ? {} : { knownBootLog: parseBase64(request.knownBootLog, "bootLog") }),
    })
  } catch (error) {
    if (error instanceof EvidenceError) return error
    throw error
  }
  const { host, tee } = genuine.claims
  if (isTeeIdentity(identity) && tee !== undefined) demandSamePlatform(identity, tee)
  const decision = appraise(genuine, {
    policy,
    job: session.job,
    references,
    replaced,
    time,
    ...(previous === undefined ? {} : { previous: previous.decision }),
  })
  const { session: carried } = genuine.claims
  if (decision.outcome === "refused") return { decision, session: carried, judged: undefined }
  return { decision, session: carried, judged: { decision, replaced, ...(host === undefined ? {} : { host: previousHost(host) }) } }
}

function hostExpectation(
  { session, identity, references, previous }: JudgeRequest,
  requirement: HostRequirement | undefined,
  replaced: ReplacedReferences,
): { host?: HostJudging } {
  parseHex(session.nonce, "nonce")
  if (requirement === undefined) return {}
  return { host: { ...hostExpectationOf(requirement, references, replaced), identity: identityOf(identity), previous: previous?.host ?? "none" } }
}

type HostJudging = Omit<HostExpectation, "extraData">

/** A run that demands a TPM is never offered to a machine that enrolled without one. */
function identityOf(identity: JudgeRequest["identity"]): TpmIdentity {
  if (isTeeIdentity(identity)) throw new EvidenceError("wrong-binding", "the machine enrolled without a TPM", { path: "bundle.tpm" })
  return identity
}

/** The machine that enrolled under the name, as far as its processor tells. @throws {EvidenceError} `wrong-binding` */
function demandSamePlatform(enrolled: TeeIdentity, tee: GenuineTee): void {
  const found = teeIdentity(tee)
  for (const name of ["tee", "root", "platform"] as const)
    if (found[name] !== enrolled[name])
      throw new EvidenceError("wrong-binding", `${name} ${found[name] ?? "masked"}, enrolled is ${enrolled[name] ?? "masked"}`, {
        path: "bundle.tee",
      })
}
