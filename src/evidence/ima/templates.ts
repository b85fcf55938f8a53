import { MalformedError } from "../../bytes/error.ts"
import { ByteReader } from "../../bytes/reader.ts"
import { encodeHex } from "../../bytes/text.ts"

/**
 * Template fields of IMA list entries: Linux security/integrity/ima/ima_template.c and ima_template_lib.c, Documentation/security/IMA-templates.rst.
 * In template data each field stands behind its length (u32, little-endian), but for the old template "ima", which has a form of its own.
 */
export const templateFields = [
  "d",
  "n",
  "d-ng",
  "d-ngv2",
  "n-ng",
  "sig",
  "buf",
  "d-modsig",
  "modsig",
  "evmsig",
  "iuid",
  "igid",
  "imode",
  "xattrnames",
  "xattrlengths",
  "xattrvalues",
] as const

export type TemplateField = (typeof templateFields)[number]

/** Field values of one entry, as bytes; views into the list. Absent where the template lacks the field. */
export type TemplateValues = { readonly [field in TemplateField]?: Uint8Array }

/** A file digest as a template holds it. */
export interface TemplateDigest {
  /** e.g. `sha256`. */
  readonly algorithm: string
  /** `verity`: digest of the fs-verity descriptor, not of the file's bytes. */
  readonly kind: "file" | "verity"
  readonly digest: Uint8Array
}

/** The templates that have names. */
const namedTemplates: ReadonlyMap<string, readonly TemplateField[]> = new Map<string, readonly TemplateField[]>([
  ["ima", ["d", "n"]],
  ["ima-ng", ["d-ng", "n-ng"]],
  ["ima-sig", ["d-ng", "n-ng", "sig"]],
  ["ima-ngv2", ["d-ngv2", "n-ng"]],
  ["ima-sigv2", ["d-ngv2", "n-ng", "sig"]],
  ["ima-buf", ["d-ng", "n-ng", "buf"]],
  ["ima-modsig", ["d-ng", "n-ng", "sig", "d-modsig", "modsig"]],
  ["evm-sig", ["d-ng", "n-ng", "evmsig", "xattrnames", "xattrlengths", "xattrvalues", "iuid", "igid", "imode"]],
])

const digestFields: ReadonlySet<TemplateField | undefined> = new Set<TemplateField | undefined>(["d", "d-ng", "d-ngv2"])

/** What may follow digest and name in a custom template. */
const customFields: ReadonlySet<TemplateField> = new Set<TemplateField>(["sig", "modsig", "evmsig"])

const customTemplates = new Map<string, readonly TemplateField[]>()

/**
 * Fields of a template by its name; a custom template (`ima_template_fmt=`) is named by its fields, joined with `|`.
 * @throws {MalformedError} `malformed` for unknown templates and fields, `duplicate`
 */
export function fieldsOfTemplate(template: string): readonly TemplateField[] {
  return namedTemplates.get(template) ?? customTemplates.get(template) ?? parseCustomTemplate(template)
}

function parseCustomTemplate(template: string): readonly TemplateField[] {
  const fields = template.split("|").map((name) => {
    const field = templateFields.find((candidate) => candidate === name)
    if (field === undefined) throw new MalformedError("malformed", `unknown template "${printableTemplate(template)}"`, { path: "template" })
    return field
  })
  // The template's name is covered by no hash. Fields in a free order would let root relabel data that it chose itself, a buffer or an extended attribute,
  // as a file's digest; so digest and name stand where every named template has them, and a buffer or list of attributes stands in its own template only.
  const [digestField, nameField, ...others] = fields
  const isOrdered = digestFields.has(digestField) && (nameField === "n" || nameField === "n-ng")
  if (!isOrdered || others.some((field) => !customFields.has(field)))
    throw new MalformedError("malformed", `custom template "${printableTemplate(template)}" is not a digest, a name and signatures`, {
      path: "template",
    })
  if (new Set(fields).size !== fields.length) throw new MalformedError("duplicate", "a template field stands twice", { path: "template" })
  // The cache is bounded, for the list that names templates is foreign input.
  // Less than a hundred forms are valid, so the cache stays small.
  customTemplates.set(template, fields)
  return fields
}

function printableTemplate(template: string): string {
  return template.replace(/[^\x20-\x7e]/g, "?")
}

