import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto"
import { generateHybridIdentity, generateX25519Identity, identityToRecipient } from "age-encryption"
import { mkdir, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import { randomBytes } from "node:crypto"
import * as z from "zod"
import { AlreadyExistsError, fromSystemError, readFileBounded, syncFolder, writeFileDurably } from "../bytes/durable.ts"
import { MalformedError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"

/** What others may know of an identity: the content of `identity.json`. */
const identityCardSchema = z.strictObject({
  perun: z.literal(1),
  /** What its owner is called in policies. */
  name: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/),
  /** SSH text of the Ed25519 signing key. */
  key: z.string(),
  /** age recipient that results for this party are sealed to. */
  recipient: z.string(),
})

export type IdentityCard = Readonly<z.infer<typeof identityCardSchema>>

/** A party's identity with its secrets, loaded from its folder. */
export interface Identity extends IdentityCard {
  /** Ed25519 private key; signs statements and sessions. */
  readonly privateKey: KeyObject
  /** age identity (`AGE-SECRET-KEY-…`) that opens what is sealed to `recipient`. */
  readonly recipientIdentity: string
}

export interface CreateIdentityOptions {
  readonly name: string
  /** `hybrid` (post-quantum, default) or `x25519`, for age older than 1.3. */
  readonly recipient?: "hybrid" | "x25519"
}

/**
 * Makes a new identity in a folder that must not exist: `identity.json` (public), `identity.pem` (PKCS #8, mode 0600), `recipient.age` (mode 0600).
 * All of it or nothing.
 * @throws {AlreadyExistsError} when the folder is there
 * @throws {MalformedError} `malformed` for a name that policies could not use
 */
export async function createIdentity(folder: string, options: CreateIdentityOptions): Promise<Identity> {
  const { privateKey } = generateKeyPairSync("ed25519")
  const recipientIdentity = options.recipient === "x25519" ? await generateX25519Identity() : await generateHybridIdentity()
  const card: IdentityCard = {
    perun: 1,
    name: options.name,
    key: sshPublicKeyText(privateKey),
    recipient: await identityToRecipient(recipientIdentity),
  }
  parseCard(card)
  const temporary = join(dirname(folder), `.${randomBytes(8).toString("hex")}.tmp`)
  try {
    await mkdir(dirname(folder), { recursive: true })
    await mkdir(temporary, { mode: 0o700 })
    await writeFileDurably(join(temporary, "identity.pem"), privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 })
    await writeFileDurably(join(temporary, "recipient.age"), `${recipientIdentity}\n`, { mode: 0o600 })
    await writeFileDurably(join(temporary, "identity.json"), `${JSON.stringify(card, null, 2)}\n`)
    await rename(temporary, folder)
    await syncFolder(dirname(folder))
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOTEMPTY" || error.code === "EEXIST" || error.code === "ENOTDIR")) {
      throw new AlreadyExistsError("already-exists", "there is an identity already; nothing was changed", { path: folder, cause: error })
    }
    throw fromSystemError(error, folder)
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
  return { ...card, privateKey, recipientIdentity }
}

/**
 * Loads an identity and checks that its three files belong together.
 * @throws {MalformedError} `malformed` for files that are broken or do not belong together
 * @throws {UnavailableError} when there is none
 */
export async function loadIdentity(folder: string): Promise<Identity> {
  const card = await loadIdentityCard(folder)
  const pem = parseUtf8(await readFileBounded(join(folder, "identity.pem"), maxFileBytes))
  const recipientIdentity = parseUtf8(await readFileBounded(join(folder, "recipient.age"), maxFileBytes)).trim()
  const privateKey = readPrivateKey(pem, folder)
  if (sshPublicKeyText(createPublicKey(privateKey)) !== card.key)
    throw new MalformedError("malformed", "identity.pem holds another key than identity.json names", { path: folder })
  if ((await recipientOf(recipientIdentity, folder)) !== card.recipient)
    throw new MalformedError("malformed", "recipient.age holds another key than identity.json names", { path: folder })
  return { ...card, privateKey, recipientIdentity }
}

/** Loads the public part only. @throws as loadIdentity */
export async function loadIdentityCard(folder: string): Promise<IdentityCard> {
  return parseIdentityCard(await readFileBounded(join(folder, "identity.json"), maxFileBytes))
}

/** Parses another party's `identity.json`. @throws {MalformedError} */
export function parseIdentityCard(bytes: Uint8Array): IdentityCard {
  return parseCard(parseJson(bytes, { maxBytes: maxFileBytes }))
}

const maxFileBytes = 64 * 1024

function parseCard(value: unknown): IdentityCard {
  const result = identityCardSchema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = issue?.path.join(".") ?? "identity"
  throw new MalformedError(
    "malformed",
    path === "name" ? "a name is 1 to 63 lower-case letters, digits and hyphens, and starts with a letter" : (issue?.message ?? "not an identity"),
    { path },
  )
}

function readPrivateKey(pem: string, folder: string): KeyObject {
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch (cause) {
    throw new MalformedError("malformed", "identity.pem holds no private key", { path: folder, cause })
  }
  if (key.asymmetricKeyType !== "ed25519")
    throw new MalformedError("malformed", `identity.pem holds a ${key.asymmetricKeyType} key, expected Ed25519`, { path: folder })
  return key
}

async function recipientOf(identity: string, folder: string): Promise<string> {
  try {
    return await identityToRecipient(identity)
  } catch (cause) {
    throw new MalformedError("malformed", "recipient.age holds no age identity", { path: folder, cause })
  }
}
