import {
  constants,
  createCipheriv,
  createDecipheriv,
  diffieHellman,
  generateKeyPairSync,
  publicEncrypt,
  randomBytes,
  type KeyObject,
} from "node:crypto"
import { bytesEqual, concatBytes } from "../../../bytes/compare.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { encodeUtf8, parseBase64Url } from "../../../bytes/text.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash, hashSizes, type HashName } from "../../../pki/signatures.ts"
import { algorithmId, curves } from "../algorithms.ts"
import { padStart, publicKeyOf } from "../keys.ts"
import { readSized, type EccPublicArea, type PublicArea } from "../public-area.ts"
import { permanentHandles, sessionAttributes } from "./constants.ts"
import { TpmError } from "./errors.ts"
import { hmac, kdfA, kdfE } from "./kdf.ts"

/** Hash of every session of this client; each TPM 2.0 has it. */
export const sessionHash = "sha256"

/** AES-128-CFB as TPMT_SYM_DEF, for parameter encryption. */
export const sessionSymmetric: Uint8Array = new ByteWriter().u16be(algorithmId("aes")).u16be(128).u16be(algorithmId("cfb")).take()

/** An authorization session that the TPM holds too; made by `startSession`. */
export class TpmSession {
  readonly handle: number
  readonly kind: "hmac" | "policy"
  /** KDFa over salt and bind authorization; empty in a session that is neither salted nor bound. */
  readonly #sessionKey: Uint8Array
  readonly #bind: BindEntity | undefined
  #nonceCaller: Uint8Array
  #nonceTpm: Uint8Array

  constructor(options: {
    readonly handle: number
    readonly kind: "hmac" | "policy"
    readonly salt: Uint8Array
    readonly bind?: BindEntity | undefined
    readonly nonceCaller: Uint8Array
    readonly nonceTpm: Uint8Array
  }) {
    this.handle = options.handle
    this.kind = options.kind
    this.#bind = options.bind
    this.#nonceCaller = options.nonceCaller
    this.#nonceTpm = options.nonceTpm
    const seed = concatBytes(trimmed(options.bind?.authValue ?? new Uint8Array(0)), options.salt)
    const isKeyed = options.bind !== undefined || options.salt.length > 0
    this.#sessionKey = isKeyed ? kdfA(sessionHash, seed, "ATH", options.nonceTpm, options.nonceCaller, digestBytes) : new Uint8Array(0)
  }

  /** The TPM's newest nonce: what an expiring PolicySecret is tied to. */
  get nonceTpm(): Uint8Array {
    return this.#nonceTpm
  }

  /** A new caller nonce for the next command. */
  roll(): void {
    this.#nonceCaller = freshNonce()
  }

  /** HMAC key in use on one entity. TPM 2.0 Library Part 1, 19.6.5, 19.6.11: the entity that a session is bound to does not count twice, a policy session counts none. */
  #hmacKey(use: SessionUse): Uint8Array {
    const isBound = this.#bind !== undefined && use.entityName !== undefined && bytesEqual(this.#bind.name, use.entityName)
    if (this.kind === "policy" || isBound) return this.#sessionKey
    return concatBytes(this.#sessionKey, trimmed(use.authValue))
  }

