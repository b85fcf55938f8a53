import { UnavailableError } from "../../bytes/error.ts"
import { encodeBase64, parseBase64 } from "../../bytes/text.ts"
import type { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import type { EnrolmentChallenge, EnrolmentRequest, HostView } from "../../protocol/messages.ts"

/** The manager's side of an enrolment: two calls of its API. */
export interface EnrolmentExchange {
  begin(request: EnrolmentRequest): Promise<EnrolmentChallenge>
  answer(enrolment: string, answer: { readonly secret: string }): Promise<HostView>
}

/**
 * Enrols this host: shows the endorsement key with its certificate and the attestation key, and proves by ActivateCredential that one TPM holds both.
 * @throws {UnavailableError} `unsupported` where the TPM has no endorsement key certificate
 * @throws {TpmError} `wrong-credential` where the challenge was made for other keys; and what the exchange throws
 */
export async function enrol(tpm: HostTpm, host: string, exchange: EnrolmentExchange): Promise<HostView> {
  const { ekCertificates, ekPublic, akPublic } = await tpm.collectEndorsement()
  if (ekCertificates.length === 0)
    throw new UnavailableError("unsupported", `the TPM at ${tpm.name} has no endorsement key certificate: nobody vouches that it is genuine`)
  const challenge = await exchange.begin({
    host,
    ekCertificates: ekCertificates.map((certificate) => encodeBase64(certificate)),
    ekPublic: encodeBase64(ekPublic),
    akPublic: encodeBase64(akPublic),
  })
  const secret = await tpm.activate(parseBase64(challenge.credentialBlob, "credentialBlob"), parseBase64(challenge.secret, "secret"))
  return await exchange.answer(challenge.enrolment, { secret: encodeBase64(secret) })
}
