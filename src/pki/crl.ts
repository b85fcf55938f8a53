import { bytesEqual } from "../bytes/compare.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeHex } from "../bytes/text.ts"
import { certificateKey, keyUsage, parseSignatureAlgorithm, readExtensionList, readExtensions, readTime } from "./certificate.ts"
import type { Certificate, CertificateExtension, SignatureAlgorithm } from "./certificate.ts"
import type { DerReader } from "./der.ts"
import { contextTag, readDer, tags, within } from "./der.ts"
import { PkiError } from "./errors.ts"
import { verifySignature } from "./signatures.ts"

/** A certificate revocation list, RFC 5280 section 5, version 2 (version 1 without extensions is read too). */
export interface RevocationList {
  readonly der: Uint8Array
  /** TBSCertList, exactly as signed. */
  readonly tbs: Uint8Array
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Uint8Array
  /** Name, whole DER element. */
  readonly issuer: Uint8Array
  /** Milliseconds since 1970. */
  readonly thisUpdate: number
  readonly nextUpdate: number
  /** Serial numbers as written, lower-case hexadecimal. */
  readonly revoked: ReadonlySet<string>
  readonly extensions: ReadonlyMap<string, CertificateExtension>
}

/** Intel's platform CA list, the largest known, is under 100 KiB. */
const maxListBytes = 4 * 1024 * 1024

/** @throws {MalformedError}; `malformed` also for a list without nextUpdate, which could never grow old */
export function parseRevocationList(der: Uint8Array): RevocationList {
  if (der.length > maxListBytes) throw new MalformedError("too-large", `${der.length} bytes`, { path: "CertificateList" })
  // The fields are views of a copy that nobody else holds.
  const own = Uint8Array.from(der)
  return readDer("CertificateList", own, (outer) => {
    const parts = within(outer, tags.sequence, "list", (reader) => ({
      tbs: reader.element(tags.sequence, "tbsCertList").bytes,
      algorithm: reader.element(tags.sequence, "signatureAlgorithm").bytes,
      signature: reader.bitStringBytes("signatureValue"),
    }))
    const { algorithm, ...fields } = readTbs(parts.tbs)
    if (!bytesEqual(algorithm, parts.algorithm))
      throw new MalformedError("malformed", "differs inside and outside", { path: "CertificateList.signatureAlgorithm" })
    return {
      der: own,
      tbs: parts.tbs,
      signature: parts.signature,
      signatureAlgorithm: parseSignatureAlgorithm(algorithm),
      ...fields,
    }
  })
}

/**
 * Refuses a revoked certificate. A list of the certificate's issuer must be signed by that issuer's key and in time; lists of others are left alone.
 * @throws {PkiError} `revoked`, `expired`, `wrong-signature`, `wrong-certificate` (a list that needs more than we handle, an issuer that may not sign lists, or no list where one is required)
 */
export function checkNotRevoked(
  certificate: Certificate,
  issuer: Certificate,
  time: number,
  lists: readonly RevocationList[],
  isRequired: boolean,
): void {
  const fitting = lists.filter((list) => bytesEqual(list.issuer, certificate.issuer))
  if (fitting.length === 0 && isRequired) throw new PkiError("wrong-certificate", "no revocation list of the issuer was given")
  for (const list of fitting) {
    verifyRevocationList(list, issuer, time)
    if (list.revoked.has(certificate.serial)) throw new PkiError("revoked", `serial number ${certificate.serial}`)
  }
}

/** Returns only when `issuer` signed the list and `time` lies within its dates. @throws as checkNotRevoked */
export function verifyRevocationList(list: RevocationList, issuer: Certificate, time: number): void {
  if (!bytesEqual(list.issuer, issuer.subject)) throw new PkiError("wrong-certificate", "the revocation list is of another issuer")
  if (keyUsage(issuer)?.has("cRLSign") === false) throw new PkiError("wrong-certificate", "the issuer's key may not sign revocation lists")
  const { scheme, oid } = list.signatureAlgorithm
  if (scheme === undefined) throw new PkiError("weak-algorithm", `signature algorithm ${oid} is not on the allow list`)
  verifySignature(scheme, certificateKey(issuer), list.tbs, list.signature)
  // Partial and delta lists say so in a critical extension; none of them is handled.
  for (const [id, { critical }] of list.extensions)
    if (critical) throw new PkiError("wrong-certificate", `the revocation list has the critical extension ${id}, which is not handled`)
  if (time >= list.thisUpdate && time <= list.nextUpdate) return
  const [from, to, at] = [list.thisUpdate, list.nextUpdate, time].map((moment) => new Date(moment).toISOString())
  throw new PkiError("expired", `the revocation list is valid from ${from} to ${to}, judged at ${at}`)
}

function readTbs(tbs: Uint8Array): Omit<RevocationList, "der" | "tbs" | "signature" | "signatureAlgorithm"> & { readonly algorithm: Uint8Array } {
  return readDer("TBSCertList", tbs, (outer) =>
    within(outer, tags.sequence, "tbs", (reader) => {
      if (reader.nextTag() === tags.integer && reader.smallInteger("version") !== 1)
        throw new PkiError("unsupported", "version of the revocation list", { path: "TBSCertList.version" })
      const fields = {
        algorithm: reader.element(tags.sequence, "signature").bytes,
        issuer: reader.element(tags.sequence, "issuer").bytes,
        thisUpdate: readTime(reader, "thisUpdate"),
        nextUpdate: readTime(reader, "nextUpdate"),
      }
      const revoked = reader.nextTag() === tags.sequence ? within(reader, tags.sequence, "revokedCertificates", readRevoked) : new Set<string>()
      const hasExtensions = reader.nextTag() === contextTag(0, "constructed")
      return { ...fields, revoked, extensions: hasExtensions ? readExtensions(reader, 0) : new Map<string, CertificateExtension>() }
    }),
  )
}

function readRevoked(reader: DerReader): ReadonlySet<string> {
  const serials = new Set<string>()
  while (!reader.done) {
    within(reader, tags.sequence, "entry", (entry) => {
      serials.add(encodeHex(entry.element(tags.integer, "userCertificate").body))
      readTime(entry, "revocationDate")
      if (entry.done) return
      for (const [id, { critical }] of readExtensionList(entry))
        if (critical) throw new PkiError("wrong-certificate", `an entry has the critical extension ${id}, which is not handled`)
    })
  }
  return serials
}
