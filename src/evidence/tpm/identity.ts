import type { Genuine } from "../genuine.ts"
import { checkAttestationKey } from "./attestation-key.ts"
import type { EndorsementClaims, TpmIdentity } from "./claims.ts"
import { tpmNameText } from "./keys.ts"
import type { PublicArea } from "./public-area.ts"

/**
 * The identity record of a machine. To be made only after its TPM answered MakeCredential over the name of `attestationKey` for the certified endorsement key.
 * @throws {EvidenceError} `wrong-key`, `weak-algorithm` when the attestation key may not be one
 */
export function tpmIdentity(endorsement: Genuine<EndorsementClaims>, attestationKey: PublicArea): TpmIdentity {
  const { claims } = endorsement
  if (claims.role !== "endorsement") throw new TypeError("an identity needs the certificate of an endorsement key")
  if (!claims.hasPublicArea) throw new TypeError("an identity needs the endorsement key in TPM form")
  checkAttestationKey(attestationKey)
  const names = [claims.manufacturer, claims.model, claims.version].join(" ")
  return {
    endorsementKey: claims.key,
    root: claims.root,
    rootKind: claims.rootKind,
    description: claims.isCloud ? `${names} (cloud vTPM)` : names,
    attestationKeyName: tpmNameText(attestationKey),
  }
}
