import * as z from "zod"
import { MalformedError, UnavailableError } from "../../bytes/error.ts"
import { readBodyBounded } from "../../bytes/http-body.ts"
import { parseJson } from "../../bytes/json.ts"
import { encodeBase64Url, parseBase64Url, parseHex } from "../../bytes/text.ts"
import { parsePemCertificates } from "../../pki/certificate.ts"
import type { Transport } from "../dcap/endorsements.ts"
import { fetchBytes } from "../snp/endorsements.ts"
import type { SnpEndorsements } from "../snp/endorsements.ts"

/** Azure's cache of AMD's certificates (THIM), as the instance metadata service gives it to a VM, and as confidential containers pass it on. */
const thimSchema = z.strictObject({
  /** VCEK, PEM. */
  vcekCert: z.string(),
  /** REPORTED_TCB that the VCEK is for: a 64-bit number in hexadecimal. */
  tcbm: z.string().regex(/^[0-9A-Fa-f]{16}$/),
  /** ASK and ARK, PEM. */
  certificateChain: z.string(),
  /** Seconds for which Azure lets a copy be kept; nothing here relies on it. */
  cacheControl: z.string().max(64).optional(),
})

/** Three certificates in PEM stay under 8 KiB. */
const maxBytes = 32_768

/**
 * Reads the JSON of THIM. Nothing in it is believed: the verification checks the certificates and holds the stated patch level against the report.
 * @throws {MalformedError} `malformed`, `duplicate`, `too-large`, `unknown-field`
 */
export function parseThimEndorsements(text: Uint8Array | string): SnpEndorsements {
  const parsed = thimSchema.safeParse(parseJson(text, { maxBytes }))
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    const code = issue?.code === "unrecognized_keys" ? "unknown-field" : "malformed"
    throw new MalformedError(code, issue?.message.toLowerCase() ?? "another form", {
      path: ["THIM", ...(issue?.path ?? [])].join("."),
      cause: parsed.error,
    })
  }
  const { vcekCert, tcbm, certificateChain } = parsed.data
  const [signer, ...more] = parsePemCertificates(vcekCert)
  if (signer === undefined || more.length > 0) throw new MalformedError("malformed", `expected one certificate`, { path: "THIM.vcekCert" })
  // The report holds the number little-endian.
  const statedTcb = parseHex(tcbm.toLowerCase(), "THIM.tcbm").toReversed()
  return { signer, intermediates: parsePemCertificates(certificateChain), revocationLists: [], statedTcb }
}

/** Address of THIM in the instance metadata service; a request needs the header `Metadata: true`. */
export const thimAddress = "http://169.254.169.254/metadata/THIM/amd/certification"

/** Where Azure's host makes a quote of a TD report: POST of `{"report": …}` gives `{"quote": …}`, both base64url. */
export const tdQuoteAddress = "http://169.254.169.254/acc/tdquote"

const tdQuoteSchema = z.object({ quote: z.string().max(65_536) })
/** A quote with its PCK chain has some 5 KiB. */
const maxTdQuoteAnswer = 131_072
const timeoutMilliseconds = 20_000

/**
 * Has Azure's host make a quote of a TD report. Nothing that it answers is believed: verifyAzureVtpm holds the quote against the report in every field.
 * @throws {UnavailableError} `unavailable`, `timeout`: nobody answers, or with something else
 */
export async function fetchTdQuote(tdReport: Uint8Array, address: string = tdQuoteAddress): Promise<Uint8Array> {
  try {
    const response = await fetch(address, {
      method: "POST",
      headers: { "content-type": "application/json", metadata: "true" },
      body: JSON.stringify({ report: encodeBase64Url(tdReport) }),
      redirect: "error",
      signal: AbortSignal.timeout(timeoutMilliseconds),
    })
    if (response.status !== 200) throw new UnavailableError("unavailable", `${address} answered with status ${response.status}`)
    const { quote } = tdQuoteSchema.parse(parseJson(await readBodyBounded(response, maxTdQuoteAnswer), { maxBytes: maxTdQuoteAnswer }))
    return parseBase64Url(quote.replace(/=+$/, ""), "quote")
  } catch (cause) {
    if (cause instanceof UnavailableError) throw cause
    if (cause instanceof Error && cause.name === "TimeoutError") throw new UnavailableError("timeout", `${address} does not answer`, { cause })
    if (cause instanceof MalformedError || cause instanceof z.ZodError)
      throw new UnavailableError("unavailable", `${address} answered with something that is no quote`, { cause })
    throw new UnavailableError("unavailable", `${address} cannot be asked`, { cause })
  }
}

/** Fetches the endorsements of the processor under this VM. @throws {UnavailableError}, and as parseThimEndorsements */
export async function fetchThimEndorsements(transport: Transport): Promise<SnpEndorsements> {
  return parseThimEndorsements(await fetchBytes(thimAddress, transport))
}
