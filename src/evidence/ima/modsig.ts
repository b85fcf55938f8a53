import { bytesEqual, concatBytes } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { readAll } from "../../bytes/reader.ts"
import type { ByteReader } from "../../bytes/reader.ts"
import { encodeHex } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { readDer, readDerLength } from "./prehashed.ts"

/** One signer of an appended signature, with the digest that its signature is over. */
export interface ModsigSigner {
  readonly hashAlgorithm: HashName
  readonly signedDigest: Uint8Array
  readonly signature: Uint8Array
}

/**
 * Reads the PKCS#7 SignedData (RFC 5652 §5) that is appended to kernel modules and images. Without signed attributes the signature is over the content;
 * with them it is over the attributes, of which messageDigest must be the content's digest.
 * @returns undefined where the structure has another form; signers over another content or of unknown algorithms are left out
 */
export function readModsig(der: Uint8Array, contentDigest: Uint8Array): readonly ModsigSigner[] | undefined {
  try {
    return readAll("PKCS7", der, (reader) => readContentInfo(reader)).flatMap((signer) => signerOver(signer, contentDigest))
  } catch (error) {
    if (error instanceof MalformedError) return undefined
    throw error
  }
}

interface SignerInfo {
  readonly hashOid: string
  /** The attributes as they are signed: with the tag of SET in place of [0]; undefined where there are none. */
  readonly signedAttributes: Uint8Array | undefined
  readonly messageDigest: Uint8Array | undefined
  readonly signature: Uint8Array
}

function signerOver(signer: SignerInfo, contentDigest: Uint8Array): readonly ModsigSigner[] {
  const hashAlgorithm = hashOids.get(signer.hashOid)
  if (hashAlgorithm === undefined) return []
  if (signer.signedAttributes === undefined) return [{ hashAlgorithm, signedDigest: contentDigest, signature: signer.signature }]
  if (signer.messageDigest === undefined || !bytesEqual(signer.messageDigest, contentDigest)) return []
  return [{ hashAlgorithm, signedDigest: hash(hashAlgorithm, signer.signedAttributes), signature: signer.signature }]
}

/** ContentInfo: OID signedData, then [0] SignedData: version, digestAlgorithms, encapContentInfo, [0] certificates, [1] crls, signerInfos. */
function readContentInfo(reader: ByteReader): readonly SignerInfo[] {
  const info = readDer(reader, sequence, "contentInfo")
  if (encodeHex(readDer(info, objectIdentifier, "contentType").rest("oid")) !== signedDataOid)
    throw info.error("malformed", "contentType", "not signedData")
  const outer = readDer(info, contextZero, "content")
  info.finish()
  const signedData = readDer(outer, sequence, "signedData")
  outer.finish()
  readDer(signedData, integerTag, "version").rest("value")
  readDer(signedData, setTag, "digestAlgorithms").rest("value")
  readDer(signedData, sequence, "encapContentInfo").rest("value")
  let tag = signedData.u8("tag")
  while (tag === contextZero || tag === contextOne) {
    signedData.sub(readDerLength(signedData, "certificates"), "certificates").rest("value")
    tag = signedData.u8("tag")
  }
  if (tag !== setTag) throw signedData.error("malformed", "signerInfos", "missing")
  const signerInfos = signedData.sub(readDerLength(signedData, "signerInfos"), "signerInfos")
  signedData.finish()
  const signers: SignerInfo[] = []
  while (signerInfos.remaining > 0) {
    if (signers.length >= maxSigners) throw signerInfos.error("too-large", "signerInfos", `more than ${maxSigners}`)
    signers.push(readSignerInfo(readDer(signerInfos, sequence, "signerInfo")))
  }
  return signers
}

/** SignerInfo: version, sid (SEQUENCE or [0]), digestAlgorithm, [0] signedAttrs, signatureAlgorithm, signature, [1] unsignedAttrs. */
function readSignerInfo(reader: ByteReader): SignerInfo {
  readDer(reader, integerTag, "version").rest("value")
  reader.u8("sid")
  reader.sub(readDerLength(reader, "sid"), "sid").rest("value")
  const hashOid = readAlgorithm(readDer(reader, sequence, "digestAlgorithm"))
  let tag = reader.u8("signedAttrs")
  let signedAttributes: Uint8Array | undefined
  let messageDigest: Uint8Array | undefined
  if (tag === contextZero) {
    const start = reader.offset
    const attributes = reader.sub(readDerLength(reader, "signedAttrs"), "signedAttrs")
    signedAttributes = concatBytes(Uint8Array.of(setTag), reader.since(start))
    messageDigest = readMessageDigest(attributes)
    tag = reader.u8("signatureAlgorithm")
  }
  if (tag !== sequence) throw reader.error("malformed", "signatureAlgorithm", "missing")
  reader.sub(readDerLength(reader, "signatureAlgorithm"), "signatureAlgorithm").rest("value")
  const signature = readDer(reader, octetString, "signature").rest("value")
  if (reader.remaining > 0) readDer(reader, contextOne, "unsignedAttrs").rest("value")
  reader.finish()
  return { hashOid, signedAttributes, messageDigest, signature }
}

function readAlgorithm(reader: ByteReader): string {
  const oid = encodeHex(readDer(reader, objectIdentifier, "algorithm").rest("oid"))
  reader.rest("parameters")
  return oid
}

function readMessageDigest(attributes: ByteReader): Uint8Array | undefined {
  let found: Uint8Array | undefined
  while (attributes.remaining > 0) {
    const attribute = readDer(attributes, sequence, "attribute")
    const oid = encodeHex(readDer(attribute, objectIdentifier, "type").rest("oid"))
    const values = readDer(attribute, setTag, "values")
    attribute.finish()
    if (oid !== messageDigestOid) {
      values.rest("value")
      continue
    }
    if (found !== undefined) throw attributes.error("duplicate", "messageDigest", "stands twice")
    found = readDer(values, octetString, "messageDigest").rest("value")
    values.finish()
  }
  return found
}

const sequence = 0x30
const setTag = 0x31
const integerTag = 0x02
const octetString = 0x04
const objectIdentifier = 0x06
const contextZero = 0xa0
const contextOne = 0xa1
/** 1.2.840.113549.1.7.2 and 1.2.840.113549.1.9.4. */
const signedDataOid = "2a864886f70d010702"
const messageDigestOid = "2a864886f70d010904"
const hashOids: ReadonlyMap<string, HashName> = new Map([
  ["2b0e03021a", "sha1"],
  ["608648016503040201", "sha256"],
  ["608648016503040202", "sha384"],
  ["608648016503040203", "sha512"],
])
/** Module signing makes one. */
const maxSigners = 8
