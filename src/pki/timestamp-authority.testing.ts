import { sign } from "node:crypto"
import { encodeUtf8 } from "../bytes/text.ts"
import {
  basicConstraintsOf,
  derAlgorithm,
  derName,
  keyUsageOf,
  makeCertificate,
  makeKeyPair,
  purposesOf,
  type CertificateInput,
  type KeyPair,
} from "./authority.testing.ts"
import { parseCertificate } from "./certificate.ts"
import { contextTag, derElement, derOid, readDer, tags, within } from "./der.ts"
import { hash, type HashName } from "./signatures.ts"
import { readHashAlgorithm, timestampIds } from "./timestamp-format.ts"

/** A laboratory's time-stamping authority (RFC 3161): real tokens, and every fault that a test wants. */

export const laboratoryTimePolicy = "1.3.6.1.4.1.99999.1"

export interface StampInput {
  /** Milliseconds since 1970. */
  readonly genTime: number
  readonly status?: number
  /** Elements behind the status number: statusString, failInfo. */
  readonly statusParts?: readonly Uint8Array[]
  readonly withoutToken?: boolean
  /** GeneralizedTime as written. */
  readonly genTimeText?: string
  readonly imprint?: Uint8Array
  readonly imprintAlgorithm?: string
  /** null: left out. */
  readonly nonce?: Uint8Array | null
  readonly policy?: string
  /** Contents of the SEQUENCE. */
  readonly accuracy?: Uint8Array
  readonly infoVersion?: number
  readonly infoExtensions?: readonly { readonly oid: string; readonly critical: boolean }[]
  /** Name in TSTInfo.tsa; none by default. */
  readonly tsa?: string
  readonly contentType?: string
  readonly signedContentType?: string
  readonly hash?: HashName
  readonly announcedHash?: HashName
  readonly messageDigest?: Uint8Array
  /** Certificate that ESSCertIDv2 is over. */
  readonly boundCertificate?: Uint8Array
  readonly issuerSerial?: { readonly issuer: string; readonly serial: number }
  /** Attributes left out, by object identifier. */
  readonly withoutAttributes?: readonly string[]
  readonly extraAttributes?: readonly Uint8Array[]
  readonly signerCount?: number
  readonly signerVersion?: number
  readonly dataVersion?: number
  readonly signatureAlgorithm?: Uint8Array
  readonly signingKey?: KeyPair
  readonly certificates?: readonly Uint8Array[]
  readonly bySubjectKeyId?: Uint8Array
}

const hashOids: Readonly<Record<HashName, string>> = {
  sha1: "1.3.14.3.2.26",
  sha256: timestampIds.sha256,
  sha384: "2.16.840.1.101.3.4.2.2",
  sha512: "2.16.840.1.101.3.4.2.3",
}

export class LaboratoryTimeAuthority {
  readonly rootKey = makeKeyPair()
  readonly issuerKey = makeKeyPair()
  readonly key: KeyPair
  readonly root: Uint8Array
  readonly issuer: Uint8Array
  /** The certificate that signs stamps. */
  readonly certificate: Uint8Array

  constructor(change: Partial<CertificateInput> = {}) {
    const extensions = [basicConstraintsOf(true), keyUsageOf(0x06)]
    this.key = change.key ?? makeKeyPair()
    this.root = makeCertificate({ subject: "time root", issuer: "time root", key: this.rootKey, issuerKey: this.rootKey, extensions })
    this.issuer = makeCertificate({ subject: "time ca", issuer: "time root", key: this.issuerKey, issuerKey: this.rootKey, serial: 2, extensions })
    this.certificate = makeCertificate({
      subject: "time authority",
      issuer: "time ca",
      key: this.key,
      issuerKey: this.issuerKey,
      serial: 3,
      extensions: [purposesOf(true, timestampIds.timeStamping), keyUsageOf(0x80)],
      ...change,
    })
  }

  /** TimeStampResp to a TimeStampReq. */
  answer(request: Uint8Array, input: StampInput): Uint8Array {
    const asked = readRequest(request)
    const status = derElement(tags.sequence, derElement(tags.integer, Uint8Array.of(input.status ?? 0)), ...(input.statusParts ?? []))
    if (input.withoutToken === true) return derElement(tags.sequence, status)
    return derElement(tags.sequence, status, this.#token(this.#info(asked, input), input))
  }

  #info(asked: { readonly imprint: Uint8Array; readonly nonce: Uint8Array }, input: StampInput): Uint8Array {
    const nonce = input.nonce === undefined ? asked.nonce : input.nonce
    return derElement(
      tags.sequence,
      derElement(tags.integer, Uint8Array.of(input.infoVersion ?? 1)),
      derOid(input.policy ?? laboratoryTimePolicy),
      derElement(
        tags.sequence,
        derElement(tags.sequence, derOid(input.imprintAlgorithm ?? timestampIds.sha256)),
        derElement(tags.octetString, input.imprint ?? asked.imprint),
      ),
      derElement(tags.integer, Uint8Array.of(7)),
      derElement(tags.generalizedTime, encodeUtf8(input.genTimeText ?? generalizedTime(input.genTime))),
      ...(input.accuracy === undefined ? [] : [derElement(tags.sequence, input.accuracy)]),
      ...(nonce === null ? [] : [derElement(tags.integer, nonce)]),
      ...(input.tsa === undefined ? [] : [derElement(contextTag(0, "constructed"), derElement(contextTag(4, "constructed"), derName(input.tsa)))]),
      ...(input.infoExtensions === undefined
        ? []
        : [
            derElement(
              contextTag(1, "constructed"),
              ...input.infoExtensions.map(({ oid, critical }) =>
                derElement(
                  tags.sequence,
                  derOid(oid),
                  ...(critical ? [derElement(tags.boolean, Uint8Array.of(0xff))] : []),
                  derElement(tags.octetString),
                ),
              ),
            ),
          ]),
    )
  }

