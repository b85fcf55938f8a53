import { bytesEqual, concatBytes } from "../../../bytes/compare.ts"
import { PerunError } from "../../../bytes/error.ts"
import { encodeUtf8, parseHex } from "../../../bytes/text.ts"
import { hash } from "../../../pki/signatures.ts"
import { curves } from "../algorithms.ts"
import { padStart } from "../keys.ts"
import { encodePublicArea, parsePublicArea, type EccPublicArea, type ObjectAttribute, type PublicArea, type RsaPublicArea } from "../public-area.ts"
import { createPrimary, getHandles, readNv, readNvPublic, readPublic, type LoadedObject } from "./commands.ts"
import type { TpmConnection } from "./connection.ts"
import { permanentHandles } from "./constants.ts"
import { TpmError } from "./errors.ts"

/**
 * One kind of endorsement key that TPM vendors certify. TCG EK Credential Profile for TPM Family 2.0, version 2.5, 2.2.1 (NV indexes) and annex B (templates).
 */
export interface EndorsementProfile {
  /** Name of the template in the profile, e.g. `L-1`. */
  readonly name: string
  /** NV indexes of the certificate, and of a vendor's own nonce and template; the high range has no nonces. */
  readonly certificateIndex: number
  readonly nonceIndex?: number
  readonly templateIndex: number
  /** Where the TCG's provisioning guidance keeps the key, if anywhere. TCG TPM v2.0 Provisioning Guidance, 7.8. */
  readonly persistentHandle?: number
  readonly template: RsaPublicArea | EccPublicArea
}

const aes128 = { algorithm: "aes", keyBits: 128, mode: "cfb" } as const
const aes256 = { algorithm: "aes", keyBits: 256, mode: "cfb" } as const

/** PolicyA: PolicySecret(TPM_RH_ENDORSEMENT). EK Credential Profile, B.3. */
const policyA = parseHex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
/** PolicyB for SHA-256 and SHA-384: PolicyA or a policy in NV. EK Credential Profile, B.6. */
const policyB256 = parseHex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
const policyB384 = parseHex("b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12")

const lowAttributes: ReadonlySet<ObjectAttribute> = new Set<ObjectAttribute>([
  "fixedTPM",
  "fixedParent",
  "sensitiveDataOrigin",
  "adminWithPolicy",
  "restricted",
  "decrypt",
])
const highAttributes: ReadonlySet<ObjectAttribute> = new Set<ObjectAttribute>([...lowAttributes, "userWithAuth"])

const zeros = (sizeBytes: number): Uint8Array => new Uint8Array(sizeBytes)
const low = { nameAlg: "sha256", attributes: lowAttributes, authPolicy: policyA, symmetric: aes128 } as const
const high256 = { nameAlg: "sha256", attributes: highAttributes, authPolicy: policyB256, symmetric: aes128 } as const
const high384 = { nameAlg: "sha384", attributes: highAttributes, authPolicy: policyB384, symmetric: aes256 } as const
const rsa = { type: "rsa", exponent: 0, unique: zeros(0) } as const
const ecc = { type: "ecc", x: zeros(0), y: zeros(0) } as const

/** In the order of preference: what nearly every TPM has a certificate for comes first. */
export const endorsementProfiles: readonly EndorsementProfile[] = [
  {
    name: "L-1",
    certificateIndex: 0x01c00002,
    nonceIndex: 0x01c00003,
    templateIndex: 0x01c00004,
    persistentHandle: 0x81010001,
    template: { ...rsa, ...low, keyBits: 2048, unique: zeros(256) },
  },
  {
    name: "L-2",
    certificateIndex: 0x01c0000a,
    nonceIndex: 0x01c0000b,
    templateIndex: 0x01c0000c,
    persistentHandle: 0x81010002,
    template: { ...ecc, ...low, curve: "P-256", x: zeros(32), y: zeros(32) },
  },
  { name: "H-1", certificateIndex: 0x01c00012, templateIndex: 0x01c00013, template: { ...rsa, ...high256, keyBits: 2048 } },
  { name: "H-2", certificateIndex: 0x01c00014, templateIndex: 0x01c00015, template: { ...ecc, ...high256, curve: "P-256" } },
  {
    name: "H-3",
    certificateIndex: 0x01c00016,
    templateIndex: 0x01c00017,
    persistentHandle: 0x81010016,
    template: { ...ecc, ...high384, curve: "P-384" },
  },
  { name: "H-6", certificateIndex: 0x01c0001c, templateIndex: 0x01c0001d, template: { ...rsa, ...high384, keyBits: 3072 } },
]

/** Certificates of on-die intermediate authorities lie here. EK Credential Profile, 2.2.1.5.2: 0x01c00100 to 0x01c001ff. */
const intermediateIndexes = { first: 0x01c00100, last: 0x01c001ff } as const

/** Vendors fill 1 to 4 indexes; an enrolment takes 8 certificates (protocol/messages.ts). */
const maxIntermediates = 7

