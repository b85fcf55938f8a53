import { Aes256Gcm, CipherSuite, HkdfSha256 } from "@hpke/core"
import { XWing } from "@hpke/hybridkem-x-wing"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { encodeBase64, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { ProtocolError } from "./errors.ts"

/**
 * Single-shot HPKE, RFC 9180 base mode, with the post-quantum hybrid KEM X-Wing (draft-connolly-cfrg-xwing-kem), HKDF-SHA256 and AES-256-GCM. What a
 * message is for goes into `info`; what it belongs to goes, as canonical JSON, into the additional data, so that a message moved to another
 * policy, run or manager does not open.
 */

export type HpkePurpose = "deposit" | "release" | "secret" | "unlock"

/** What a deposit belongs to. */
export interface DepositContext {
  readonly purpose: "deposit"
  readonly policy: string
  readonly artifact: string
  /** Digest of the signed manifest. */
  readonly manifest: string
  /** Instance of the manager. */
  readonly manager: string
}

/** What a release belongs to. */
export interface ReleaseContext {
  readonly purpose: "release"
  /** Session digest that the evidence was bound to, `sha256:…`. */
  readonly session: string
  readonly policy: string
  readonly run: string
}

/** What a party's secret belongs to. */
export interface SecretContext {
  readonly purpose: "secret"
  readonly policy: string
  readonly secret: string
  /** As the policy has it. */
  readonly commitment: string
  /** Instance of the manager. */
  readonly manager: string
}

/** What a share of a vault key belongs to. */
export interface UnlockContext {
  readonly purpose: "unlock"
  /** Instance of the manager. */
  readonly manager: string
  /** Id of the set that the share is of. */
  readonly set: string
  /** TLS key of the locked manager: fresh with every start. */
  readonly tlsKey: string
  /** Key of the custodian. */
  readonly custodian: string
}

export type HpkeContext = DepositContext | ReleaseContext | SecretContext | UnlockContext

export interface HpkeKeyPair {
  /** 1216 bytes. */
  readonly publicKey: Uint8Array
  /** 32-byte seed, draft section 5.2. */
  readonly privateKey: Uint8Array
}

export interface SealedMessage {
  /** Base64 of the encapsulated key, 1120 bytes. */
  readonly enc: string
  /** Base64 of ciphertext and 16-byte tag. */
  readonly ciphertext: string
}

export async function generateHpkeKeyPair(): Promise<HpkeKeyPair> {
  const suite = makeSuite()
  const pair = await suite.kem.generateKeyPair()
  return {
    publicKey: new Uint8Array(await suite.kem.serializePublicKey(pair.publicKey)),
    privateKey: new Uint8Array(await suite.kem.serializePrivateKey(pair.privateKey)),
  }
}

/** @throws {ProtocolError} `wrong-message` for a public key that is none */
export async function sealMessage(publicKey: Uint8Array, context: HpkeContext, plaintext: Uint8Array): Promise<SealedMessage> {
  const suite = makeSuite()
  try {
    const recipientPublicKey = await suite.kem.deserializePublicKey(exactBuffer(publicKey))
    const { enc, ct } = await suite.seal({ recipientPublicKey, info: infoOf(context.purpose) }, exactBuffer(plaintext), aadOf(context))
    return { enc: encodeBase64(new Uint8Array(enc)), ciphertext: encodeBase64(new Uint8Array(ct)) }
  } catch (cause) {
    throw new ProtocolError("wrong-message", "cannot seal to this public key", { cause })
  }
}

/** @throws {ProtocolError} `wrong-message` for another key, another context or changed bytes; `MalformedError` for text that is not base64 */
export async function openMessage(privateKey: Uint8Array, context: HpkeContext, message: SealedMessage): Promise<Uint8Array> {
  const suite = makeSuite()
  const enc = parseBase64(message.enc, "enc")
  const ciphertext = parseBase64(message.ciphertext, "ciphertext")
  try {
    const recipientKey = await suite.kem.deserializePrivateKey(exactBuffer(privateKey))
    const options = { recipientKey, enc: exactBuffer(enc), info: infoOf(context.purpose) }
    return new Uint8Array(await suite.open(options, exactBuffer(ciphertext), aadOf(context)))
  } catch (cause) {
    throw new ProtocolError("wrong-message", "does not open with this key in this context", { cause })
  }
}

/** A suite holds no keys; a fresh one per call keeps its state out of the module. */
function makeSuite(): CipherSuite {
  return new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() })
}

function infoOf(purpose: HpkePurpose): ArrayBuffer {
  return exactBuffer(encodeUtf8(`perun ${purpose} v1`))
}

function aadOf(context: HpkeContext): ArrayBuffer {
  return exactBuffer(canonicalJsonBytes(context))
}

/** The library wants whole ArrayBuffers; views of a larger one would be read past their end. */
function exactBuffer(bytes: Uint8Array): ArrayBuffer {
  const copy = new ArrayBuffer(bytes.length)
  new Uint8Array(copy).set(bytes)
  return copy
}
