import * as z from "zod"
import { bytesEqual } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { parseJson } from "../../bytes/json.ts"
import { encodeUtf8, parseHex, parseUtf8 } from "../../bytes/text.ts"
import { hash, hashSizes } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"

/**
 * One measurement of systemd after the boot, from /run/log/systemd/tpm2-measure.log (JSON text sequences, RFC 7464; TCG Canonical Event Log 1.0, JSON
 * form, content type `systemd`).
 */
export interface UserspaceEvent {
  readonly pcr: number
  /** By bank name. */
  readonly digests: ReadonlyMap<string, Uint8Array>
  /** e.g. `phase`, `machine-id`; covered by no hash. */
  readonly eventType: string
  /** What was measured as text, e.g. `enter-initrd`; certified only where it hashes to the digest (see `certifiedText`). */
  readonly text: string
}

/**
 * Parses the whole log. Members that are not read are allowed: newer systemd adds some.
 * @throws {MalformedError} `malformed`, `truncated`, `too-large`, `duplicate`
 */
export function parseUserspaceLog(bytes: Uint8Array): readonly UserspaceEvent[] {
  if (bytes.length > maxLogBytes)
    throw new MalformedError("too-large", `${bytes.length} bytes, at most ${maxLogBytes} are allowed`, { path: "userspaceLog" })
  const text = parseUtf8(bytes, "userspaceLog")
  const [before, ...records] = text.split(recordSeparator)
  if (before !== "") throw new MalformedError("malformed", "a record does not begin with a record separator", { path: "userspaceLog" })
  return records.map((record, index) => parseRecord(record, `userspaceLog[${index}]`))
}

function parseRecord(text: string, path: string): UserspaceEvent {
  // RFC 7464 §2.4: a text that a newline does not end may be cut off.
  if (!text.endsWith("\n")) throw new MalformedError("truncated", "the record has no end", { path })
  const result = recordSchema.safeParse(parseJson(text, { maxBytes: maxLogBytes }))
  if (!result.success) throw new MalformedError("malformed", result.error.issues[0]?.message ?? "unknown form", { path })
  const { pcr, digests, content } = result.data
  const byBank = new Map<string, Uint8Array>()
  for (const { hashAlg, digest } of digests) {
    if (byBank.has(hashAlg)) throw new MalformedError("duplicate", `second ${hashAlg} digest`, { path })
    const value = parseHex(digest, path)
    if (isHashName(hashAlg) && value.length !== hashSizes[hashAlg])
      throw new MalformedError("malformed", `${hashAlg} digest of ${value.length} bytes`, { path })
    byBank.set(hashAlg, value)
  }
  return { pcr, digests: byBank, eventType: content.eventType ?? "", text: content.string ?? "" }
}

/** The event's text where its digest is over exactly this text; "" otherwise. */
export function certifiedText(event: UserspaceEvent, bank: HashName): string {
  const digest = event.digests.get(bank)
  return digest !== undefined && bytesEqual(hash(bank, encodeUtf8(event.text)), digest) ? event.text : ""
}

function isHashName(name: string): name is HashName {
  return Object.hasOwn(hashSizes, name)
}

const recordSchema = z.object({
  pcr: z.int().min(0).max(23),
  digests: z
    .array(z.object({ hashAlg: z.string().max(32), digest: z.string().max(128) }))
    .min(1)
    .max(16),
  content_type: z.literal("systemd"),
  content: z.object({ eventType: z.string().max(256).optional(), string: z.string().max(65_536).optional() }),
})

const recordSeparator = "\u001e"
/** Some dozen records of a few hundred bytes are usual. */
const maxLogBytes = 4 * 1024 * 1024