/** The endorsement key of this TPM and what vouches for it. */
export interface EndorsementKey {
  readonly profile: EndorsementProfile
  readonly key: LoadedObject
  /** Content of the certificate's NV index as found (DER, perhaps with a vendor's header or padding), then on-die intermediates; empty where the TPM has no certificate. */
  readonly certificates: readonly Uint8Array[]
}

/**
 * Finds the endorsement key: the first profile with a certificate in NV memory that fits the key which its template gives; where no certificate is there at all,
 * the plain RSA key without. The key at the persistent handle is taken only if the certificate names it; otherwise the key is made from the template, which
 * always gives the same key.
 * @throws {TpmError} `unsupported` where there are certificates, but each belongs to no key that a template gives; `cause` has all reasons
 */
export async function openEndorsementKey(tpm: TpmConnection): Promise<EndorsementKey> {
  const indexes = new Set(await getHandles(tpm, 0x01000000))
  const certified = endorsementProfiles.filter(({ certificateIndex }) => indexes.has(certificateIndex))
  const [plain] = endorsementProfiles
  if (plain === undefined) throw new Error("internal: no endorsement profile")
  if (certified.length === 0) {
    const template = await endorsementTemplate(tpm, plain, indexes)
    return { profile: plain, key: await createPrimary(tpm, permanentHandles.endorsement, template), certificates: [] }
  }
  const reasons: PerunError[] = []
  for (const profile of certified) {
    try {
      return await openCertifiedKey(tpm, profile, indexes)
    } catch (error) {
      // A vendor's certificate for a key size that the TPM does not have, an index that was never written or may not be read: another profile may do.
      if (!(error instanceof PerunError) || !passableCodes.has(error.code)) throw error
      reasons.push(error)
    }
  }
  const text = reasons.map(({ message }) => message).join("; ")
  throw new TpmError("unsupported", `no endorsement key with a certificate: ${text}`, { cause: new AggregateError(reasons) })
}

/** TpmError's, and `unsupported` of a vendor's template with algorithms that we do not know. */
const passableCodes: ReadonlySet<string> = new Set(["unsupported", "refused", "no-such-handle", "auth-failed"])

async function openCertifiedKey(tpm: TpmConnection, profile: EndorsementProfile, indexes: ReadonlySet<number>): Promise<EndorsementKey> {
  const certificate = await readNv(tpm, await readNvPublic(tpm, profile.certificateIndex))
  const certificates = [certificate, ...(await readIntermediates(tpm, indexes))]
  const template = await endorsementTemplate(tpm, profile, indexes)
  const persistent = await findPersistent(tpm, profile, template, certificate)
  if (persistent !== undefined) return { profile, key: persistent, certificates }
  const key = await createPrimary(tpm, permanentHandles.endorsement, template)
  if (holdsKey(certificate, key.publicArea)) return { profile, key, certificates }
  await key[Symbol.asyncDispose]()
  throw new TpmError("unsupported", `the certificate of profile ${profile.name} is of another key than the template gives`)
}

/** The vendor's template where there is one, else the profile's default with the vendor's nonce. EK Credential Profile, 2.2.1.4. */
async function endorsementTemplate(tpm: TpmConnection, profile: EndorsementProfile, indexes: ReadonlySet<number>): Promise<Uint8Array> {
  const { template, templateIndex, nonceIndex } = profile
  const own = indexes.has(templateIndex) ? parsePublicArea(await readNv(tpm, await readNvPublic(tpm, templateIndex))) : template
  if (nonceIndex === undefined || !indexes.has(nonceIndex)) return encodePublicArea(own)
  const nonce = await readNv(tpm, await readNvPublic(tpm, nonceIndex))
  return encodePublicArea(withNonce(own, nonce))
}

function withNonce(template: PublicArea, nonce: Uint8Array): PublicArea {
  switch (template.type) {
    case "rsa":
      return { ...template, unique: padEnd(nonce, 256) }
    case "ecc":
      return { ...template, x: padEnd(nonce, 32), y: padEnd(new Uint8Array(0), 32) }
    case "keyedhash":
      throw new TpmError("unsupported", "the endorsement key template in the TPM is not of an asymmetric key")
  }
}

function padEnd(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  if (bytes.length > sizeBytes) throw new TpmError("unsupported", `the endorsement key nonce has ${bytes.length} bytes, at most ${sizeBytes} fit`)
  return concatBytes(bytes, new Uint8Array(sizeBytes - bytes.length))
}

async function readIntermediates(tpm: TpmConnection, indexes: ReadonlySet<number>): Promise<readonly Uint8Array[]> {
  const found = [...indexes].filter((index) => index >= intermediateIndexes.first && index <= intermediateIndexes.last)
  if (found.length > maxIntermediates) throw new TpmError("unsupported", `${found.length} intermediate certificates, at most ${maxIntermediates}`)
  const contents: Uint8Array[] = []
  for (const index of found) contents.push(await readNv(tpm, await readNvPublic(tpm, index)))
  return contents
}

