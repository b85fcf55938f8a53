import { z } from "zod"
import { MalformedError } from "../bytes/error.ts"
import { parseJson, type JsonValue } from "../bytes/json.ts"

/** Primitive forms that messages are made of. Every string, list and number has a named bound, checked before anything is done with it. */

/** Largest JSON message in bytes where a route names no other. */
export const maxMessageBytes = 1_048_576
/** Policies come with their reference values; IMA references of a whole distribution hold tens of thousands of files of about 200 bytes. */
export const maxPolicySubmissionBytes = 33_554_432
/** An IMA list of a long-running machine holds some 100,000 entries of about 150 bytes, in base64. */
export const maxBundleBytes = 33_554_432
/** Largest blob: a shard of 256 MB with its age overhead, and room for larger shards. */
export const maxBlobBytes = 4_294_967_296

/** `sha256:` and 64 lower-case hexadecimal digits. */
export const digestSchema = z.templateLiteral(["sha256:", z.string().regex(/^[0-9a-f]{64}$/)])
/** Names that people choose: stakeholders, artifacts, jobs, hosts, outputs. */
export const nameSchema = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/)
/** Identifiers that the manager draws: 16 random bytes in lower-case hexadecimal. */
export const idSchema = z.string().regex(/^[0-9a-f]{32}$/)
/** RFC 3339 in UTC with milliseconds at most, e.g. `2026-11-22T21:50:40.123Z`. */
export const timeSchema = z.iso.datetime({ offset: false })
/** A 32-byte value in lower-case hexadecimal. */
export const nonceSchema = z.string().regex(/^[0-9a-f]{64}$/)
/** Public key text `type base64`, without comment. */
export const keyTextSchema = z.string().min(16).max(2000)

/** Canonical padded base64 of at most `maxBytes` bytes; decode with `parseBase64`, which refuses every other form. */
export function base64Schema(maxBytes: number): z.ZodString {
  return z
    .string()
    .max(Math.ceil(maxBytes / 3) * 4)
    .regex(/^[A-Za-z0-9+/]*={0,2}$/)
}

/** A JSON object whose own room parses it: policy, reference values, signed manifest. That its values are JSON is the strict parser's word. */
export const documentSchema = z.record(
  z.string().max(256),
  z.custom<JsonValue>(() => true),
)

/** RFC 9180 single-shot message: encapsulated key and ciphertext with tag. */
export const sealedMessageSchema = z.strictObject({
  enc: base64Schema(4096),
  ciphertext: base64Schema(65_536),
})

/**
 * Parses a JSON text against a schema: strict JSON first (duplicate keys, size, depth), then the shape.
 * @throws {MalformedError} `malformed`, `unknown-field`, `duplicate`, `too-large`; `path` names the field
 */
export function parseMessage<S extends z.ZodType>(schema: S, input: Uint8Array | string, maxBytes: number = maxMessageBytes): z.output<S> {
  return parseShape(schema, parseJson(input, { maxBytes }))
}

/** The shape part of `parseMessage`, for values that are parsed JSON already. */
export function parseShape<S extends z.ZodType>(schema: S, value: unknown, what = ""): z.output<S> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  if (issue === undefined) throw new TypeError("internal: schema refused without a reason")
  const path = [what, ...issue.path.map(String)].filter((part) => part !== "").join(".")
  if (issue.code === "unrecognized_keys") throw new MalformedError("unknown-field", `unknown field ${issue.keys.join(", ")}`, { path })
  throw new MalformedError(issue.code === "too_big" ? "too-large" : "malformed", lowerFirst(issue.message), { path })
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.substring(1)
}
