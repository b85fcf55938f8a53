import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { encodeImaList, parseImaList, templateHashInput } from "./format.ts"
import type { ImaRecord } from "./format.ts"
import { replayImaList } from "./replay.ts"
import type { ExtendRule } from "./replay.ts"

/** An entry to be put into a laboratory list. */
export interface EntryInput {
  readonly pcr?: number
  readonly template: string
  readonly data: Uint8Array
  readonly violation?: boolean
  /** In place of the right template digest. */
  readonly templateDigest?: Uint8Array
}

/** A binary list as the kernel writes it. */
export function makeList(entries: readonly EntryInput[], headerHash: HashName = "sha1"): Uint8Array {
  const records = entries.map((entry, index): ImaRecord => {
    const record = { index, pcr: entry.pcr ?? 10, template: entry.template, templateData: entry.data, bytes: entry.data, end: 0 }
    const digest = hash(headerHash, templateHashInput({ ...record, templateDigest: new Uint8Array(0) }))
    return { ...record, templateDigest: entry.templateDigest ?? (entry.violation === true ? digest.fill(0) : digest) }
  })
  return encodeImaList(records)
}

/** Template data: each field behind its length. */
export function fields(...values: readonly Uint8Array[]): Uint8Array {
  const writer = new ByteWriter()
  for (const value of values) writer.u32le(value.length).bytes(value)
  return writer.take()
}

/** Field d-ng, or d-ngv2 with `ima:` or `verity:` in front. */
export function digestField(prefix: string, digest: Uint8Array): Uint8Array {
  return new ByteWriter()
    .bytes(encodeUtf8(`${prefix}:\0`))
    .bytes(digest)
    .take()
}

export function nameField(name: string): Uint8Array {
  return encodeUtf8(`${name}\0`)
}

/** An `ima-ng` entry of a file with this content. */
export function file(name: string, content: string = name, algorithm: HashName = "sha256"): EntryInput {
  return { template: "ima-ng", data: fields(digestField(algorithm, hash(algorithm, encodeUtf8(content))), nameField(name)) }
}

/** An `ima-sig` entry; the signature is over the file's digest. */
export function signedFile(name: string, digest: Uint8Array, signature: Uint8Array, algorithm: HashName = "sha256"): EntryInput {
  return { template: "ima-sig", data: fields(digestField(algorithm, digest), nameField(name), signature) }
}

export function violation(name: string): EntryInput {
  return { template: "ima-ng", data: fields(digestField("sha256", new Uint8Array(32)), nameField(name)), violation: true }
}

/** PCR 0 to 9 of a laboratory machine: the index in every byte. */
export function bootPcrs(bank: HashName = "sha256"): ReadonlyMap<string, ReadonlyMap<number, string>> {
  const bytes = hash(bank).length
  return new Map([[bank, new Map(Array.from({ length: 10 }, (_, pcr) => [pcr, encodeHex(new Uint8Array(bytes).fill(pcr))]))]])
}

/** The first entry of every list, over the registers of `bootPcrs` up to `last`. */
export function bootAggregate(bank: HashName = "sha256", last = bank === "sha1" ? 7 : 9): EntryInput {
  return { template: "ima-ng", data: fields(digestField(bank, aggregateOf(bank, last)), nameField("boot_aggregate")) }
}

export function aggregateOf(bank: HashName, last: number): Uint8Array {
  const bytes = hash(bank).length
  return hash(bank, ...Array.from({ length: last + 1 }, (_, pcr) => new Uint8Array(bytes).fill(pcr)))
}

/** What an honest TPM would hold after the first `count` entries of a list. */
export function quotedAfter(
  list: Uint8Array,
  count = Number.POSITIVE_INFINITY,
  bank: HashName = "sha256",
  extendRule: ExtendRule = "per-bank",
): ReadonlyMap<number, string> {
  const records = parseImaList(list).filter((record) => record.index < count)
  return replayImaList(encodeImaList(records), bank, { extendRule }).registers
}
