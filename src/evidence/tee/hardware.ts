import * as z from "zod"
import { encodeBase64, parseBase64 } from "../../bytes/text.ts"
import { parseCertificate } from "../../pki/certificate.ts"
import { parseRevocationList } from "../../pki/crl.ts"
import type { DcapCollateral, SignedDocument } from "../dcap/endorsements.ts"
import type { SnpEndorsements } from "../snp/endorsements.ts"

/**
 * Evidence that a processor signs of a TEE, decoded; nothing in it is verified. What vouches for it may travel with it or come from the verifier's cache. `format.ts` beside has
 * all that a machine can show as its TEE.
 */
export type HardwareEvidence = SgxTeeEvidence | TdxTeeEvidence | SnpTeeEvidence

export interface SgxTeeEvidence {
  readonly kind: "sgx"
  readonly quote: Uint8Array
  readonly collateral?: DcapCollateral
}

export interface TdxTeeEvidence {
  readonly kind: "tdx"
  readonly quote: Uint8Array
  readonly collateral?: DcapCollateral
  /** CC event log, the firmware's table or a guest agent's JSON; explains RTMR0 to RTMR3. */
  readonly eventLog?: Uint8Array
}

export interface SnpTeeEvidence {
  readonly kind: "snp"
  /** ATTESTATION_REPORT. */
  readonly report: Uint8Array
  readonly endorsements?: SnpEndorsements
}

export type HardwareKind = HardwareEvidence["kind"]

/** Quotes with their PCK chain have some 5 KiB, reports 1184 bytes; clouds pad. */
const maxQuoteBytes = 32_768
/** Firmware reserves 64 KiB. */
const maxEventLogBytes = 1_048_576
const maxDocumentBytes = 1_048_576
const maxCrlBytes = 4_194_304
const maxChainBytes = 16_384
const maxCertificateBytes = 8192
const maxCertificates = 4
/** Largest evidence as JSON text. */
export const maxTeeEvidenceBytes = 16_777_216

const base64Text = (maxBytes: number): z.ZodString => z.string().max(Math.ceil(maxBytes / 3) * 4)
const signedDocument = z.strictObject({ document: base64Text(maxDocumentBytes), issuerChain: base64Text(maxChainBytes) })

const collateralSchema = z.strictObject({
  tcbInfo: signedDocument.exactOptional(),
  qeIdentity: signedDocument.exactOptional(),
  rootCrl: base64Text(maxCrlBytes).exactOptional(),
  pckCrl: base64Text(maxCrlBytes).exactOptional(),
  pckChain: base64Text(maxChainBytes).exactOptional(),
})

/** SnpEndorsements as JSON. */
export const endorsementsSchema = z.strictObject({
  /** DER of VCEK or VLEK. */
  signer: base64Text(maxCertificateBytes),
  intermediates: z.array(base64Text(maxCertificateBytes)).max(maxCertificates),
  revocationLists: z.array(base64Text(maxChainBytes)).max(maxCertificates),
})

/** The evidence as JSON, one form for each kind; every byte string is canonical padded base64. */
export const hardwareEvidenceSchemas = {
  sgx: z.strictObject({
    perun: z.literal(1),
    kind: z.literal("sgx"),
    quote: base64Text(maxQuoteBytes),
    collateral: collateralSchema.exactOptional(),
  }),
  tdx: z.strictObject({
    perun: z.literal(1),
    kind: z.literal("tdx"),
    quote: base64Text(maxQuoteBytes),
    collateral: collateralSchema.exactOptional(),
    eventLog: base64Text(maxEventLogBytes).exactOptional(),
  }),
  snp: z.strictObject({
    perun: z.literal(1),
    kind: z.literal("snp"),
    report: base64Text(maxQuoteBytes),
    endorsements: endorsementsSchema.exactOptional(),
  }),
} as const

export type HardwareEvidenceDocument = z.infer<(typeof hardwareEvidenceSchemas)[HardwareKind]>

