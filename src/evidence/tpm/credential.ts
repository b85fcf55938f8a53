import { constants, createCipheriv, createHmac, diffieHellman, generateKeyPairSync, publicEncrypt, randomBytes } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeUtf8, parseBase64Url } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hashSizes } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { checkEndorsementKey } from "./attestation-key.ts"
import { kdfA, kdfE } from "./client/kdf.ts"
import { curves } from "./algorithms.ts"
import { encodeIdObject } from "./format.ts"
import { padStart, publicKeyOf } from "./keys.ts"
import type { EccPublicArea, PublicArea } from "./public-area.ts"

/** What TPM2_ActivateCredential opens: only in the TPM that holds the endorsement key, and only next to the key with the given name. */
export interface Credential {
  /** TPM2B_ID_OBJECT. */
  readonly credentialBlob: Uint8Array
  /** TPM2B_ENCRYPTED_SECRET. */
  readonly secret: Uint8Array
}

/** The randomness of one credential: for RSA keys a seed as long as a digest of the name algorithm, for ECC keys a fresh private key on their curve. */
export type CredentialSeed = { readonly kind: "rsa"; readonly seed: Uint8Array } | { readonly kind: "ecc"; readonly ephemeral: KeyObject }

/** Fresh randomness that fits the endorsement key; the only function here that draws any. */
export function drawCredentialSeed(endorsementKey: PublicArea): CredentialSeed {
  if (endorsementKey.type !== "ecc") return { kind: "rsa", seed: new Uint8Array(randomBytes(hashSizes[endorsementKey.nameAlg])) }
  return { kind: "ecc", ephemeral: generateKeyPairSync("ec", { namedCurve: endorsementKey.curve }).privateKey }
}

/**
 * Wraps `challenge` for the TPM that holds `endorsementKey`, bound to the name of an attestation key. TPM 2.0 Library Part 1, 24 (Credential Protection) and
 * Annexes B.10 and C.6; Part 3, TPM2_MakeCredential. The same inputs give the same protection keys; RSA's OAEP padding alone draws its own randomness in OpenSSL.
 * @throws {EvidenceError} `wrong-key`, `weak-algorithm` when the endorsement key may not be one
 * @throws {TypeError} for a challenge longer than a digest, or a seed that does not fit
 */
export function makeCredential(
  endorsementKey: PublicArea,
  attestationKeyName: Uint8Array,
  challenge: Uint8Array,
  random: CredentialSeed,
): Credential {
  checkEndorsementKey(endorsementKey)
  const { nameAlg } = endorsementKey
  if (nameAlg === "sha1" || endorsementKey.type === "keyedhash" || endorsementKey.symmetric === undefined)
    throw new TypeError("internal: unchecked key")
  if (challenge.length === 0 || challenge.length > hashSizes[nameAlg]) throw new TypeError("challenge must be 1 byte to one digest long")
  const { seed, secret } = endorsementKey.type === "rsa" ? wrapSeedRsa(endorsementKey, nameAlg, random) : wrapSeedEcc(endorsementKey, nameAlg, random)
  const keyBytes = endorsementKey.symmetric.keyBits / 8
  const empty = new Uint8Array(0)
  const cipherKey = kdfA(nameAlg, seed, "STORAGE", attestationKeyName, empty, keyBytes)
  const macKey = kdfA(nameAlg, seed, "INTEGRITY", empty, empty, hashSizes[nameAlg])
  const encIdentity = encryptCfb(cipherKey, new ByteWriter().sized16be(challenge).take())
  const integrityHmac = new Uint8Array(createHmac(nameAlg, macKey).update(encIdentity).update(attestationKeyName).digest())
  return { credentialBlob: encodeIdObject({ integrityHmac, encIdentity }), secret: new ByteWriter().sized16be(secret).take() }
}

interface WrappedSeed {
  readonly seed: Uint8Array
  readonly secret: Uint8Array
}

/** Annex B.10.3: the seed is a digest's length, OAEP with the name algorithm and the label "IDENTITY" with its terminating zero. */
function wrapSeedRsa(area: PublicArea, nameAlg: HashName, random: CredentialSeed): WrappedSeed {
  if (random.kind !== "rsa" || random.seed.length !== hashSizes[nameAlg]) throw new TypeError(`an RSA endorsement key needs a seed of one digest`)
  const { seed } = random
  const options = { key: publicKeyOf(area), padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: nameAlg, oaepLabel: encodeUtf8("IDENTITY\0") }
  return { seed, secret: new Uint8Array(publicEncrypt(options, seed)) }
}

/** Annex C.6.3: one-pass Diffie-Hellman; the seed is KDFe over the shared x coordinate and both parties' x coordinates. */
function wrapSeedEcc(area: EccPublicArea, nameAlg: HashName, random: CredentialSeed): WrappedSeed {
  if (random.kind !== "ecc") throw new TypeError("an ECC endorsement key needs an ephemeral key")
  const { fieldBytes } = curves[area.curve]
  const own = random.ephemeral.export({ format: "jwk" })
  if (own.crv !== area.curve || own.x === undefined || own.y === undefined) throw new TypeError("the ephemeral key is on another curve")
  const point = { x: parseBase64Url(own.x), y: parseBase64Url(own.y) }
  const shared = new Uint8Array(diffieHellman({ privateKey: random.ephemeral, publicKey: publicKeyOf(area) }))
  const seed = kdfE(nameAlg, shared, "IDENTITY", point.x, padStart(area.x, fieldBytes), hashSizes[nameAlg])
  return { seed, secret: new ByteWriter().sized16be(point.x).sized16be(point.y).take() }
}

/** AES-CFB with a zero IV: the key is used once. TPM 2.0 Library Part 1, 24.4. */
function encryptCfb(key: Uint8Array, plaintext: Uint8Array): Uint8Array {
  const cipher = createCipheriv(`aes-${key.length * 8}-cfb`, key, new Uint8Array(16))
  return concatBytes(cipher.update(plaintext), cipher.final())
}
