import { UnavailableError } from "../../bytes/error.ts"
import { encodeBase64, parseBase64 } from "../../bytes/text.ts"
import type { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import type { TeeEvidenceDocument } from "../../evidence/tee/format.ts"
import type { EnrolmentAnswer, EnrolmentChallenge, EnrolmentRequest, HostView } from "../../protocol/messages.ts"
import { AgentError } from "../error.ts"

/** The manager's side of an enrolment: two calls of its API. */
export interface EnrolmentExchange {
  begin(request: EnrolmentRequest): Promise<EnrolmentChallenge>
  answer(enrolment: string, answer: EnrolmentAnswer): Promise<HostView>
}

/**
 * Enrols this host by its TPM: shows the endorsement key with its certificate and the attestation key, and proves by ActivateCredential that one TPM holds both.
 * @throws {UnavailableError} `unsupported` where the TPM has no endorsement key certificate
 * @throws {TpmError} `wrong-credential` where the challenge was made for other keys; {AgentError} `wrong-grant`; and what the exchange throws
 */
export async function enrolTpm(tpm: HostTpm, host: string, exchange: EnrolmentExchange): Promise<HostView> {
  const { ekCertificates, ekPublic, akPublic } = await tpm.collectEndorsement()
  if (ekCertificates.length === 0)
    throw new UnavailableError("unsupported", `the TPM at ${tpm.name} has no endorsement key certificate: nobody vouches that it is genuine`)
  const challenge = await exchange.begin({
    host,
    ekCertificates: ekCertificates.map((certificate) => encodeBase64(certificate)),
    ekPublic: encodeBase64(ekPublic),
    akPublic: encodeBase64(akPublic),
  })
  if (!("secret" in challenge)) throw new AgentError("wrong-grant", "the manager asks an enrolling TPM for something else", { path: "challenge" })
  const secret = await tpm.activate(parseBase64(challenge.credentialBlob, "credentialBlob"), parseBase64(challenge.secret, "secret"))
  return await exchange.answer(challenge.enrolment, { secret: encodeBase64(secret) })
}

/**
 * Enrols this host by its TEE, for a machine without a TPM: the evidence covers the manager's nonce and this agent's TLS key, and says which processor it is.
 * @throws {AgentError} `wrong-grant` where the manager asks for something else, or for another manager; what `collect` and the exchange throw
 */
export async function enrolTee(
  collect: (nonce: string) => Promise<TeeEvidenceDocument>,
  manager: string,
  host: string,
  exchange: EnrolmentExchange,
): Promise<HostView> {
  const challenge = await exchange.begin({ host, piece: "tee" })
  if (!("nonce" in challenge)) throw new AgentError("wrong-grant", "the manager asks an enrolling TEE for something else", { path: "challenge" })
  if (challenge.manager !== manager) throw new AgentError("wrong-grant", "the enrolment is with another manager", { path: "challenge.manager" })
  return await exchange.answer(challenge.enrolment, { evidence: await collect(challenge.nonce) })
}
