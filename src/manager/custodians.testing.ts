import { generateKeyPairSync, type KeyObject } from "node:crypto"
import { Decrypter, generateX25519Identity, identityToRecipient } from "age-encryption"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { ShareHolder } from "./shares.ts"

/** For tests: custodians with their secrets. */
export interface TestCustodian extends ShareHolder {
  readonly privateKey: KeyObject
  open(sealed: Uint8Array): Promise<Uint8Array>
}

export async function custodians(...names: readonly string[]): Promise<readonly TestCustodian[]> {
  return Promise.all(
    names.map(async (name) => {
      const { privateKey } = generateKeyPairSync("ed25519")
      const identity = await generateX25519Identity()
      const decrypter = new Decrypter()
      decrypter.addIdentity(identity)
      return {
        name,
        key: sshPublicKeyText(privateKey),
        recipient: await identityToRecipient(identity),
        privateKey,
        open: async (sealed: Uint8Array) => new Uint8Array(await decrypter.decrypt(sealed)),
      }
    }),
  )
}