  /** TPM 2.0 Library Part 1, 19.6.5. `otherNonces`: of the decrypt and encrypt sessions, for the first session only. */
  commandHmac(use: SessionUse, cpHash: Uint8Array, otherNonces: Uint8Array, attributes: number): Uint8Array {
    const key = this.#hmacKey(use)
    if (this.kind === "policy" && key.length === 0) return new Uint8Array(0)
    return hmac(sessionHash, key, cpHash, this.#nonceCaller, this.#nonceTpm, otherNonces, Uint8Array.of(attributes))
  }

  /** Takes over the TPM's new nonce once the HMAC of the response is proved. @throws {TpmError} `forged-response` */
  acceptResponse(use: SessionUse, rpHash: Uint8Array, answer: SessionAnswer, command: string): void {
    const key = this.#hmacKey(use)
    const isUnkeyed = this.kind === "policy" && key.length === 0
    const expected = isUnkeyed
      ? new Uint8Array(0)
      : hmac(sessionHash, key, rpHash, answer.nonceTpm, this.#nonceCaller, Uint8Array.of(answer.attributes))
    if (!bytesEqual(expected, answer.hmac)) throw new TpmError("forged-response", `${command}: the HMAC of the response does not fit`)
    this.#nonceTpm = answer.nonceTpm
  }

  get nonceCaller(): Uint8Array {
    return this.#nonceCaller
  }

  /** AES-128-CFB over the first parameter of a command. TPM 2.0 Library Part 1, 21.3. */
  encryptCommandParameter(use: SessionUse, data: Uint8Array): Uint8Array {
    const { key, iv } = this.#cipherKey(use, this.#nonceCaller, this.#nonceTpm)
    return new Uint8Array(createCipheriv("aes-128-cfb", key, iv).update(data))
  }

  /** The same over the first parameter of a response; after `acceptResponse`. */
  decryptResponseParameter(use: SessionUse, data: Uint8Array): Uint8Array {
    const { key, iv } = this.#cipherKey(use, this.#nonceTpm, this.#nonceCaller)
    return new Uint8Array(createDecipheriv("aes-128-cfb", key, iv).update(data))
  }

  /** sessionValue is the session key and, where the session authorizes an entity, that entity's authValue, bound or not. */
  #cipherKey(use: SessionUse, nonceNewer: Uint8Array, nonceOlder: Uint8Array): { readonly key: Uint8Array; readonly iv: Uint8Array } {
    const reader = new ByteReader("CFB", kdfA(sessionHash, concatBytes(this.#sessionKey, trimmed(use.authValue)), "CFB", nonceNewer, nonceOlder, 32))
    return { key: reader.bytes(16, "key"), iv: reader.bytes(16, "iv") }
  }
}

/** The entity that a session is bound to: its name and authValue when the session was started. */
export interface BindEntity {
  readonly name: Uint8Array
  readonly authValue: Uint8Array
}

/** How a command uses a session: sessions stand in the order of the handles that they authorize, then those that only encrypt. */
export interface SessionUse {
  /** `password`: the authValue in the clear; for entities whose authValue is empty, and where nothing secret is in the command. */
  readonly session: TpmSession | "password"
  /** authValue of the authorized entity; empty for none. */
  readonly authValue: Uint8Array
  /** Name of the authorized entity; undefined where the session authorizes nothing. */
  readonly entityName?: Uint8Array | undefined
  /** Encrypt the first parameter of the command. */
  readonly decrypt?: boolean
  /** Encrypt the first parameter of the response. */
  readonly encrypt?: boolean
}

/** TPMS_AUTH_RESPONSE. */
export interface SessionAnswer {
  readonly nonceTpm: Uint8Array
  readonly attributes: number
  readonly hmac: Uint8Array
}

const digestBytes = hashSizes[sessionHash]

export function freshNonce(): Uint8Array {
  return new Uint8Array(randomBytes(digestBytes))
}

/** The parameter area and the authorization area of one command, as sent. */
export interface AuthorizedCommand {
  readonly parameters: Uint8Array
  /** TPMS_AUTH_COMMAND of every session, in order, without the size before them. */
  readonly authorizations: Uint8Array
}

/** Encrypts the first parameter where asked, then proves every session over the result. TPM 2.0 Library Part 1, 16.7, 18, 21. */
export function authorizeCommand(code: number, names: readonly Uint8Array[], parameters: Uint8Array, uses: readonly SessionUse[]): AuthorizedCommand {
  for (const { session } of uses) if (session !== "password") session.roll()
  const decryptUse = onlyUse(uses, "decrypt")
  const encryptUse = onlyUse(uses, "encrypt")
  const sent =
    decryptUse === undefined ? parameters : mapFirstParameter(parameters, (data) => liveSession(decryptUse).encryptCommandParameter(decryptUse, data))
  const cpHash = hash(sessionHash, new ByteWriter().u32be(code).take(), ...names, sent)
  const writer = new ByteWriter()
  uses.forEach((use, index) => {
    const attributes = attributesOf(use)
    if (use.session === "password") {
      writer.u32be(permanentHandles.password).u16be(0).u8(attributes).sized16be(use.authValue)
      return
    }
    const others = index === 0 ? foreignNonces(use, decryptUse, encryptUse) : new Uint8Array(0)
    const hmac = use.session.commandHmac(use, cpHash, others, attributes)
    writer.u32be(use.session.handle).sized16be(use.session.nonceCaller).u8(attributes).sized16be(hmac)
  })
  return { parameters: sent, authorizations: writer.take() }
}

/**
 * Checks the authorization area of a successful response and gives its parameters in the clear. TPM 2.0 Library Part 1, 16.9, 19.6.6.
 * @throws {TpmError} `forged-response`; {MalformedError} for a wrong form
 */
export function openResponse(
  command: string,
  code: number,
  parameters: Uint8Array,
  authorizations: ByteReader,
  uses: readonly SessionUse[],
): Uint8Array {
  const answers = uses.map((): SessionAnswer => {
    const nonceTpm = readSized(authorizations, 64, "nonceTPM")
    const attributes = authorizations.u8("sessionAttributes")
    return { nonceTpm, attributes, hmac: readSized(authorizations, 64, "hmac") }
  })
  authorizations.finish()
  const rpHash = hash(sessionHash, new ByteWriter().u32be(0).u32be(code).take(), parameters)
  uses.forEach((use, index) => {
    const answer = answers[index]
    if (answer === undefined) throw new Error("internal: a session has no answer")
    if (use.session !== "password") use.session.acceptResponse(use, rpHash, answer, command)
    // Without this check somebody on the bus who could also forge HMACs of an unkeyed session would turn encryption off.
    if (answer.attributes !== attributesOf(use)) throw new TpmError("forged-response", `${command}: the response changes the session attributes`)
  })
  const encryptUse = onlyUse(uses, "encrypt")
  return encryptUse === undefined
    ? parameters
    : mapFirstParameter(parameters, (data) => liveSession(encryptUse).decryptResponseParameter(encryptUse, data))
}

function attributesOf(use: SessionUse): number {
  return (
    sessionAttributes.continueSession +
    (use.decrypt === true ? sessionAttributes.decrypt : 0) +
    (use.encrypt === true ? sessionAttributes.encrypt : 0)
  )
}

function onlyUse(uses: readonly SessionUse[], attribute: "decrypt" | "encrypt"): SessionUse | undefined {
  const found = uses.filter((use) => use[attribute] === true)
  if (found.length > 1) throw new TypeError(`only one session of a command may ${attribute}`)
  return found[0]
}

function liveSession(use: SessionUse): TpmSession {
  if (use.session === "password") throw new TypeError("a password session cannot encrypt")
  return use.session
}

/** nonceTPM of the sessions that encrypt, where they are not the first one: this ties them to the authorization of the command. */
function foreignNonces(first: SessionUse, decryptUse: SessionUse | undefined, encryptUse: SessionUse | undefined): Uint8Array {
  const decryptNonce = decryptUse === undefined || decryptUse === first ? new Uint8Array(0) : liveSession(decryptUse).nonceTpm
  const isOther = encryptUse !== undefined && encryptUse !== first && encryptUse !== decryptUse
  return concatBytes(decryptNonce, isOther ? liveSession(encryptUse).nonceTpm : new Uint8Array(0))
}

/** Only a first parameter that is a TPM2B can be encrypted; its size stays in the clear. */
function mapFirstParameter(parameters: Uint8Array, map: (data: Uint8Array) => Uint8Array): Uint8Array {
  const reader = new ByteReader("parameters", parameters)
  const data = reader.bytes(reader.u16be("size"), "first parameter")
  return concatBytes(new ByteWriter().sized16be(map(data)).take(), reader.rest("others"))
}

/** authValues count without trailing zeros. TPM 2.0 Library Part 1, 19.6.4.3. */
function trimmed(authValue: Uint8Array): Uint8Array {
  const end = authValue.findLastIndex((byte) => byte !== 0) + 1
  return new ByteReader("authValue", authValue).bytes(end, "significant bytes")
}

/** A secret for the TPM alone: the salt, and the TPM2B_ENCRYPTED_SECRET's content that carries it to the key. */
export interface Salt {
  readonly salt: Uint8Array
  readonly encrypted: Uint8Array
}

/**
 * Makes a salt for a decryption key of the TPM. TPM 2.0 Library Part 1, annexes B.10.2 (RSA) and C.6.1 (ECC).
 * @throws {EvidenceError} `wrong-key`; {PkiError} `wrong-key` where the key is no point of its curve
 */
export function makeSalt(area: PublicArea): Salt {
  const publicKey = publicKeyOf(area)
  return area.type === "ecc" ? makeEccSalt(area, publicKey) : makeRsaSalt(area.nameAlg, publicKey)
}

function makeRsaSalt(oaepHash: HashName, key: KeyObject): Salt {
  const salt = new Uint8Array(randomBytes(hashSizes[oaepHash]))
  const encrypted = publicEncrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash, oaepLabel: encodeUtf8("SECRET\0") }, salt)
  return { salt, encrypted: new Uint8Array(encrypted) }
}

function makeEccSalt(area: EccPublicArea, key: KeyObject): Salt {
  const { fieldBytes } = curves[area.curve]
  const ephemeral = generateKeyPairSync("ec", { namedCurve: area.curve })
  const own = ephemeral.publicKey.export({ format: "jwk" })
  const x = parseBase64Url(own.x ?? "", "ephemeral.x")
  const z = new Uint8Array(diffieHellman({ privateKey: ephemeral.privateKey, publicKey: key }))
  const salt = kdfE(area.nameAlg, z, "SECRET", x, padStart(area.x, fieldBytes), hashSizes[area.nameAlg])
  return {
    salt,
    encrypted: new ByteWriter()
      .sized16be(x)
      .sized16be(parseBase64Url(own.y ?? "", "ephemeral.y"))
      .take(),
  }
}
