import { randomBytes } from "node:crypto"
import { z } from "zod"
import { createFileDurably, readFileBounded } from "../bytes/durable.ts"
import type { Digest } from "../bytes/digest.ts"
import { encodeBase64, encodeHex, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { own, type Policy, policyDigest } from "../policy/document.ts"
import { demandFits, maxSecretBytes, type SaltedSecret, secretCommitment } from "../policy/secrets.ts"
import { stakeholderOfKey } from "../policy/approval.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { sealMessage } from "../protocol/hpke.ts"
import { saltedSecretSchema, type SecretView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { parseMessage } from "../protocol/wire.ts"
import type { ManagerConnection } from "./connection.ts"
import { demandOwnSignature, refuseOtherManager } from "./deposit.ts"

const fileSchema = saltedSecretSchema.extend({ perun: z.literal(1) })
const maxFileBytes = 262_144

/**
 * Keeps a value with a fresh salt in a file that must not exist, for its owner alone, and gives the commitment that a policy names.
 * @throws {MalformedError} for a value that is empty or too large; {AlreadyExistsError}; {UnavailableError}
 */
export async function makeSecretFile(path: string, value: Uint8Array): Promise<Digest> {
  demandFits("value", value, [])
  const secret: SaltedSecret = { salt: encodeHex(new Uint8Array(randomBytes(32))), value }
  await createFileDurably(path, `${JSON.stringify({ perun: 1, salt: secret.salt, value: encodeBase64(value) })}\n`, { mode: 0o600 })
  return secretCommitment(secret)
}

/** @throws {MalformedError}; {UnavailableError} */
export async function loadSecretFile(path: string): Promise<SaltedSecret> {
  const { salt, value } = parseMessage(fileSchema, await readFileBounded(path, maxFileBytes), maxFileBytes)
  return { salt, value: parseBase64(value, "value") }
}

export interface SecretDepositOptions {
  readonly policy: Policy
  /** Name of the secret in the policy. */
  readonly secret: string
  readonly file: string
}

/**
 * Brings the value of a secret under a policy: HPKE to the manager's deposit key, bound to policy, secret, commitment and manager. What can be judged here is judged before anything is sent.
 * @throws {ProtocolError} `wrong-manager`, `not-found`, `not-permitted`, `wrong-secret`, `policy-withdrawn`, `policy-expired`, `policy-inactive`; {RefusedError} `owner-not-signed`; {MalformedError}
 * @throws {ProblemError} what the manager answers
 */
export async function depositSecret(connection: ManagerConnection, { policy, secret: name, file }: SecretDepositOptions): Promise<SecretView> {
  refuseOtherManager(connection, policy)
  const declared = own(policy.secrets ?? {}, name)
  if (declared === undefined) throw new ProtocolError("not-found", `the policy has no secret ${name}`)
  if (!("owner" in declared)) throw new ProtocolError("not-permitted", `the manager draws ${name} itself`)
  const caller = stakeholderOfKey(policy, connection.ownKey)
  if (caller !== declared.owner)
    throw new ProtocolError("not-permitted", `${name} is for ${declared.owner} to bring; you are ${caller ?? "no party"}`)
  const secret = await loadSecretFile(file)
  if (secretCommitment(secret) !== declared.commitment)
    throw new ProtocolError("wrong-secret", "the file holds another value than the policy's commitment was made of", { path: file })
  demandFits(
    name,
    secret.value,
    Object.values(policy.jobs).flatMap(({ secrets }) => own(secrets ?? {}, name) ?? []),
  )
  await demandOwnSignature(connection, policy, declared.owner)
  const { instance, depositKey } = connection.description
  const digest = policyDigest(policy)
  const context = { purpose: "secret", policy: digest, secret: name, commitment: declared.commitment, manager: instance } as const
  const plaintext = encodeUtf8(JSON.stringify({ salt: secret.salt, value: encodeBase64(secret.value) }))
  const sealedValue = await sealMessage(parseBase64(depositKey), context, plaintext)
  return connection.call(routes.depositSecret, { params: { digest }, body: { secret: name, sealedValue } })
}

/** Largest value. */
export const largestSecret = maxSecretBytes
