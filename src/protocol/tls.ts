import { createHash, createPublicKey, generateKeyPairSync, randomBytes, type KeyObject } from "node:crypto"
import type { TLSSocket } from "node:tls"
import { concatBytes } from "../bytes/compare.ts"
import type { Digest } from "../bytes/digest.ts"
import { encodeBase64, encodeHex, encodeUtf8 } from "../bytes/text.ts"
import { contextTag, derElement, derOid, tags } from "../pki/der.ts"
import { signBytes } from "../pki/signatures.ts"

/**
 * TLS keys between programs. Certificates are self-signed envelopes of a key and prove nothing by themselves: each side compares the SHA-256 of the
 * peer's SubjectPublicKeyInfo with what a signed statement or its own evidence names. (A manager's carries its evidence too: manager-certificate.ts.)
 */
export interface TlsIdentity {
  /** PKCS #8 PEM, P-256. */
  readonly privateKeyPem: string
  readonly certificatePem: string
  /** SHA-256 of the SubjectPublicKeyInfo (DER). */
  readonly tlsKey: Digest
}

/**
 * A fresh P-256 key with a self-signed certificate. Validity dates are wide, for nothing reads them: sessions and leases carry their own
 * time, and a host's clock may be anything.
 */
export function createTlsIdentity(commonName: string): TlsIdentity {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const certificate = selfSignedCertificate(privateKey, {
    commonName,
    notBefore: Date.parse("2020-01-01T00:00:00Z"),
    notAfter: Date.parse("2049-12-31T23:59:59Z"),
  })
  return {
    privateKeyPem: String(privateKey.export({ format: "pem", type: "pkcs8" })),
    certificatePem: certificatePem(certificate),
    tlsKey: spkiDigest(publicKey),
  }
}

export interface CertificateContents {
  readonly commonName: string
  /** Milliseconds since 1970, whole seconds, before 2050. */
  readonly notBefore: number
  readonly notAfter: number
  /** DER of each extension's value by object identifier; none is marked critical. */
  readonly extensions?: Readonly<Record<string, Uint8Array>>
}

/** A self-signed certificate (RFC 5280, version 3) of a P-256 key; DER. */
export function selfSignedCertificate(privateKey: KeyObject, contents: CertificateContents): Uint8Array {
  const spki = new Uint8Array(createPublicKey(privateKey).export({ format: "der", type: "spki" }))
  const attribute = derElement(tags.sequence, derOid("2.5.4.3"), derElement(tags.utf8String, encodeUtf8(contents.commonName)))
  const name = derElement(tags.sequence, derElement(tags.set, attribute))
  // A leading 0x01 keeps the serial number positive and its encoding minimal.
  const serial = derElement(tags.integer, concatBytes(Uint8Array.of(1), new Uint8Array(randomBytes(15))))
  const version = derElement(contextTag(0, "constructed"), derElement(tags.integer, Uint8Array.of(2)))
  const validity = derElement(tags.sequence, utcTime(contents.notBefore), utcTime(contents.notAfter))
  const extensions = Object.entries(contents.extensions ?? {}).map(([oid, value]) =>
    derElement(tags.sequence, derOid(oid), derElement(tags.octetString, value)),
  )
  const list = extensions.length === 0 ? [] : [derElement(contextTag(3, "constructed"), derElement(tags.sequence, ...extensions))]
  const tbs = derElement(tags.sequence, version, serial, ecdsaWithSha256, name, validity, name, spki, ...list)
  const signature = signBytes("ecdsa-sha256", privateKey, tbs)
  return derElement(tags.sequence, tbs, ecdsaWithSha256, derElement(tags.bitString, Uint8Array.of(0), signature))
}

/** AlgorithmIdentifier of ecdsa-with-SHA256, without parameters. */
const ecdsaWithSha256 = derElement(tags.sequence, derOid("1.2.840.10045.4.3.2"))

/** RFC 5280 section 4.1.2.5.1: two digits of the year, seconds, Z. */
function utcTime(milliseconds: number): Uint8Array {
  const text = new Date(milliseconds).toISOString()
  if (milliseconds % 1000 !== 0 || text >= "2050") throw new TypeError(`not a time that a certificate states in UTCTime: ${text}`)
  return derElement(tags.utcTime, encodeUtf8(`${text.substring(2, 19).replaceAll(/[-:T]/g, "")}Z`))
}

/** SHA-256 of a public key's SubjectPublicKeyInfo (DER). */
export function spkiDigest(publicKey: KeyObject): Digest {
  const der = publicKey.export({ format: "der", type: "spki" })
  return `sha256:${encodeHex(new Uint8Array(createHash("sha256").update(der).digest()))}`
}

/** The peer's TLS key on an established connection; undefined when the peer showed no certificate. */
export function peerTlsKey(socket: TLSSocket): Digest | undefined {
  const certificate = socket.getPeerX509Certificate()
  return certificate === undefined ? undefined : spkiDigest(certificate.publicKey)
}

/** RFC 7468. */
export function certificatePem(der: Uint8Array): string {
  const lines = encodeBase64(der).match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`
}
