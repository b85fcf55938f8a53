import type { KeyObject } from "node:crypto"
import { EvidenceError } from "../errors.ts"
import { publicKeyOf } from "./keys.ts"
import { asEvidence } from "./pki-errors.ts"
import type { ObjectAttribute, PublicArea } from "./public-area.ts"

/** What a key's public area must say for its role. */
interface KeyRole {
  readonly name: string
  readonly set: readonly ObjectAttribute[]
  readonly clear: readonly ObjectAttribute[]
}

/**
 * `restricted` is what keeps root on the host from signing a hand-made quote: such a key never signs outside data that starts with TPM_GENERATED_VALUE.
 * The others keep the private key in this one TPM.
 */
const attestationRole: KeyRole = {
  name: "attestation key",
  set: ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"],
  clear: ["decrypt", "encryptedDuplication", "x509sign"],
}

/** TCG EK Credential Profile 2.x, templates L and H: a restricted decryption key, so that only ActivateCredential and sessions can use it. */
const endorsementRole: KeyRole = {
  name: "endorsement key",
  set: ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "adminWithPolicy", "restricted", "decrypt"],
  clear: ["sign", "encryptedDuplication"],
}

const minimumRsaBits = 2048

/**
 * Refuses a public area that may not be an attestation key, and gives its key. Says nothing about whether the public area is genuine: that is proved by
 * MakeCredential over its name, or by a certificate.
 * @throws {EvidenceError} `wrong-key`, `weak-algorithm` (name algorithm)
 */
export function checkAttestationKey(area: PublicArea): KeyObject {
  const key = checkRole(area, attestationRole)
  if (area.type !== "keyedhash" && area.symmetric !== undefined) throw refuse(attestationRole, "has a cipher for children")
  if (area.type !== "keyedhash" && area.scheme === undefined) throw refuse(attestationRole, "has no fixed scheme")
  return key
}

/**
 * Refuses a public area that may not be an endorsement key, and gives its key.
 * @throws {EvidenceError} `wrong-key`, `weak-algorithm`
 */
export function checkEndorsementKey(area: PublicArea): KeyObject {
  const key = checkRole(area, endorsementRole)
  if (area.type !== "keyedhash" && area.symmetric === undefined) throw refuse(endorsementRole, "has no cipher for children")
  return key
}

function checkRole(area: PublicArea, role: KeyRole): KeyObject {
  if (area.nameAlg === "sha1") throw new EvidenceError("weak-algorithm", `${role.name}: name algorithm is sha-1`, { path: "TPMT_PUBLIC.nameAlg" })
  for (const attribute of role.set) if (!area.attributes.has(attribute)) throw refuse(role, `${attribute} is clear`)
  for (const attribute of role.clear) if (area.attributes.has(attribute)) throw refuse(role, `${attribute} is set`)
  if (area.type === "rsa" && area.keyBits < minimumRsaBits) throw refuse(role, `RSA key of ${area.keyBits} bits`)
  return asEvidence("TPMT_PUBLIC", () => publicKeyOf(area))
}

function refuse(role: KeyRole, why: string): EvidenceError {
  return new EvidenceError("wrong-key", `${role.name}: ${why}`, { path: "TPMT_PUBLIC" })
}
