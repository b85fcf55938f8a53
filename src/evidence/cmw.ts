import * as z from "zod"
import { MalformedError } from "../bytes/error.ts"
import { canonicalJson, parseJson } from "../bytes/json.ts"
import { encodeBase64Url, encodeUtf8, parseBase64Url, parseUtf8 } from "../bytes/text.ts"
import { derElement, readDer, tags } from "../pki/der.ts"

/**
 * RATS Conceptual Message Wrapper, RFC 9999: the JSON form of a collection of records, and the certificate extension that carries it. Narrower than the RFC: no CBOR, no
 * collection inside a collection, every record says which conceptual message it is.
 */
export interface CmwRecord {
  /** Content-Type of `value`. */
  readonly type: string
  readonly value: Uint8Array
  /** `ind`, a bit mask: see `cmwIndicators`. */
  readonly indicator: number
}

export interface CmwCollection {
  /** `__cmwc_t`: what kind of collection this is, an absolute URI. */
  readonly type: string
  /** By label. */
  readonly records: Readonly<Record<string, CmwRecord>>
}

/** id-pe-cmw, RFC 9999 section 6.3. */
export const idPeCmw = "1.3.6.1.5.5.7.1.35"

/** Bits of `ind` (registry "RATS Conceptual Message Wrapper (CMW) Indicators"); only the one that we use. */
export const cmwIndicators = { evidence: 4 } as const

/** Five bits are registered. */
const maxIndicator = 31
const typeLabel = "__cmwc_t"
const maxRecords = 8
const maxTypeLength = 200

const recordSchema = z.tuple([z.string().min(1).max(maxTypeLength), z.string(), z.int().min(1).max(maxIndicator)])
const collectionSchema = z
  .looseObject({ [typeLabel]: z.string().min(1).max(maxTypeLength) })
  .refine((collection) => Object.keys(collection).length <= maxRecords + 1, "too many records")

/**
 * Reads the value of the extension: the CHOICE `json` of CMW with a collection in it.
 * @throws {MalformedError} `malformed`, `duplicate`, `too-large`, `truncated`, `trailing-bytes`
 */
export function parseCmwExtension(value: Uint8Array): CmwCollection {
  const json = readDer("CMW", value, (reader) => reader.element(tags.utf8String, "json").body)
  return parseCmwCollection(parseUtf8(json, "CMW.json"))
}

export function encodeCmwExtension(collection: CmwCollection): Uint8Array {
  return derElement(tags.utf8String, encodeUtf8(encodeCmwCollection(collection)))
}

function parseCmwCollection(text: string): CmwCollection {
  const parsed = collectionSchema.safeParse(parseJson(text, { maxBytes: text.length * 4 }))
  if (!parsed.success) throw new MalformedError("malformed", "not a collection of records with a type", { path: "CMW", cause: parsed.error })
  const { [typeLabel]: type, ...members } = parsed.data
  const records = Object.entries(members).map(([label, member]) => [label, parseRecord(member, `CMW.${label}`)] as const)
  return { type, records: Object.fromEntries(records) }
}

function parseRecord(member: unknown, path: string): CmwRecord {
  const parsed = recordSchema.safeParse(member)
  if (!parsed.success) throw new MalformedError("malformed", "not a record of type, value and indicator", { path, cause: parsed.error })
  const [type, value, indicator] = parsed.data
  return { type, value: parseBase64Url(value, path), indicator }
}

function encodeCmwCollection({ type, records }: CmwCollection): string {
  const members = Object.entries(records).map(([label, record]) => [label, [record.type, encodeBase64Url(record.value), record.indicator]] as const)
  return canonicalJson({ [typeLabel]: type, ...Object.fromEntries(members) })
}