/** The key at the persistent handle, if it is of the template's form and the one that the certificate names. */
async function findPersistent(
  tpm: TpmConnection,
  { persistentHandle }: EndorsementProfile,
  template: Uint8Array,
  certificate: Uint8Array,
): Promise<LoadedObject | undefined> {
  if (persistentHandle === undefined || !(await getHandles(tpm, 0x81000000)).includes(persistentHandle)) return undefined
  const key = await readForeignPublic(tpm, persistentHandle)
  if (key === undefined) return undefined
  const isOfTemplate = bytesEqual(encodePublicArea(withoutUnique(key.publicArea)), encodePublicArea(withoutUnique(parsePublicArea(template))))
  return isOfTemplate && holdsKey(certificate, key.publicArea) ? key : undefined
}

/** A persistent handle may hold anything that somebody put there; what this client cannot read is not the endorsement key. */
async function readForeignPublic(tpm: TpmConnection, handle: number): Promise<LoadedObject | undefined> {
  try {
    return await readPublic(tpm, handle)
  } catch (error) {
    if (error instanceof PerunError && error.code === "unsupported" && !(error instanceof TpmError)) return undefined
    throw error
  }
}

function withoutUnique(area: PublicArea): PublicArea {
  return area.type === "ecc" ? { ...area, x: zeros(0), y: zeros(0) } : { ...area, unique: zeros(0) }
}

/**
 * Whether the key's modulus or point stands in the certificate. Only a check that this host does not offer a pair that cannot fit; whoever verifies the
 * certificate compares the keys properly.
 */
function holdsKey(certificate: Uint8Array, area: PublicArea): boolean {
  const key = area.type === "ecc" ? eccPoint(area) : area.unique
  return Buffer.from(certificate).includes(Buffer.from(key))
}

function eccPoint({ curve, x, y }: EccPublicArea): Uint8Array {
  const { fieldBytes } = curves[curve]
  return concatBytes(padStart(x, fieldBytes), padStart(y, fieldBytes))
}

const attestationAttributes: ReadonlySet<ObjectAttribute> = new Set<ObjectAttribute>([
  "fixedTPM",
  "fixedParent",
  "sensitiveDataOrigin",
  "userWithAuth",
  "noDA",
  "restricted",
  "sign",
])

/** Makes our key differ from that of another program with the same attributes. */
const attestationLabel = hash("sha256", encodeUtf8("perun attestation key 1"))

const attestationCommon = { nameAlg: "sha256", attributes: attestationAttributes, authPolicy: zeros(0) } as const

/** The attestation key's templates, in the order of preference: ECDSA over P-256, and RSASSA with 2048 bits for TPMs without the curve. */
export const attestationTemplates: readonly (EccPublicArea | RsaPublicArea)[] = [
  { type: "ecc", ...attestationCommon, scheme: { scheme: "ecdsa", hash: "sha256" }, curve: "P-256", x: attestationLabel, y: zeros(32) },
  {
    type: "rsa",
    ...attestationCommon,
    scheme: { scheme: "rsassa", hash: "sha256" },
    keyBits: 2048,
    exponent: 0,
    unique: concatBytes(attestationLabel, zeros(224)),
  },
]

/**
 * The attestation key: a restricted signing key, made as a primary key of the endorsement hierarchy. So it is the same key at every boot of one TPM without
 * anything kept on disk (our root file systems are read-only), it lives and dies with the endorsement key beside it, and the clock and counters of its quotes
 * are not masked (TPM 2.0 Library Part 1, 36.7), so that resets can be told apart. It is bound to the endorsement key by ActivateCredential, not by its parent.
 */
export async function openAttestationKey(tpm: TpmConnection): Promise<LoadedObject> {
  let refusal: unknown
  for (const template of attestationTemplates) {
    try {
      return await createPrimary(tpm, permanentHandles.endorsement, encodePublicArea(template))
    } catch (error) {
      if (!(error instanceof TpmError) || !["unsupported", "refused"].includes(error.code)) throw error
      refusal ??= error
    }
  }
  throw new TpmError("unsupported", "the TPM makes neither an ECDSA P-256 nor an RSA-2048 attestation key", { cause: refusal })
}

/** Storage primary key of the owner's hierarchy: parent of sealed data, and what their sessions are salted to. TCG TPM v2.0 Provisioning Guidance, 7.5.1. */
export const storageTemplate: EccPublicArea = {
  type: "ecc",
  nameAlg: "sha256",
  attributes: new Set<ObjectAttribute>(["fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA", "restricted", "decrypt"]),
  authPolicy: zeros(0),
  symmetric: aes128,
  curve: "P-256",
  x: zeros(32),
  y: zeros(32),
}

export async function openStorageKey(tpm: TpmConnection): Promise<LoadedObject> {
  return await createPrimary(tpm, permanentHandles.owner, encodePublicArea(storageTemplate))
}
