import { generateKeyPairSync, sign } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { concatBytes } from "../bytes/compare.ts"
import { encodeUtf8, parseHex } from "../bytes/text.ts"
import { extensionIds } from "./certificate.ts"
import { contextTag, derElement, derOid, tags } from "./der.ts"

/** A laboratory authority for tests: makes certificates and revocation lists with every fault that a test wants. */

export interface KeyPair {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

export interface ExtensionInput {
  readonly oid: string
  readonly critical?: boolean
  readonly value: Uint8Array
}

export interface CertificateInput {
  readonly subject: string
  readonly issuer: string
  readonly key: KeyPair
  readonly issuerKey: KeyPair
  readonly serial?: number
  readonly notBefore?: string
  readonly notAfter?: string
  readonly extensions?: readonly ExtensionInput[] | undefined
  /** Version number as written: 2 stands for v3; undefined leaves the field out (v1). */
  readonly version?: number | undefined
  readonly hash?: "sha1" | "sha256"
  /** SubjectPublicKeyInfo instead of the key's own. */
  readonly spki?: Uint8Array
  /** AlgorithmIdentifier outside, where it differs. */
  readonly outerAlgorithm?: Uint8Array
}

export function makeKeyPair(): KeyPair {
  return generateKeyPairSync("ec", { namedCurve: "P-256" })
}

/** Name with a common name only; "" is the empty name. */
export function derName(commonName: string): Uint8Array {
  if (commonName === "") return derElement(tags.sequence)
  const attribute = derElement(tags.sequence, derOid("2.5.4.3"), derElement(tags.utf8String, encodeUtf8(commonName)))
  return derElement(tags.sequence, derElement(tags.set, attribute))
}

export function derAlgorithm(key: KeyObject, hash: "sha1" | "sha256"): Uint8Array {
  if (key.asymmetricKeyType === "ec") return derElement(tags.sequence, derOid("1.2.840.10045.4.3.2"))
  const oid = hash === "sha1" ? "1.2.840.113549.1.1.5" : "1.2.840.113549.1.1.11"
  return derElement(tags.sequence, derOid(oid), derElement(tags.null))
}

export function makeCertificate(input: CertificateInput): Uint8Array {
  const hash = input.hash ?? "sha256"
  const algorithm = derAlgorithm(input.issuerKey.privateKey, hash)
  const version = "version" in input ? input.version : 2
  const tbs = derElement(
    tags.sequence,
    version === undefined ? new Uint8Array(0) : derElement(contextTag(0, "constructed"), derElement(tags.integer, Uint8Array.of(version))),
    derElement(tags.integer, Uint8Array.of(input.serial ?? 1)),
    algorithm,
    derName(input.issuer),
    derElement(tags.sequence, derTime(input.notBefore ?? "2020-01-01T00:00:00Z"), derTime(input.notAfter ?? "2030-01-01T00:00:00Z")),
    derName(input.subject),
    input.spki ?? new Uint8Array(input.key.publicKey.export({ format: "der", type: "spki" })),
    input.extensions === undefined ? new Uint8Array(0) : derElement(contextTag(3, "constructed"), derExtensions(input.extensions)),
  )
  return derElement(tags.sequence, tbs, input.outerAlgorithm ?? algorithm, derSignature(tbs, input.issuerKey, hash))
}

export interface ListInput {
  readonly issuer: string
  readonly issuerKey: KeyPair
  readonly serials: readonly number[]
  readonly thisUpdate?: string
  readonly nextUpdate?: string
  readonly extensions?: readonly ExtensionInput[] | undefined
  readonly entryExtensions?: readonly ExtensionInput[]
  readonly version?: number
  readonly outerAlgorithm?: Uint8Array
}

export function makeRevocationList(input: ListInput): Uint8Array {
  const algorithm = derAlgorithm(input.issuerKey.privateKey, "sha256")
  const entries = input.serials.map((serial) =>
    derElement(
      tags.sequence,
      derElement(tags.integer, Uint8Array.of(serial)),
      derTime("2021-01-01T00:00:00Z"),
      input.entryExtensions === undefined ? new Uint8Array(0) : derExtensions(input.entryExtensions),
    ),
  )
  const tbs = derElement(
    tags.sequence,
    derElement(tags.integer, Uint8Array.of(input.version ?? 1)),
    algorithm,
    derName(input.issuer),
    derTime(input.thisUpdate ?? "2024-01-01T00:00:00Z"),
    derTime(input.nextUpdate ?? "2026-01-01T00:00:00Z"),
    entries.length === 0 ? new Uint8Array(0) : derElement(tags.sequence, ...entries),
    input.extensions === undefined ? new Uint8Array(0) : derElement(contextTag(0, "constructed"), derExtensions(input.extensions)),
  )
  return derElement(tags.sequence, tbs, input.outerAlgorithm ?? algorithm, derSignature(tbs, input.issuerKey, "sha256"))
}

export function derTime(iso: string): Uint8Array {
  const digits = iso.replace(/[-:T]/g, "")
  return Number(iso.substring(0, 4)) < 2050
    ? derElement(tags.utcTime, encodeUtf8(digits.substring(2)))
    : derElement(tags.generalizedTime, encodeUtf8(digits))
}

export function basicConstraintsOf(isCa: boolean, pathLength?: number): ExtensionInput {
  const parts = [
    ...(isCa ? [derElement(tags.boolean, Uint8Array.of(0xff))] : []),
    ...(pathLength === undefined ? [] : [derElement(tags.integer, Uint8Array.of(pathLength))]),
  ]
  return { oid: extensionIds.basicConstraints, critical: true, value: derElement(tags.sequence, ...parts) }
}

/** Key usage from its first octet, e.g. 0x04 keyCertSign, 0x02 cRLSign, 0x20 keyEncipherment, 0x80 digitalSignature, 0x08 keyAgreement. */
export function keyUsageOf(octet: number): ExtensionInput {
  return { oid: extensionIds.keyUsage, critical: true, value: derElement(tags.bitString, Uint8Array.of(0, octet)) }
}

export function purposesOf(critical: boolean, ...oids: readonly string[]): ExtensionInput {
  return { oid: extensionIds.extendedKeyUsage, critical, value: derElement(tags.sequence, ...oids.map(derOid)) }
}

/** Subject alternative name with one directoryName of the given attributes. */
export function directoryNameOf(attributes: readonly (readonly [string, string])[], critical = true): ExtensionInput {
  const rdns = attributes.map(([oid, text]) =>
    derElement(tags.set, derElement(tags.sequence, derOid(oid), derElement(tags.utf8String, encodeUtf8(text)))),
  )
  const name = derElement(contextTag(4, "constructed"), derElement(tags.sequence, ...rdns))
  return { oid: extensionIds.subjectAlternativeName, critical, value: derElement(tags.sequence, name) }
}

export function subjectKeyIdOf(hex: string): ExtensionInput {
  return { oid: extensionIds.subjectKeyIdentifier, value: derElement(tags.octetString, parseHex(hex)) }
}

export function authorityKeyIdOf(hex: string): ExtensionInput {
  return { oid: extensionIds.authorityKeyIdentifier, value: derElement(tags.sequence, derElement(contextTag(0, "primitive"), parseHex(hex))) }
}

export function derExtensions(extensions: readonly ExtensionInput[]): Uint8Array {
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

function derSignature(tbs: Uint8Array, key: KeyPair, hash: "sha1" | "sha256"): Uint8Array {
  return derElement(tags.bitString, concatBytes(Uint8Array.of(0), new Uint8Array(sign(hash, tbs, key.privateKey))))
}