/** Decodes the byte strings of an evidence document. @throws {MalformedError} */
export function decodeHardwareEvidence(document: HardwareEvidenceDocument): HardwareEvidence {
  switch (document.kind) {
    case "sgx":
      return { kind: "sgx", quote: parseBase64(document.quote, "evidence.quote"), ...decodeCollateral(document.collateral) }
    case "tdx":
      return {
        kind: "tdx",
        quote: parseBase64(document.quote, "evidence.quote"),
        ...decodeCollateral(document.collateral),
        ...(document.eventLog === undefined ? {} : { eventLog: parseBase64(document.eventLog, "evidence.eventLog") }),
      }
    case "snp":
      return {
        kind: "snp",
        report: parseBase64(document.report, "evidence.report"),
        ...(document.endorsements === undefined ? {} : { endorsements: decodeEndorsements(document.endorsements) }),
      }
  }
}

export function encodeHardwareEvidence(evidence: HardwareEvidence): HardwareEvidenceDocument {
  switch (evidence.kind) {
    case "sgx":
      return { perun: 1, kind: "sgx", quote: encodeBase64(evidence.quote), ...encodeCollateral(evidence.collateral) }
    case "tdx":
      return {
        perun: 1,
        kind: "tdx",
        quote: encodeBase64(evidence.quote),
        ...encodeCollateral(evidence.collateral),
        ...(evidence.eventLog === undefined ? {} : { eventLog: encodeBase64(evidence.eventLog) }),
      }
    case "snp":
      return {
        perun: 1,
        kind: "snp",
        report: encodeBase64(evidence.report),
        ...(evidence.endorsements === undefined ? {} : { endorsements: encodeEndorsements(evidence.endorsements) }),
      }
  }
}

type CollateralDocument = z.infer<typeof collateralSchema>

function decodeCollateral(document: CollateralDocument | undefined): { readonly collateral?: DcapCollateral } {
  if (document === undefined) return {}
  const { tcbInfo, qeIdentity, ...lists } = document
  const bytes = Object.fromEntries(Object.entries(lists).map(([name, text]) => [name, parseBase64(text, `evidence.collateral.${name}`)]))
  return {
    collateral: {
      ...(tcbInfo === undefined ? {} : { tcbInfo: decodeDocument(tcbInfo, "tcbInfo") }),
      ...(qeIdentity === undefined ? {} : { qeIdentity: decodeDocument(qeIdentity, "qeIdentity") }),
      ...bytes,
    },
  }
}

function decodeDocument(text: { readonly document: string; readonly issuerChain: string }, name: string): SignedDocument {
  const path = `evidence.collateral.${name}`
  return { document: parseBase64(text.document, `${path}.document`), issuerChain: parseBase64(text.issuerChain, `${path}.issuerChain`) }
}

function encodeCollateral(collateral: DcapCollateral | undefined): { collateral?: CollateralDocument } {
  if (collateral === undefined) return {}
  const { tcbInfo, qeIdentity, rootCrl, pckCrl, pckChain } = collateral
  const document = ({ document, issuerChain }: SignedDocument): { document: string; issuerChain: string } => ({
    document: encodeBase64(document),
    issuerChain: encodeBase64(issuerChain),
  })
  return {
    collateral: {
      ...(tcbInfo === undefined ? {} : { tcbInfo: document(tcbInfo) }),
      ...(qeIdentity === undefined ? {} : { qeIdentity: document(qeIdentity) }),
      ...(rootCrl === undefined ? {} : { rootCrl: encodeBase64(rootCrl) }),
      ...(pckCrl === undefined ? {} : { pckCrl: encodeBase64(pckCrl) }),
      ...(pckChain === undefined ? {} : { pckChain: encodeBase64(pckChain) }),
    },
  }
}

/** @throws {MalformedError} */
export function decodeEndorsements({ signer, intermediates, revocationLists }: z.infer<typeof endorsementsSchema>): SnpEndorsements {
  const path = "evidence.endorsements"
  return {
    signer: parseCertificate(parseBase64(signer, `${path}.signer`)),
    intermediates: intermediates.map((text, at) => parseCertificate(parseBase64(text, `${path}.intermediates.${at}`))),
    revocationLists: revocationLists.map((text, at) => parseRevocationList(parseBase64(text, `${path}.revocationLists.${at}`))),
  }
}

export function encodeEndorsements({ signer, intermediates, revocationLists }: SnpEndorsements): z.infer<typeof endorsementsSchema> {
  return {
    signer: encodeBase64(signer.der),
    intermediates: intermediates.map(({ der }) => encodeBase64(der)),
    revocationLists: revocationLists.map(({ der }) => encodeBase64(der)),
  }
}
