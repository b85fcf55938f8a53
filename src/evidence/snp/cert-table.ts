import { MalformedError } from "../../bytes/error.ts"
import { ByteReader } from "../../bytes/reader.ts"
import { encodeHex, parseUtf8 } from "../../bytes/text.ts"
import { parseCertificate, parsePemCertificates } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { parseRevocationList } from "../../pki/crl.ts"
import { tags } from "../../pki/der.ts"
import type { SnpEndorsements, SigningKeyKind } from "./endorsements.ts"

/** What an entry holds, by GUID in the order of its text. AMD 56421 (GHCB specification 2.03), 4.1.8.1; the list after AMD's host tools. */
const entryKinds: ReadonlyMap<string, EntryKind> = new Map([
  ["63da758de6644564adc5f4b93be8accd", "vcek"],
  ["a8074bc2a25a483eaae639c045a0b8a1", "vlek"],
  ["4ab7b379bbac4fe4a02f05aef327c782", "issuer"],
  ["c0b406a4a803495297433fb6014cd0ae", "root"],
  ["92f81bc358114d3d97ffd19f88dc67ea", "list"],
])

type EntryKind = SigningKeyKind | "issuer" | "root" | "list"

/** The host hands out a few pages; more would only cost time. */
const maxTableBytes = 65_536
const maxEntries = 16
const noGuid = "00".repeat(16)

/** What a host passes to its guest beside a report: its word, believed by nobody. */
export interface SnpCertTable {
  /** Certificates of the keys that may have signed. */
  readonly signers: Readonly<Partial<Record<SigningKeyKind, Certificate>>>
  /** ASK or ASVK, and ARK. */
  readonly intermediates: readonly Certificate[]
  readonly revocationLists: SnpEndorsements["revocationLists"]
  /** GUIDs of entries that this program does not know, lower-case hexadecimal; clouds add their own. */
  readonly unknown: readonly string[]
}

/**
 * Reads the table of certificates that comes with an extended report (auxblob of configfs-tsm).
 * @throws {MalformedError} `truncated`, `too-large`, `duplicate`, `malformed`, and what certificates and lists throw
 */
export function parseSnpCertTable(table: Uint8Array): SnpCertTable {
  if (table.length > maxTableBytes) throw new MalformedError("too-large", `${table.length} bytes`, { path: "certTable" })
  const entries = readEntries(table)
  const known = entries.flatMap(({ guid, bytes }) => {
    const kind = entryKinds.get(guid)
    return kind === undefined ? [] : [{ kind, bytes }]
  })
  const certificates = (...kinds: readonly EntryKind[]): readonly Certificate[] =>
    known.filter(({ kind }) => kinds.includes(kind)).flatMap(({ bytes }) => readCertificates(bytes))
  const [vcek] = certificates("vcek")
  const [vlek] = certificates("vlek")
  return {
    signers: { ...(vcek === undefined ? {} : { vcek }), ...(vlek === undefined ? {} : { vlek }) },
    intermediates: certificates("issuer", "root"),
    revocationLists: known.filter(({ kind }) => kind === "list").map(({ bytes }) => parseRevocationList(bytes)),
    unknown: entries.filter(({ guid }) => !entryKinds.has(guid)).map(({ guid }) => guid),
  }
}

/** GUID, offset from the start of the table, and length, up to a GUID of zeros. */
function readEntries(table: Uint8Array): readonly { readonly guid: string; readonly bytes: Uint8Array }[] {
  const reader = new ByteReader("certTable", table)
  const entries: { readonly guid: string; readonly bytes: Uint8Array }[] = []
  for (;;) {
    const guid = encodeHex(reader.bytes(16, "guid"))
    const offset = reader.u32le("offset")
    const length = reader.u32le("length")
    if (guid === noGuid) return entries
    if (entries.length === maxEntries) throw reader.error("too-large", "entries", `more than ${maxEntries}`)
    if (entries.some((entry) => entry.guid === guid)) throw reader.error("duplicate", "guid", `${guid} stands twice`)
    const contents = new ByteReader("certTable", table)
    contents.bytes(offset, "offset")
    entries.push({ guid, bytes: contents.bytes(length, guid) })
  }
}

/** DER as AMD's tools store it, or PEM as some hosts do. */
function readCertificates(bytes: Uint8Array): readonly Certificate[] {
  return bytes[0] === tags.sequence ? [parseCertificate(bytes)] : parsePemCertificates(parseUtf8(bytes, "certTable"))
}