/**
 * Reads template data field by field.
 * @throws {MalformedError} `truncated`, `trailing-bytes`
 */
export function parseTemplateData(template: string, data: Uint8Array): TemplateValues {
  const reader = new ByteReader("templateData", data)
  const values: { [field in TemplateField]?: Uint8Array } = {}
  if (template === "ima") {
    values.d = reader.view(sha1Bytes, "d")
    values.n = reader.view(reader.u32le("n"), "n")
  } else {
    for (const field of fieldsOfTemplate(template)) values[field] = reader.view(reader.u32le(field), field)
  }
  reader.finish()
  return values
}

/**
 * The file digest of an entry. Field `d`: 20 bytes of SHA-1 (or 16 of MD5). `d-ng`: `<algorithm>:`, NUL, digest. `d-ngv2`: `<ima|verity>:<algorithm>:`,
 * NUL, digest.
 * @throws {MalformedError} `malformed` for another form, an unknown algorithm or a digest of the wrong size
 */
export function readTemplateDigest(field: "d" | "d-ng" | "d-ngv2" | "d-modsig", value: Uint8Array): TemplateDigest {
  if (field === "d") {
    if (value.length !== sha1Bytes) throw new MalformedError("malformed", `digest of ${value.length} bytes`, { path: field })
    return { algorithm: "sha1", kind: "file", digest: value }
  }
  const reader = new ByteReader(field, value)
  let prefix = ""
  for (let byte = reader.u8("prefix"); byte !== 0; byte = reader.u8("prefix")) {
    if (prefix.length >= maxPrefixBytes) throw reader.error("too-large", "prefix", `longer than ${maxPrefixBytes} bytes`)
    prefix += String.fromCharCode(byte)
  }
  const kind = (field === "d-ngv2" ? typedPrefixes : plainPrefixes).get(prefix)
  if (kind === undefined) throw new MalformedError("malformed", "unknown digest type or hash algorithm", { path: field })
  const digest = reader.view(reader.remaining, "digest")
  if (digest.length !== kind.digestBytes)
    throw new MalformedError("malformed", `${kind.algorithm} digest of ${digest.length} bytes, expected ${kind.digestBytes}`, { path: field })
  return { algorithm: kind.algorithm, kind: kind.kind, digest }
}

/** `<algorithm>:<hexadecimal>`, as the kernel prints it. */
export function templateDigestText(digest: TemplateDigest): string {
  return `${digest.algorithm}:${encodeHex(digest.digest)}`
}

const sha1Bytes = 20
/** `verity:streebog512:` is the longest. */
const maxPrefixBytes = 32

/** Digest sizes in bytes by the kernel's names, crypto/hash_info.c. */
const digestSizes: ReadonlyMap<string, number> = new Map([
  ["md4", 16],
  ["md5", 16],
  ["sha1", 20],
  ["rmd160", 20],
  ["sha224", 28],
  ["sha256", 32],
  ["sha384", 48],
  ["sha512", 64],
  ["rmd128", 16],
  ["rmd256", 32],
  ["rmd320", 40],
  ["wp256", 32],
  ["wp384", 48],
  ["wp512", 64],
  ["tgr128", 16],
  ["tgr160", 20],
  ["tgr192", 24],
  ["sm3", 32],
  ["streebog256", 32],
  ["streebog512", 64],
  ["sha3-256", 32],
  ["sha3-384", 48],
  ["sha3-512", 64],
])

interface DigestPrefix {
  readonly algorithm: string
  readonly kind: TemplateDigest["kind"]
  readonly digestBytes: number
}

const plainPrefixes: ReadonlyMap<string, DigestPrefix> = prefixTable((algorithm) => [[`${algorithm}:`, "file"]])
const typedPrefixes: ReadonlyMap<string, DigestPrefix> = prefixTable((algorithm) => [
  [`ima:${algorithm}:`, "file"],
  [`verity:${algorithm}:`, "verity"],
])

function prefixTable(rows: (algorithm: string) => readonly (readonly [string, TemplateDigest["kind"]])[]): Map<string, DigestPrefix> {
  const table = new Map<string, DigestPrefix>()
  for (const [algorithm, digestBytes] of digestSizes)
    for (const [prefix, kind] of rows(algorithm)) table.set(prefix, { algorithm, kind, digestBytes })
  return table
}
