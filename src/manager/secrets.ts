import type { Digest } from "../bytes/digest.ts"
import { encodeBase64, encodeHex, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { own, type Job, type Policy } from "../policy/document.ts"
import { demandFits, type ImportedSecret, type MadeSecret, secretCommitment } from "../policy/secrets.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { openMessage } from "../protocol/hpke.ts"
import { type ReleasedKeys, saltedSecretSchema, type SecretRequest, type SecretView } from "../protocol/messages.ts"
import { parseMessage } from "../protocol/wire.ts"
import { ownerHasSigned } from "./consent.ts"
import { type ManagerContext, pairKey, type Reader, type StakeholderCaller, transact } from "./context.ts"
import { appendReceipt } from "./receipts.ts"
import { demandStakeholder, readStanding, type Standing } from "./standing.ts"
import type { Transaction } from "./store.ts"

/**
 * Takes the value of a secret: from the party whom the policy names, under a policy that it signed itself, sealed to this manager for exactly this policy and secret. It must be the value that the
 * policy's commitment was made of.
 * @throws {ProtocolError} `not-found`, `not-permitted`, `policy-withdrawn`, `policy-expired`, `policy-inactive`, `wrong-message`, `wrong-secret`
 * @throws {RefusedError} `owner-not-signed`; {MalformedError} for a value that the program could not be given so
 */
export async function depositSecret(context: ManagerContext, caller: StakeholderCaller, digest: Digest, request: SecretRequest): Promise<SecretView> {
  const { secret: name } = request
  const { policy } = demandOpenForSecret(context, context.store, caller, digest, name)
  const { owner, commitment } = importedSecret(policy, name)
  const plaintext = await openMessage(
    context.keys.depositPrivateKey,
    { purpose: "secret", policy: digest, secret: name, commitment, manager: context.description.instance },
    request.sealedValue,
  )
  const { salt, value: text } = parseMessage(saltedSecretSchema, plaintext, maxPlaintextBytes)
  const value = parseBase64(text, "value")
  if (secretCommitment({ salt, value }) !== commitment)
    throw new ProtocolError("wrong-secret", "the value is not the one that the policy's commitment was made of", { path: name })
  demandFits(name, value, usesOf(policy, name))
  return transact(context, (tx) => {
    // Opening took time in which consent may have ended.
    demandOpenForSecret(context, tx, caller, digest, name)
    const key = pairKey(digest, name)
    const at = context.time.nowText()
    if (tx.get("secrets", key) === undefined) {
      tx.put("secrets", key, { policy: digest, secret: name, salt, value: text, at })
      appendReceipt(context, tx, { kind: "secret-deposited", policy: digest, by: owner, secrets: [name] })
    }
    return { policy: digest, secret: name, owner, depositedAt: tx.get("secrets", key)?.at ?? at }
  })
}

const maxPlaintextBytes = 131_072

function importedSecret(policy: Policy, name: string): ImportedSecret {
  const declared = own(policy.secrets ?? {}, name)
  if (declared === undefined) throw new ProtocolError("not-found", `the policy has no secret ${name}`)
  if (!("owner" in declared)) throw new ProtocolError("not-permitted", `the manager draws ${name} itself`, { path: "secret" })
  return declared
}

function usesOf(policy: Policy, name: string): Parameters<typeof demandFits>[2] {
  return Object.values(policy.jobs).flatMap(({ secrets }) => own(secrets ?? {}, name) ?? [])
}

function demandOpenForSecret(context: ManagerContext, reader: Reader, caller: StakeholderCaller, digest: Digest, name: string): Standing {
  const standing = readStanding(context, reader, digest)
  const party = demandStakeholder(standing.policy, caller)
  if (importedSecret(standing.policy, name).owner !== party)
    throw new ProtocolError("not-permitted", "only the party that the policy names brings a secret", { path: "secret" })
  if (standing.state === "withdrawn") throw new ProtocolError("policy-withdrawn", "consent to the policy was withdrawn")
  if (standing.state === "expired") throw new ProtocolError("policy-expired", `the policy ended at ${standing.policy.expires}`)
  if (standing.state === "superseded") throw new ProtocolError("policy-inactive", "a successor took the policy's place")
  ownerHasSigned(standing, party)
  return standing
}

/** Draws what a policy wants drawn once, as it becomes active. */
export function makePolicySecrets(context: ManagerContext, tx: Transaction, digest: Digest, policy: Policy): void {
  for (const [name, secret] of Object.entries(policy.secrets ?? {})) {
    if (!("made" in secret) || secret.made.per !== "policy") continue
    tx.put("secrets", pairKey(digest, name), { policy: digest, secret: name, value: encodeBase64(draw(context, secret)), at: context.time.nowText() })
  }
}

/** Secrets of a job that parties have not brought yet. */
export function missingSecrets(reader: Reader, digest: Digest, policy: Policy, job: Job): readonly string[] {
  return Object.keys(job.secrets ?? {}).filter((name) => {
    const secret = own(policy.secrets ?? {}, name)
    return secret !== undefined && "owner" in secret && reader.get("secrets", pairKey(digest, name)) === undefined
  })
}

/** Exactly the values that a job is given. @throws {ProtocolError} `wrong-state` where one is not here */
export function releasedSecrets(context: ManagerContext, digest: Digest, policy: Policy, job: Job): ReleasedKeys["secrets"] {
  return Object.fromEntries(
    Object.keys(job.secrets ?? {}).map((name) => {
      const secret = own(policy.secrets ?? {}, name)
      if (secret === undefined) throw new TypeError(`internal: the policy has no secret ${name}`)
      if ("made" in secret && secret.made.per === "run") return [name, { value: encodeBase64(draw(context, secret)) }]
      const record = context.store.get("secrets", pairKey(digest, name))
      if (record === undefined) throw new ProtocolError("wrong-state", `the secret ${name} is not here`)
      return [name, { value: record.value, ...(record.salt === undefined ? {} : { salt: record.salt }) }]
    }),
  )
}

/** The text that programs get. */
function draw({ randomBytes }: ManagerContext, { made }: MadeSecret): Uint8Array {
  const bytes = randomBytes(made.bytes)
  return encodeUtf8(made.as === "hex" ? encodeHex(bytes) : encodeBase64(bytes))
}
