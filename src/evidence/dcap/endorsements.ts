import * as z from "zod"
import { MalformedError, UnavailableError } from "../../bytes/error.ts"
import { canonicalJson, parseJson } from "../../bytes/json.ts"
import { encodeBase64, encodeUtf8, parseBase64 } from "../../bytes/text.ts"
import type { PckAuthority } from "./certificates.ts"
import type { TeeType } from "./format.ts"
import { maxDocumentBytes } from "./signed-json.ts"

/** Intel's endorsements of a platform, as received; nothing in it is verified. It travels with the evidence or comes from a cache. */
export interface DcapCollateral {
  readonly tcbInfo?: SignedDocument
  readonly qeIdentity?: SignedDocument
  /** Revocation list of the Intel SGX Root CA, DER. */
  readonly rootCrl?: Uint8Array
  /** Revocation list of the processor or platform CA, DER. */
  readonly pckCrl?: Uint8Array
  /** PCK certificate chain, PEM: only for quotes that name their PCK without carrying its certificate. */
  readonly pckChain?: Uint8Array
}

export interface SignedDocument {
  /** JSON with its signature, the bytes as PCS sent them. */
  readonly document: Uint8Array
  /** PEM: TCB signing certificate and root. */
  readonly issuerChain: Uint8Array
}

/** The largest list known, of the platform CA, has under 100 KiB. */
const maxCrlBytes = 4_194_304
const maxChainBytes = 16_384
/** All parts in base64, with room for names. */
const maxBundleBytes = Math.ceil(((2 * maxCrlBytes + 2 * maxDocumentBytes + 3 * maxChainBytes) * 4) / 3) + 4096

const base64Text = (maxBytes: number): z.ZodString => z.string().max(Math.ceil(maxBytes / 3) * 4)
const signedDocument = z.strictObject({ document: base64Text(maxDocumentBytes), issuerChain: base64Text(maxChainBytes) })

/** The bundle as JSON; every byte string is canonical padded base64. */
const bundleSchema = z.strictObject({
  perun: z.literal(1),
  kind: z.literal("dcap-collateral"),
  tcbInfo: signedDocument.optional(),
  qeIdentity: signedDocument.optional(),
  rootCrl: base64Text(maxCrlBytes).optional(),
  pckCrl: base64Text(maxCrlBytes).optional(),
  pckChain: base64Text(maxChainBytes).optional(),
})

/** @throws {MalformedError} `malformed`, `duplicate`, `unknown-field`, `too-large` */
export function parseDcapCollateral(text: Uint8Array | string): DcapCollateral {
  const parsed = bundleSchema.safeParse(parseJson(text, { maxBytes: maxBundleBytes }))
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    const code = issue?.code === "unrecognized_keys" ? "unknown-field" : issue?.code === "too_big" ? "too-large" : "malformed"
    throw new MalformedError(code, issue?.message.toLowerCase() ?? "not a bundle", {
      path: ["collateral", ...(issue?.path ?? [])].join("."),
      cause: parsed.error,
    })
  }
  const { tcbInfo, qeIdentity, rootCrl, pckCrl, pckChain } = parsed.data
  return {
    ...(tcbInfo === undefined ? {} : { tcbInfo: decodeDocument(tcbInfo, "collateral.tcbInfo") }),
    ...(qeIdentity === undefined ? {} : { qeIdentity: decodeDocument(qeIdentity, "collateral.qeIdentity") }),
    ...(rootCrl === undefined ? {} : { rootCrl: parseBase64(rootCrl, "collateral.rootCrl") }),
    ...(pckCrl === undefined ? {} : { pckCrl: parseBase64(pckCrl, "collateral.pckCrl") }),
    ...(pckChain === undefined ? {} : { pckChain: parseBase64(pckChain, "collateral.pckChain") }),
  }
}

