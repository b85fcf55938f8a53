import { Encrypter } from "age-encryption"
import { combine, split } from "shamir-secret-sharing"
import { MalformedError } from "../bytes/error.ts"
import { encodeBase64, encodeHex } from "../bytes/text.ts"
import { parseSshPublicKey } from "../pki/ssh-key.ts"
import { maxCustodians, minThreshold } from "../policy/manager-vault.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { shareCommitment, type SharePlace, type ShareSet } from "../protocol/manager-lock.ts"

/** Shares of a vault key (Shamir's scheme over GF(2⁸)): how they are made and sealed, and how the key comes back. */

/** Who gets a share: an identity card without what this does not need. */
export interface ShareHolder {
  readonly name: string
  /** SSH text of the key that signs for the share. */
  readonly key: string
  /** age recipient that the share is sealed to. */
  readonly recipient: string
}

export interface SharedOut {
  readonly shares: ShareSet
  /** In the order of the custodians: base64 of an age file with the share. */
  readonly sealedShares: string[]
}

/**
 * Shares a key among its holders, any `threshold` of whom bring it back, and seals each share to its holder. Fewer shares tell nothing of the key.
 * @throws {MalformedError} `malformed` for a number of holders or a threshold outside the bounds, a key or recipient that is none; `duplicate` for a holder named twice
 */
export async function shareOut(
  key: Uint8Array,
  holders: readonly ShareHolder[],
  threshold: number,
  randomBytes: (length: number) => Uint8Array,
): Promise<SharedOut> {
  demandHolders(holders, threshold)
  const set = encodeHex(randomBytes(16))
  const shares = await split(key, holders.length, threshold)
  const custodians: SharePlace[] = []
  const sealedShares: string[] = []
  try {
    for (const [index, { name, key: text, recipient }] of holders.entries()) {
      const share = shares[index]
      if (share === undefined) throw new TypeError("internal: fewer shares than holders")
      const place = { name, key: parseSshPublicKey(text).text, recipient, salt: encodeHex(randomBytes(16)) }
      custodians.push({ ...place, commitment: shareCommitment(set, place, share) })
      sealedShares.push(encodeBase64(await sealTo(recipient, share, name)))
    }
  } finally {
    for (const share of shares) share.fill(0)
  }
  return { shares: { set, threshold, custodians }, sealedShares }
}

/** @throws {MalformedError} */
export function demandHolders(holders: readonly ShareHolder[], threshold: number): void {
  if (holders.length < minThreshold || holders.length > maxCustodians)
    throw new MalformedError("malformed", `${holders.length} custodians, expected ${minThreshold} to ${maxCustodians}`, { path: "custodians" })
  if (!Number.isInteger(threshold) || threshold < minThreshold || threshold > holders.length)
    throw new MalformedError(
      "malformed",
      `${threshold} of ${holders.length} custodians, expected ${minThreshold} to ${holders.length}: one alone must not have the key`,
      {
        path: "threshold",
      },
    )
  for (const part of ["name", "key", "recipient"] as const) {
    const values = holders.map((holder) => holder[part])
    const twice = values.find((value, index) => values.indexOf(value) < index)
    if (twice !== undefined) throw new MalformedError("duplicate", `two custodians have the ${part} ${twice}`, { path: "custodians" })
  }
}

async function sealTo(recipient: string, share: Uint8Array, name: string): Promise<Uint8Array> {
  const encrypter = new Encrypter()
  try {
    encrypter.addRecipient(recipient)
  } catch (cause) {
    throw new MalformedError("malformed", `${name} has a recipient that is none`, { path: "recipient", cause })
  }
  return await encrypter.encrypt(share)
}

/**
 * The key that shares give. Whether it is the right one, only what it opens can tell.
 * @throws {ProtocolError} `store-changed` for shares that are not of one set, whatever their commitments say
 */
export async function rebuild(shares: readonly Uint8Array[]): Promise<Uint8Array> {
  try {
    return await combine([...shares])
  } catch (cause) {
    throw new ProtocolError("store-changed", "the shares do not fit each other: vault.json was changed", { cause })
  }
}
