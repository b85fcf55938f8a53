import { constants, generateKeyPair, sign } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { promisify } from "node:util"
import { concatBytes } from "../../src/bytes/compare.ts"
import { encodeUtf8 } from "../../src/bytes/text.ts"
import { extensionIds } from "../../src/pki/certificate.ts"
import { contextTag, derElement, derOid, tags } from "../../src/pki/der.ts"
import { amdExtensionIds, amdNameAttributes } from "../../src/evidence/snp/endorsements.ts"
import { snpProducts } from "../../src/evidence/snp/products.ts"
import type { SnpProduct, Tcb } from "../../src/evidence/snp/products.ts"

/**
 * A laboratory's copy of AMD's key hierarchy: ARK, ASK, ASVK, VCEK, VLEK and revocation lists, structurally as AMD makes them, with a knob for everything. INSECURE:
 * whoever runs it can certify any key for any chip.
 */
export interface KeyPair {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

export interface AmdKeys {
  readonly ark: KeyPair
  readonly ask: KeyPair
  readonly asvk: KeyPair
}

/** Takes seconds, so make the keys once; tests let ASK and ASVK share one. */
export async function makeAmdKeys(): Promise<AmdKeys> {
  const [ark, ask, asvk] = await Promise.all([makeRsaKey(), makeRsaKey(), makeRsaKey()])
  return { ark, ask, asvk }
}

export async function makeRsaKey(bits = 4096): Promise<KeyPair> {
  return promisify(generateKeyPair)("rsa", { modulusLength: bits })
}

/** Attributes of a distinguished name: object identifier and text. */
export type Name = readonly (readonly [oid: string, value: string])[]

export function amdName(commonName: string): Name {
  return [...amdNameAttributes, ["2.5.4.3", commonName]]
}

export interface Extension {
  readonly oid: string
  readonly critical?: boolean
  readonly value: Uint8Array
}

export interface CertificateOptions {
  readonly subject: Name
  readonly issuer: Name
  readonly publicKey: KeyObject
  readonly issuerKey: KeyObject
  readonly serial: number
  readonly notBefore: string
  readonly notAfter: string
  readonly extensions: readonly Extension[]
  readonly hash: "sha256" | "sha384"
  /** Salt of RSA-PSS in bytes; AMD has 48. */
  readonly saltLength: number
}

/** What a test may change in a certificate. */
export type CertificateKnobs = Partial<CertificateOptions>

export interface RevocationListOptions {
  readonly issuer: Name
  readonly issuerKey: KeyObject
  readonly serials: readonly number[]
  readonly thisUpdate: string
  readonly nextUpdate: string
  readonly hash: "sha256" | "sha384"
  readonly saltLength: number
}

/** What an endorsement key is certified for, and its knobs. */
export interface EndorsementKeyOptions {
  readonly publicKey: KeyObject
  readonly tcb: Tcb
  /** `wrapped` is the newer form: HWID inside an OCTET STRING of its own. */
  readonly hwId?: { readonly value: Uint8Array; readonly form: "bare" | "wrapped" }
  readonly cspId?: string
  readonly productName?: string
  readonly structVersion?: number
  /** Contents of an extension by object identifier; undefined leaves it out. */
  readonly replace?: Readonly<Record<string, Uint8Array | undefined>>
  readonly more?: readonly Extension[]
  readonly certificate?: CertificateKnobs
}

export const serials = { ark: 0x10000, ask: 0x10001, asvk: 0x10101 } as const

export interface AuthorityKnobs {
  readonly ark?: CertificateKnobs
  readonly ask?: CertificateKnobs
  readonly asvk?: CertificateKnobs
}

export class AmdAuthority {
  readonly product: SnpProduct
  /** DER certificates. */
  readonly ark: Uint8Array
  readonly ask: Uint8Array
  readonly asvk: Uint8Array
  readonly #keys: AmdKeys

  constructor(product: SnpProduct, keys: AmdKeys, knobs: AuthorityKnobs = {}) {
    this.product = product
    this.#keys = keys
    const root = amdName(`ARK-${product}`)
    const byRoot = { issuer: root, issuerKey: keys.ark.privateKey }
    this.ark = makeCertificate({
      ...byRoot,
      subject: root,
      publicKey: keys.ark.publicKey,
      serial: serials.ark,
      extensions: caExtensions(0x06),
      ...knobs.ark,
    })
    const intermediate = (name: string, key: KeyPair, serial: number): LeastCertificate => ({
      ...byRoot,
      subject: amdName(name),
      publicKey: key.publicKey,
      serial,
      extensions: caExtensions(0x04, 0),
    })
    this.ask = makeCertificate({ ...intermediate(`SEV-${product}`, keys.ask, serials.ask), ...knobs.ask })
    this.asvk = makeCertificate({ ...intermediate(`SEV-VLEK-${product}`, keys.asvk, serials.asvk), ...knobs.asvk })
  }

