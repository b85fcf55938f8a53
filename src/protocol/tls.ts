import { createHash, generateKeyPairSync, randomBytes, sign, type KeyObject } from "node:crypto"
import type { TLSSocket } from "node:tls"
import { concatBytes } from "../bytes/compare.ts"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { encodeBase64, encodeHex, encodeUtf8, parseHex } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"

/**
 * TLS keys between programs. Certificates are self-signed envelopes of a key and prove nothing by themselves: each side compares the SHA-256 of the
 * peer's SubjectPublicKeyInfo with what a signed statement or its own evidence names.
 */
export interface TlsIdentity {
  /** PKCS #8 PEM, P-256. */
  readonly privateKeyPem: string
  readonly certificatePem: string
  /** SHA-256 of the SubjectPublicKeyInfo (DER). */
  readonly tlsKey: Digest
}

/**
 * A fresh P-256 key with a self-signed certificate (RFC 5280). Validity dates are wide, for nothing reads them: sessions and leases carry their own
 * time, and a host's clock may be anything.
 */
export function createTlsIdentity(commonName: string): TlsIdentity {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const spki = new Uint8Array(publicKey.export({ format: "der", type: "spki" }))
  const name = sequence(set(sequence(oidCommonName, element(0x0c, encodeUtf8(commonName)))))
  const validity = sequence(element(0x17, encodeUtf8("200101000000Z")), element(0x17, encodeUtf8("491231235959Z")))
  // A leading 0x01 keeps the serial number positive and its encoding minimal.
  const serial = element(0x02, concatBytes(Uint8Array.of(1), new Uint8Array(randomBytes(15))))
  const tbs = sequence(element(0xa0, element(0x02, Uint8Array.of(2))), serial, ecdsaWithSha256, name, validity, name, spki)
  const signature = new Uint8Array(sign("sha256", tbs, privateKey))
  const certificate = sequence(tbs, ecdsaWithSha256, element(0x03, concatBytes(Uint8Array.of(0), signature)))
  return {
    privateKeyPem: String(privateKey.export({ format: "pem", type: "pkcs8" })),
    certificatePem: pem("CERTIFICATE", certificate),
    tlsKey: digestOf(spki),
  }
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

// The few DER forms (X.690) that one certificate needs.

/** 2.5.4.3 */
const oidCommonName = element(0x06, parseHex("550403"))
/** AlgorithmIdentifier with 1.2.840.10045.4.3.2 and no parameters. */
const ecdsaWithSha256 = sequence(element(0x06, parseHex("2a8648ce3d040302")))

function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return element(0x30, concatBytes(...parts))
}

function set(...parts: readonly Uint8Array[]): Uint8Array {
  return element(0x31, concatBytes(...parts))
}

function element(tag: number, content: Uint8Array): Uint8Array {
  const writer = new ByteWriter().u8(tag)
  if (content.length < 0x80) writer.u8(content.length)
  else if (content.length < 0x100) writer.u8(0x81).u8(content.length)
  else writer.u8(0x82).u16be(content.length)
  return writer.bytes(content).take()
}

function pem(label: string, der: Uint8Array): string {
  const lines = encodeBase64(der).match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`
}