  #token(content: Uint8Array, input: StampInput): Uint8Array {
    const name = input.hash ?? "sha256"
    const contentType = input.contentType ?? timestampIds.tstInfo
    const signer = this.#signer(content, input)
    const signedData = derElement(
      tags.sequence,
      derElement(tags.integer, Uint8Array.of(input.dataVersion ?? 3)),
      derElement(tags.set, derElement(tags.sequence, derOid(hashOids[input.announcedHash ?? name]), derElement(tags.null))),
      derElement(tags.sequence, derOid(contentType), derElement(contextTag(0, "constructed"), derElement(tags.octetString, content))),
      derElement(contextTag(0, "constructed"), ...(input.certificates ?? [this.certificate, this.issuer])),
      derElement(tags.set, ...Array.from({ length: input.signerCount ?? 1 }, () => signer)),
    )
    return derElement(tags.sequence, derOid(timestampIds.signedData), derElement(contextTag(0, "constructed"), signedData))
  }

  #signer(content: Uint8Array, input: StampInput): Uint8Array {
    const name = input.hash ?? "sha256"
    const { issuer, serial } = parseCertificate(this.certificate)
    const bound = input.boundCertificate ?? this.certificate
    const { issuerSerial } = input
    const certId = derElement(
      tags.sequence,
      ...(name === "sha256" ? [] : [derElement(tags.sequence, derOid(hashOids[name]))]),
      derElement(tags.octetString, hash(name, bound)),
      ...(issuerSerial === undefined
        ? []
        : [
            derElement(
              tags.sequence,
              derElement(tags.sequence, derElement(contextTag(4, "constructed"), derName(issuerSerial.issuer))),
              derElement(tags.integer, Uint8Array.of(issuerSerial.serial)),
            ),
          ]),
    )
    const values: readonly (readonly [string, Uint8Array])[] = [
      [timestampIds.contentType, derOid(input.signedContentType ?? timestampIds.tstInfo)],
      [timestampIds.messageDigest, derElement(tags.octetString, input.messageDigest ?? hash(name, content))],
      [timestampIds.signingCertificateV2, derElement(tags.sequence, derElement(tags.sequence, certId))],
    ]
    const attributes = [
      ...values.filter(([oid]) => input.withoutAttributes?.includes(oid) !== true).map(([oid, value]) => attributeOf(oid, value)),
      ...(input.extraAttributes ?? []),
    ]
    const keyId = input.bySubjectKeyId
    const { privateKey } = input.signingKey ?? this.key
    const signature = sign(privateKey.asymmetricKeyType === "ed25519" ? null : name, derElement(tags.set, ...attributes), privateKey)
    return derElement(
      tags.sequence,
      derElement(tags.integer, Uint8Array.of(input.signerVersion ?? (keyId === undefined ? 1 : 3))),
      keyId === undefined
        ? derElement(tags.sequence, issuer, derElement(tags.integer, Uint8Array.of(Number.parseInt(serial, 16))))
        : derElement(contextTag(0, "primitive"), keyId),
      derElement(tags.sequence, derOid(hashOids[name]), derElement(tags.null)),
      derElement(contextTag(0, "constructed"), ...attributes),
      input.signatureAlgorithm ?? derAlgorithm(privateKey, "sha256"),
      derElement(tags.octetString, new Uint8Array(signature)),
    )
  }
}

export function attributeOf(oid: string, ...values: readonly Uint8Array[]): Uint8Array {
  return derElement(tags.sequence, derOid(oid), derElement(tags.set, ...values))
}

/** A TimeStampReq as this program makes it. */
export function readRequest(bytes: Uint8Array): { readonly imprint: Uint8Array; readonly nonce: Uint8Array } {
  return readDer("TimeStampReq", bytes, (outer) =>
    within(outer, tags.sequence, "request", (reader) => {
      reader.smallInteger("version")
      const imprint = within(reader, tags.sequence, "messageImprint", (inner) => {
        readHashAlgorithm(inner, "hashAlgorithm")
        return inner.element(tags.octetString, "hashedMessage").body
      })
      const nonce = reader.element(tags.integer, "nonce").body
      reader.boolean("certReq")
      return { imprint, nonce }
    }),
  )
}

function generalizedTime(milliseconds: number): string {
  const text = new Date(milliseconds).toISOString()
  const fraction = text.substring(20, 23).replace(/0+$/, "")
  return `${text.substring(0, 19).replace(/[-:T]/g, "")}${fraction === "" ? "" : `.${fraction}`}Z`
}
