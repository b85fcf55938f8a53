import { randomBytes, type KeyObject } from "node:crypto"
import { encodeHex, parseBase64 } from "../bytes/text.ts"
import { signStatement } from "../pki/statement.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { ProtocolError } from "./errors.ts"
import { sealMessage } from "./hpke.ts"
import {
  demandShare,
  type LockAnswer,
  type SharePlace,
  type UnlockAnswer,
  unlockContext,
  unlockDigest,
  verifyLock,
  type VerifiedLock,
} from "./manager-lock.ts"
import { askOnce, connectToKey, type VerifyOptions } from "./manager-connection.ts"
import { routes } from "./routes.ts"
import type { TlsIdentity } from "./tls.ts"

/** A locked manager as a custodian has verified it, with its own share, still sealed. */
export interface FoundLock extends VerifiedLock {
  readonly place: SharePlace
  /** age file with the custodian's share. */
  readonly sealedShare: Uint8Array
}

/**
 * Asks a locked manager what it is, over a fresh nonce, and verifies the answer; nothing of the custodian's is sent.
 * @throws as verifyLock; {ProtocolError} `not-permitted` for who is no custodian, `wrong-state` where it is not locked
 */
export async function lookAtLock(
  url: URL,
  { accept, custodian }: { readonly accept: readonly TeeRequirement[] | undefined; readonly custodian: string },
  identity: TlsIdentity,
  options: VerifyOptions,
): Promise<FoundLock> {
  const nonce = encodeHex(new Uint8Array(randomBytes(32)))
  return askOnce(url, identity, options, async (transport, call, peerTlsKey) => {
    const answer: LockAnswer = await transport.call(routes.lockState, { ...call, query: { nonce } })
    const verified = verifyLock(answer, { accept, nonce, peerTlsKey: peerTlsKey(), time: options.now.getTime() })
    const index = verified.lock.shares.custodians.findIndex(({ key }) => key === custodian)
    const [place, sealed] = [verified.lock.shares.custodians[index], answer.sealedShares[index]]
    if (place === undefined || sealed === undefined)
      throw new ProtocolError("not-permitted", `${custodian} is no custodian of this manager's vault key`)
    return { ...verified, place, sealedShare: parseBase64(sealed, "sealedShares") }
  })
}

/**
 * Hands a share in: sealed to the key of this start, signed for it, over a connection that ends at the TLS key that the manager named.
 * @throws {ProtocolError} `wrong-share` for a share that is not the custodian's; {ProblemError} what the manager answers
 */
export async function handInShare(
  url: URL,
  { lock, place }: Pick<FoundLock, "lock" | "place">,
  share: Uint8Array,
  signer: KeyObject,
  identity: TlsIdentity,
): Promise<UnlockAnswer> {
  demandShare(lock.shares.set, place, share)
  const sealed = await sealMessage(parseBase64(lock.shareKey, "shareKey"), unlockContext(lock, place.key), share)
  const signature = signStatement("unlock", unlockDigest(lock, place.key, sealed), signer)
  using transport = connectToKey(url, lock.tlsKey, identity)
  return await transport.call(routes.unlockManager, { body: { perun: 1, custodian: place.key, share: sealed, signature } })
}