  /** A VCEK certificate; seven years, as AMD's. */
  vcek(options: EndorsementKeyOptions): Uint8Array {
    const { hwId } = options
    const id = hwId === undefined ? undefined : hwId.form === "bare" ? hwId.value : derElement(tags.octetString, hwId.value)
    return makeCertificate({
      subject: amdName("SEV-VCEK"),
      issuer: amdName(`SEV-${this.product}`),
      issuerKey: this.#keys.ask.privateKey,
      ...this.#leaf(options, { [amdExtensionIds.hwId]: id }),
      ...options.certificate,
    })
  }

  /** A VLEK certificate; one year, as AMD's. */
  vlek(options: EndorsementKeyOptions): Uint8Array {
    return makeCertificate({
      subject: amdName("SEV-VLEK"),
      issuer: amdName(`SEV-VLEK-${this.product}`),
      issuerKey: this.#keys.asvk.privateKey,
      ...this.#leaf(options, { [amdExtensionIds.cspId]: derElement(tags.ia5String, encodeUtf8(options.cspId ?? "CN=laboratory.example")) }),
      notAfter: "2026-01-01T00:00:00Z",
      ...options.certificate,
    })
  }

  revocationList(knobs: Partial<RevocationListOptions> = {}): Uint8Array {
    return makeRevocationList({ issuer: amdName(`ARK-${this.product}`), issuerKey: this.#keys.ark.privateKey, ...knobs })
  }

  #leaf(
    options: EndorsementKeyOptions,
    ids: Readonly<Record<string, Uint8Array | undefined>>,
  ): { publicKey: KeyObject; serial: number; extensions: Extension[] } {
    const row = snpProducts[this.product]
    const levels = Object.entries<keyof Tcb | null>(row.certifiedLevels).map(
      ([number, component]) => [`${amdExtensionIds.levels}.${number}`, derByte(component === null ? 0 : (options.tcb[component] ?? 0))] as const,
    )
    const values: Record<string, Uint8Array | undefined> = {
      [amdExtensionIds.structVersion]: derByte(options.structVersion ?? row.structVersion),
      [amdExtensionIds.productName]: derElement(tags.ia5String, encodeUtf8(options.productName ?? `${this.product}-B0`)),
      ...Object.fromEntries(levels),
      ...ids,
      ...options.replace,
    }
    const extensions = Object.entries(values).flatMap(([oid, value]) => (value === undefined ? [] : [{ oid, value }]))
    return { publicKey: options.publicKey, serial: 0, extensions: [...extensions, ...(options.more ?? [])] }
  }
}

/** Basic constraints and key usage of an authority; `usage` is the first octet: 0x04 certificates, 0x02 lists. */
export function caExtensions(usage: number, pathLength?: number, isCa = true): readonly Extension[] {
  const parts = [
    ...(isCa ? [derElement(tags.boolean, Uint8Array.of(0xff))] : []),
    ...(pathLength === undefined ? [] : [derElement(tags.integer, Uint8Array.of(pathLength))]),
  ]
  return [
    { oid: extensionIds.basicConstraints, critical: true, value: derElement(tags.sequence, ...parts) },
    { oid: extensionIds.keyUsage, critical: true, value: derElement(tags.bitString, Uint8Array.of(0, usage)) },
  ]
}

/** INTEGER of one byte's range. */
export function derByte(value: number): Uint8Array {
  return derElement(tags.integer, value < 0x80 ? Uint8Array.of(value) : Uint8Array.of(0, value))
}

type Required<T, Keys extends keyof T> = Partial<T> & Pick<T, Keys>

type LeastCertificate = Required<CertificateOptions, "subject" | "issuer" | "publicKey" | "issuerKey" | "serial" | "extensions">

export function makeCertificate(options: LeastCertificate): Uint8Array {
  const { hash = "sha384", saltLength = 48, notBefore = "2024-01-01T00:00:00Z", notAfter = "2031-01-01T00:00:00Z" } = options
  const algorithm = derPss(hash, saltLength)
  const tbs = derElement(
    tags.sequence,
    derElement(contextTag(0, "constructed"), derElement(tags.integer, Uint8Array.of(2))),
    derSerial(options.serial),
    algorithm,
    derName(options.issuer),
    derElement(tags.sequence, derTime(notBefore), derTime(notAfter)),
    derName(options.subject),
    new Uint8Array(options.publicKey.export({ format: "der", type: "spki" })),
    derElement(contextTag(3, "constructed"), derExtensions(options.extensions)),
  )
  return signed(tbs, algorithm, options.issuerKey, hash, saltLength)
}

function makeRevocationList(options: Required<RevocationListOptions, "issuer" | "issuerKey">): Uint8Array {
  const { hash = "sha384", saltLength = 48, thisUpdate = "2025-01-01T00:00:00Z", nextUpdate = "2025-12-01T00:00:00Z", serials: listed = [] } = options
  const algorithm = derPss(hash, saltLength)
  const entries = listed.map((serial) => derElement(tags.sequence, derSerial(serial), derTime(thisUpdate)))
  const tbs = derElement(
    tags.sequence,
    derElement(tags.integer, Uint8Array.of(1)),
    algorithm,
    derName(options.issuer),
    derTime(thisUpdate),
    derTime(nextUpdate),
    entries.length === 0 ? new Uint8Array(0) : derElement(tags.sequence, ...entries),
  )
  return signed(tbs, algorithm, options.issuerKey, hash, saltLength)
}

function signed(tbs: Uint8Array, algorithm: Uint8Array, key: KeyObject, hash: string, saltLength: number): Uint8Array {
  const signature = sign(hash, tbs, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength })
  return derElement(tags.sequence, tbs, algorithm, derElement(tags.bitString, concatBytes(Uint8Array.of(0), new Uint8Array(signature))))
}

const hashOids = { sha256: "2.16.840.1.101.3.4.2.1", sha384: "2.16.840.1.101.3.4.2.2" } as const

/** AlgorithmIdentifier of RSASSA-PSS, RFC 4055 section 3.1. */
function derPss(hash: "sha256" | "sha384", saltLength: number): Uint8Array {
  const hashAlgorithm = derElement(tags.sequence, derOid(hashOids[hash]), derElement(tags.null))
  const mask = derElement(tags.sequence, derOid("1.2.840.113549.1.1.8"), hashAlgorithm)
  const parameters = derElement(
    tags.sequence,
    derElement(contextTag(0, "constructed"), hashAlgorithm),
    derElement(contextTag(1, "constructed"), mask),
    derElement(contextTag(2, "constructed"), derByte(saltLength)),
  )
  return derElement(tags.sequence, derOid("1.2.840.113549.1.1.10"), parameters)
}

function derSerial(serial: number): Uint8Array {
  const digits = serial.toString(16)
  const bytes = Uint8Array.from(digits.length % 2 === 0 ? (digits.match(/../g) ?? []) : (`0${digits}`.match(/../g) ?? []), (pair) =>
    Number.parseInt(pair, 16),
  )
  return derElement(tags.integer, (bytes[0] ?? 0) >= 0x80 ? concatBytes(Uint8Array.of(0), bytes) : bytes)
}

function derName(name: Name): Uint8Array {
  const attributes = name.map(([oid, value]) =>
    derElement(
      tags.set,
      derElement(tags.sequence, derOid(oid), derElement(oid === "2.5.4.6" ? tags.printableString : tags.utf8String, encodeUtf8(value))),
    ),
  )
  return derElement(tags.sequence, ...attributes)
}

function derTime(iso: string): Uint8Array {
  const digits = iso.replace(/[-:T]/g, "")
  return Number(iso.substring(0, 4)) < 2050
    ? derElement(tags.utcTime, encodeUtf8(digits.substring(2)))
    : derElement(tags.generalizedTime, encodeUtf8(digits))
}

function derExtensions(extensions: readonly Extension[]): Uint8Array {
  const list = extensions.map(({ oid, critical, value }) =>
    derElement(
      tags.sequence,
      derOid(oid),
      critical === true ? derElement(tags.boolean, Uint8Array.of(0xff)) : new Uint8Array(0),
      derElement(tags.octetString, value),
    ),
  )
  return derElement(tags.sequence, ...list)
}
