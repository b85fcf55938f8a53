import { generateKeyPairSync } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { encodeUtf8, parseHex } from "../../../src/bytes/text.ts"
import { extensionIds } from "../../../src/pki/certificate.ts"
import { contextTag, derElement, derOid, tags } from "../../../src/pki/der.ts"
import { signBytes } from "../../../src/pki/signatures.ts"

/** Certificates and revocation lists of a laboratory authority in the form of Intel's: P-256, five name attributes, every field a knob. */

export interface LabKey {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

export function makeLabKey(curve: "P-256" | "P-384" = "P-256"): LabKey {
  return generateKeyPairSync("ec", { namedCurve: curve })
}

export type NameAttributes = readonly (readonly [oid: string, value: string])[]

/** The five attributes of Intel's names. */
export function intelName(commonName: string): NameAttributes {
  return [
    ["2.5.4.3", commonName],
    ["2.5.4.10", "Intel Corporation"],
    ["2.5.4.7", "Santa Clara"],
    ["2.5.4.8", "CA"],
    ["2.5.4.6", "US"],
  ]
}

export interface LabExtension {
  readonly oid: string
  readonly critical: boolean
  readonly value: Uint8Array
}

export interface LabCertificate {
  readonly subject: NameAttributes
  readonly issuer: NameAttributes
  readonly key: LabKey
  readonly issuerKey: LabKey
  /** Contents of the INTEGER, hexadecimal. */
  readonly serial: string
  /** Milliseconds since 1970. */
  readonly notBefore: number
  readonly notAfter: number
  readonly extensions: readonly LabExtension[]
  readonly signature: "ecdsa-sha256" | "ecdsa-sha384"
}

const signatureOids = { "ecdsa-sha256": "1.2.840.10045.4.3.2", "ecdsa-sha384": "1.2.840.10045.4.3.3" } as const

/** The certificate in DER. */
export function encodeLabCertificate(certificate: LabCertificate): Uint8Array {
  const algorithm = derElement(tags.sequence, derOid(signatureOids[certificate.signature]))
  const tbs = derElement(
    tags.sequence,
    derElement(contextTag(0, "constructed"), derElement(tags.integer, Uint8Array.of(2))),
    derElement(tags.integer, parseHex(certificate.serial)),
    algorithm,
    encodeName(certificate.issuer),
    derElement(tags.sequence, encodeTime(certificate.notBefore), encodeTime(certificate.notAfter)),
    encodeName(certificate.subject),
    new Uint8Array(certificate.key.publicKey.export({ format: "der", type: "spki" })),
    derElement(contextTag(3, "constructed"), encodeExtensions(certificate.extensions)),
  )
  return encodeSigned(tbs, algorithm, certificate.issuerKey, certificate.signature)
}

export interface LabRevocationList {
  readonly issuer: NameAttributes
  readonly issuerKey: LabKey
  /** Milliseconds since 1970. */
  readonly thisUpdate: number
  readonly nextUpdate: number
  /** Contents of the INTEGERs, hexadecimal. */
  readonly serials: readonly string[]
  readonly extensions: readonly LabExtension[]
}

/** The revocation list in DER. */
export function encodeLabRevocationList(list: LabRevocationList): Uint8Array {
  const algorithm = derElement(tags.sequence, derOid(signatureOids["ecdsa-sha256"]))
  const entries = list.serials.map((serial) =>
    derElement(tags.sequence, derElement(tags.integer, parseHex(serial)), encodeTime(list.thisUpdate), encodeExtensions([reasonKeyCompromise])),
  )
  const tbs = derElement(
    tags.sequence,
    derElement(tags.integer, Uint8Array.of(1)),
    algorithm,
    encodeName(list.issuer),
    encodeTime(list.thisUpdate),
    encodeTime(list.nextUpdate),
    entries.length === 0 ? new Uint8Array(0) : derElement(tags.sequence, ...entries),
    derElement(contextTag(0, "constructed"), encodeExtensions(list.extensions)),
  )
  return encodeSigned(tbs, algorithm, list.issuerKey, "ecdsa-sha256")
}

const reasonKeyCompromise: LabExtension = { oid: "2.5.29.21", critical: false, value: derElement(tags.enumerated, Uint8Array.of(1)) }

export const crlNumber: LabExtension = { oid: "2.5.29.20", critical: false, value: derElement(tags.integer, Uint8Array.of(1)) }

export function basicConstraintsExtension(isCa: boolean, pathLength?: number): LabExtension {
  const parts = [
    ...(isCa ? [derElement(tags.boolean, Uint8Array.of(0xff))] : []),
    ...(pathLength === undefined ? [] : [derElement(tags.integer, Uint8Array.of(pathLength))]),
  ]
  return { oid: extensionIds.basicConstraints, critical: true, value: derElement(tags.sequence, ...parts) }
}

/** First octet of the bits: 0x80 digitalSignature, 0x40 contentCommitment, 0x04 keyCertSign, 0x02 cRLSign. */
export function keyUsageExtension(octet: number): LabExtension {
  return { oid: extensionIds.keyUsage, critical: true, value: derElement(tags.bitString, Uint8Array.of(0, octet)) }
}

function encodeSigned(tbs: Uint8Array, algorithm: Uint8Array, key: LabKey, scheme: LabCertificate["signature"]): Uint8Array {
  const signature = signBytes(scheme, key.privateKey, tbs)
  return derElement(tags.sequence, tbs, algorithm, derElement(tags.bitString, Uint8Array.of(0), signature))
}

function encodeName(attributes: NameAttributes): Uint8Array {
  const rdns = attributes.map(([oid, value]) =>
    derElement(tags.set, derElement(tags.sequence, derOid(oid), derElement(tags.utf8String, encodeUtf8(value)))),
  )
  return derElement(tags.sequence, ...rdns)
}

function encodeTime(time: number): Uint8Array {
  const digits = `${new Date(time).toISOString().replace(/[-:T]/g, "").substring(0, 14)}Z`
  return new Date(time).getUTCFullYear() < 2050
    ? derElement(tags.utcTime, encodeUtf8(digits.substring(2)))
    : derElement(tags.generalizedTime, encodeUtf8(digits))
}

function encodeExtensions(extensions: readonly LabExtension[]): Uint8Array {
  return derElement(
    tags.sequence,
    ...extensions.map(({ oid, critical, value }) =>
      derElement(
        tags.sequence,
        derOid(oid),
        critical ? derElement(tags.boolean, Uint8Array.of(0xff)) : new Uint8Array(0),
        derElement(tags.octetString, value),
      ),
    ),
  )
}
