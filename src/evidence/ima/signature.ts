import type { KeyObject } from "node:crypto"
import { concatBytes } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { readAll } from "../../bytes/reader.ts"
import type { ByteReader } from "../../bytes/reader.ts"
import { encodeHex, parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import type { ImaEntry } from "./claims.ts"
import { readModsig } from "./modsig.ts"
import { checkPrehashed } from "./prehashed.ts"

/** File signature in the form of the xattrs security.ima and security.evm: signature_v2_hdr, Linux security/integrity/integrity.h. */
export interface FileSignature {
  /** `ima`: over the file digest. `evm-portable`: over extended attributes and owner. `verity`: over the fs-verity digest. */
  readonly type: "ima" | "evm-portable" | "verity"
  /** 2: over the digest itself. 3: over a hash of type, algorithm and digest (ima_file_id). */
  readonly version: 2 | 3
  readonly hashAlgorithm: HashName
  /** Last four bytes of the signer's key identifier, lower-case hexadecimal: a hint, proves nothing. */
  readonly keyId: string
  readonly signature: Uint8Array
}

export interface FileSignatureOptions {
  /** Public keys that the caller trusts to sign files. There is no default. */
  readonly keys: readonly KeyObject[]
  /** Lets files signed over SHA-1 pass. */
  readonly insecureAllowSha1?: boolean
  /** Lets keys on the curve secp256k1 pass, which the kernel itself does not have. */
  readonly insecureAllowSecp256k1?: boolean
}

/** Whether one of the given keys signed what the entry measured; otherwise the reason. */
export type FileSignatureVerdict =
  | { readonly signed: true; readonly by: KeyObject; readonly form: FileSignature["type"] | "modsig" }
  | { readonly signed: false; readonly reason: UnsignedReason }

export const unsignedReasons = {
  "no-signature": "the entry holds no signature",
  malformed: "the signature has no known form",
  "weak-hash": "the signature is over SHA-1",
  "other-digest": "the signature is over another hash algorithm or kind of digest than the entry's",
  "no-digest": "the entry does not hold what the signature covers",
  "wrong-signature": "none of the given keys made the signature",
} as const satisfies Record<string, string>

export type UnsignedReason = keyof typeof unsignedReasons

/**
 * Judges an entry's signature: IMA v2 and v3, EVM portable (template evm-sig), appended (modsig). The entry must come out of verified claims. Violations
 * are never signed: their digest is not that of any file.
 */
export function judgeFileSignature(entry: ImaEntry, options: FileSignatureOptions): FileSignatureVerdict {
  if (entry.violation) return unsigned("no-digest")
  if (entry.modsig !== undefined) {
    const verdict = judgeModsig(entry, entry.modsig, options)
    if (verdict.signed || entry.signature === undefined) return verdict
  }
  if (entry.signature === undefined) return unsigned("no-signature")
  const parsed = parsedOrUndefined(entry.signature)
  return parsed === undefined ? unsigned("malformed") : judgeParsed(entry, parsed, options)
}

/**
 * type u8 (3 IMA, 5 EVM portable, 6 fs-verity), version u8, hash algorithm u8, key identifier u32 and signature size u16 (both big-endian), signature.
 * @throws {MalformedError} `malformed` for other types, versions and hash algorithms, `truncated`, `trailing-bytes`
 */
export function parseFileSignature(bytes: Uint8Array): FileSignature {
  return readAll("signature", bytes, readFileSignature)
}

function readFileSignature(reader: ByteReader): FileSignature {
  const type = signatureTypes.get(reader.u8("type"))
  if (type === undefined) throw reader.error("malformed", "type", "neither IMA nor portable EVM nor fs-verity signature")
  const version = reader.u8("version")
  if (version !== 2 && version !== 3) throw reader.error("malformed", "version", `version ${version}, expected 2 or 3`)
  const hashAlgorithm = hashAlgorithms.get(reader.u8("hashAlgorithm"))
  if (hashAlgorithm === undefined) throw reader.error("malformed", "hashAlgorithm", "unknown hash algorithm")
  const keyId = encodeHex(reader.bytes(4, "keyId"))
  const signature = reader.boundedBytes(reader.u16be("signatureSize"), maxSignatureBytes, "signature")
  return { type, version, hashAlgorithm, keyId, signature }
}

function judgeParsed(entry: ImaEntry, signature: FileSignature, options: FileSignatureOptions): FileSignatureVerdict {
  if (signature.hashAlgorithm === "sha1" && options.insecureAllowSha1 !== true) return unsigned("weak-hash")
  switch (signature.type) {
    case "ima":
      if (entry.verity === true || entry.hashAlgorithm !== signature.hashAlgorithm) return unsigned("other-digest")
      return byKeys(signature, signedDigest(entry, signature), options)
    case "verity":
      if (entry.verity !== true || entry.hashAlgorithm !== signature.hashAlgorithm || signature.version !== 3) return unsigned("other-digest")
      return byKeys(signature, signedDigest(entry, signature), options)
    case "evm-portable":
      return judgeEvm(entry, signature, options)
  }
}

/** Version 2 signs the digest; version 3 the hash of ima_file_id: signature type u8, hash algorithm u8, digest. */
function signedDigest(entry: ImaEntry, signature: FileSignature): Uint8Array {
  const digest = parseHex(entry.digest)
  if (signature.version === 2) return digest
  const fileId = new ByteWriter().u8(codeOf(signatureTypes, signature.type)).u8(codeOf(hashAlgorithms, signature.hashAlgorithm)).bytes(digest)
  return hash(signature.hashAlgorithm, fileId.take())
}

/**
 * EVM portable signatures cover the protected xattrs' values, owner and mode (Linux evm_crypto.c, hmac_add_misc with zero inode and generation), and
 * through security.ima the file: its digest must be the entry's, or a signature over the entry's digest.
 */
function judgeEvm(entry: ImaEntry, signature: FileSignature, options: FileSignatureOptions): FileSignatureVerdict {
  const { inode } = entry
  const ima = inode?.xattrs.find((xattr) => xattr.name === "security.ima")
  if (inode === undefined || ima === undefined) return unsigned("no-digest")
  if (!coversEntry(entry, ima.value, options)) return unsigned("other-digest")
  const misc = new ByteWriter().bytes(new Uint8Array(12)).u32le(inode.uid).u32le(inode.gid).u16le(inode.mode).u16le(0).take()
  const covered = concatBytes(...inode.xattrs.map((xattr) => xattr.value), misc)
  return byKeys(signature, hash(signature.hashAlgorithm, covered), options)
}

/** security.ima: 4, hash algorithm u8, digest (IMA_XATTR_DIGEST_NG); or a signature over the entry's digest. */
function coversEntry(entry: ImaEntry, xattr: Uint8Array, options: FileSignatureOptions): boolean {
  if (xattr[0] === imaXattrDigestNg) {
    const algorithm = hashAlgorithms.get(xattr[1] ?? 0xff)
    const digest = new ByteWriter().u8(imaXattrDigestNg).u8(xattr[1] ?? 0)
    return algorithm === entry.hashAlgorithm && entry.verity !== true && encodeHex(digest.bytes(parseHex(entry.digest)).take()) === encodeHex(xattr)
  }
  const signature = parsedOrUndefined(xattr)
  return signature !== undefined && signature.type !== "evm-portable" && judgeParsed(entry, signature, options).signed
}

function judgeModsig(entry: ImaEntry, modsig: Uint8Array, options: FileSignatureOptions): FileSignatureVerdict {
  const [algorithm, digest] = entry.modsigDigest?.split(":") ?? []
  if (algorithm === undefined || digest === undefined) return unsigned("no-digest")
  const signers = readModsig(modsig, parseHex(digest))
  if (signers === undefined) return unsigned("malformed")
  let reason: UnsignedReason = "other-digest"
  for (const signer of signers) {
    if (signer.hashAlgorithm !== algorithm) continue
    if (signer.hashAlgorithm === "sha1" && options.insecureAllowSha1 !== true) {
      reason = "weak-hash"
      continue
    }
    const by = signerAmong(options, signer.hashAlgorithm, signer.signedDigest, signer.signature)
    if (by !== undefined) return { signed: true, by, form: "modsig" }
    reason = "wrong-signature"
  }
  return unsigned(reason)
}

function byKeys(signature: FileSignature, digest: Uint8Array, options: FileSignatureOptions): FileSignatureVerdict {
  const by = signerAmong(options, signature.hashAlgorithm, digest, signature.signature)
  return by === undefined ? unsigned("wrong-signature") : { signed: true, by, form: signature.type }
}

function signerAmong(options: FileSignatureOptions, hashName: HashName, digest: Uint8Array, signature: Uint8Array): KeyObject | undefined {
  return options.keys.find((key) => {
    if (key.asymmetricKeyDetails?.namedCurve === "secp256k1" && options.insecureAllowSecp256k1 !== true) return false
    return checkPrehashed(key, hashName, digest, signature) === "right"
  })
}

function parsedOrUndefined(bytes: Uint8Array): FileSignature | undefined {
  try {
    return parseFileSignature(bytes)
  } catch (error) {
    if (error instanceof MalformedError) return undefined
    throw error
  }
}

function unsigned(reason: UnsignedReason): FileSignatureVerdict {
  return { signed: false, reason }
}

function codeOf<Name>(table: ReadonlyMap<number, Name>, name: Name): number {
  for (const [code, candidate] of table) if (candidate === name) return code
  throw new Error("internal: no code for a name of the table")
}

/** EVM_IMA_XATTR_DIGSIG, EVM_XATTR_PORTABLE_DIGSIG, IMA_VERITY_DIGSIG. */
const signatureTypes: ReadonlyMap<number, FileSignature["type"]> = new Map([
  [3, "ima"],
  [5, "evm-portable"],
  [6, "verity"],
])
/** enum hash_algo, include/uapi/linux/hash_info.h; those that may be judged. */
const hashAlgorithms: ReadonlyMap<number, HashName> = new Map([
  [2, "sha1"],
  [4, "sha256"],
  [5, "sha384"],
  [6, "sha512"],
])
const imaXattrDigestNg = 4
/** RSA with 8192 bits. */
const maxSignatureBytes = 1024