export function encodeDcapCollateral({ tcbInfo, qeIdentity, rootCrl, pckCrl, pckChain }: DcapCollateral): string {
  return canonicalJson({
    perun: 1,
    kind: "dcap-collateral",
    ...(tcbInfo === undefined ? {} : { tcbInfo: encodeDocument(tcbInfo) }),
    ...(qeIdentity === undefined ? {} : { qeIdentity: encodeDocument(qeIdentity) }),
    ...(rootCrl === undefined ? {} : { rootCrl: encodeBase64(rootCrl) }),
    ...(pckCrl === undefined ? {} : { pckCrl: encodeBase64(pckCrl) }),
    ...(pckChain === undefined ? {} : { pckChain: encodeBase64(pckChain) }),
  })
}

function decodeDocument(text: { readonly document: string; readonly issuerChain: string }, path: string): SignedDocument {
  return { document: parseBase64(text.document, `${path}.document`), issuerChain: parseBase64(text.issuerChain, `${path}.issuerChain`) }
}

function encodeDocument({ document, issuerChain }: SignedDocument): { readonly document: string; readonly issuerChain: string } {
  return { document: encodeBase64(document), issuerChain: encodeBase64(issuerChain) }
}

/** An HTTP answer; names of `headers` are asked for in lower case. */
export interface TransportResponse {
  readonly status: number
  readonly header: (name: string) => string | null
  readonly body: Uint8Array
}

/** GET over the network, given by the caller: this room opens no connection by itself. */
export type Transport = (url: string) => Promise<TransportResponse>

/** Intel's provisioning certification service, API v4. */
const pcsUrl = "https://api.trustedservices.intel.com"
const rootCrlUrl = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

const issuerChainHeaders = { tcbInfo: "tcb-info-issuer-chain", qeIdentity: "sgx-enclave-identity-issuer-chain" } as const

export interface CollateralQuery {
  readonly tee: TeeType
  /** 6 bytes, lower-case hexadecimal, of the PCK certificate. */
  readonly fmspc: string
  readonly authority: PckAuthority
}

/**
 * Fetches everything that a quote of such a platform needs. Nothing is verified here.
 * @throws {UnavailableError} for any other answer than 200, or one without its issuer chain or too large
 */
export async function fetchDcapCollateral(query: CollateralQuery, transport: Transport): Promise<DcapCollateral> {
  if (!/^[0-9a-f]{12}$/.test(query.fmspc)) throw new TypeError("an FMSPC has 12 lower-case hexadecimal digits")
  const base = `${pcsUrl}/${query.tee}/certification/v4`
  const [tcbInfo, qeIdentity, pckCrl, rootCrl] = await Promise.all([
    fetchDocument(`${base}/tcb?fmspc=${query.fmspc}`, issuerChainHeaders.tcbInfo, transport),
    fetchDocument(`${base}/qe/identity`, issuerChainHeaders.qeIdentity, transport),
    fetchBytes(`${pcsUrl}/sgx/certification/v4/pckcrl?ca=${query.authority}&encoding=der`, maxCrlBytes, transport),
    fetchBytes(rootCrlUrl, maxCrlBytes, transport),
  ])
  return { tcbInfo, qeIdentity, pckCrl: pckCrl.body, rootCrl: rootCrl.body }
}

async function fetchDocument(url: string, header: string, transport: Transport): Promise<SignedDocument> {
  const response = await fetchBytes(url, maxDocumentBytes, transport)
  const chain = response.header(header)
  if (chain === null) throw new UnavailableError("unavailable", `${url} answered without ${header}`)
  return { document: response.body, issuerChain: decodeIssuerChain(chain, url) }
}

async function fetchBytes(url: string, maxBytes: number, transport: Transport): Promise<TransportResponse> {
  const response = await transport(url)
  if (response.status !== 200) throw new UnavailableError("unavailable", `${url} answered with status ${response.status}`)
  if (response.body.length > maxBytes) throw new UnavailableError("unavailable", `${url} answered with ${response.body.length} bytes`)
  return response
}

/** A header holds its PEM text percent-encoded. */
function decodeIssuerChain(header: string, url: string): Uint8Array {
  try {
    return encodeUtf8(decodeURIComponent(header))
  } catch (cause) {
    throw new UnavailableError("unavailable", `${url} answered with an issuer chain that is not percent-encoded`, { cause })
  }
}
