import { createPublicKey } from "node:crypto"
import { PerunError } from "../../../bytes/error.ts"
import type { JsonValue } from "../../../bytes/json.ts"
import { encodeHex, encodeUtf8, parseUtf8 } from "../../../bytes/text.ts"
import type { HashName } from "../../../pki/signatures.ts"
import { parseEventLog } from "../../eventlog/format.ts"
import { binaryFromAscii } from "../../ima/ascii.ts"
import type { ImaClaims, ImaEntry } from "../../ima/claims.ts"
import { parseImaList, readImaEntry } from "../../ima/format.ts"
import { replayImaList } from "../../ima/replay.ts"
import { judgeFileSignature } from "../../ima/signature.ts"
import type { FileSignatureOptions } from "../../ima/signature.ts"
import { verifyIma } from "../../ima/verify.ts"
import { isObject } from "../vector.ts"
import type { VectorCase } from "../vector.ts"
import { isBank, registersOf, tpmValues } from "./eventlog.ts"

/** `replay`: the list leads to the stated register values; entries, violations and what else is stated agree. */
export function judgeReplay(vector: VectorCase): void {
  const list = listBytes(vector)
  const entries = readEntries(list)
  judgeListFacts(vector, list, entries)
  for (const bank of ["sha1", "sha256", "sha384", "sha512"] as const) vector.facts.check(bank, () => replayed(list, bank))
  vector.facts.check("sha256FullTemplate", () => (entries.some((entry) => entry.template === "ima") ? null : replayed(list, "sha256")))
  const first = entries[0]
  if (first !== undefined && parseUtf8(first.name) === "boot_aggregate" && /^0*$/.test(first.digest))
    vector.note("boot_aggregate is zero: the machine booted without a TPM")
}

/** `accept`: a TPM held the stated values; the list explains them, and boot_aggregate fits the boot log. One changed bit is refused. */
export function judgeAccept(vector: VectorCase): void {
  const list = listBytes(vector)
  const entries = readEntries(list)
  judgeListFacts(vector, list, entries)
  judgeAscii(vector, list)
  vector.facts.check("fullReplaySha1", () => replayed(list, "sha1")["10"] ?? null)
  vector.facts.check("fullReplaySha256", () => replayed(list, "sha256")["10"] ?? null)
  vector.facts.check("bootAggregate", () => `${entries[0]?.hashAlgorithm ?? ""}:${entries[0]?.digest ?? ""}`)
  const bootPcrs = bootRegisters(vector)
  const statedByCount = vector.facts.object("pcr10Sha1AfterEntries")
  for (const count of statedByCount?.keys ?? []) {
    const value = statedByCount?.text(count) ?? ""
    const claims = verified(list, "sha1", value, bootPcrs)
    vector.equal("certified entries", claims.certifiedCount, Number(count))
    vector.equal("entries behind them", claims.uncertified.length, entries.length - Number(count))
    judgeChangedBits(vector, list, "sha1", value, bootPcrs)
  }
  const stated = vector.facts.object("pcr10")
  for (const bank of stated?.keys ?? []) {
    if (!isBank(bank)) return vector.problem(`unknown bank ${bank}`)
    const value = stated?.text(bank) ?? ""
    const claims = verified(list, bank, value, bootPcrs)
    vector.equal("certified entries", claims.certifiedCount, entries.length)
    const { bootAggregate } = claims
    vector.equal("boot_aggregate", bootAggregate ?? null, `${entries[0]?.hashAlgorithm ?? ""}:${entries[0]?.digest ?? ""}`)
    judgeChangedBits(vector, list, bank, value, bootPcrs)
  }
}

/** `reject`: form, template digests or the stated register value do not fit. */
export function judgeReject(vector: VectorCase): void {
  const bytes = vector.file("ima.bin")
  const stated = vector.facts.object("pcr10")
  vector.refused("the list", () => {
    for (const bank of stated?.keys ?? []) if (isBank(bank)) verified(bytes, bank, stated?.text(bank) ?? "", bootRegisters(vector))
    readEntries(bytes)
    replayImaList(bytes, "sha256")
  })
}

/**
 * keylime-ima-sig-signatures, after its README: the two signed entries verify with the two keys; the digests of measurements.ascii and the key of
 * keyring-ima-buf.ascii stand in runtime-policy.json; without keys and without digests the signed entries are refused; a malformed signature is refused
 * whatever else holds; a right signature suffices where runtime-policy-wrong.json states another digest.
 */
export function judgeKeylimeSignatures(vector: VectorCase): void {
  const keys = ["rsa2048.pub.pem", "ec.pub.pem"].map((name) => createPublicKey(vector.text(name)))
  const options = { keys, insecureAllowSecp256k1: true }
  const policy = keylimePolicy(vector.json("runtime-policy.json"))
  const wrong = keylimePolicy(vector.json("runtime-policy-wrong.json"))
  const none: KeylimePolicy = { digests: {}, keyrings: {} }
  const signed = asciiEntries(vector, "signatures.ascii")
  const certificateEntries = asciiEntries(vector, "keyring-ima-buf.ascii")
  const plain = asciiEntries(vector, "measurements.ascii")
  const malformed = asciiEntries(vector, "bad-signature.ascii")
  const unjustified = (entries: readonly ImaEntry[], rule: KeylimePolicy, trust: FileSignatureOptions): JsonValue =>
    entries.filter((entry) => !isJustified(entry, rule, trust)).map((entry) => parseUtf8(entry.name))
  vector.equal("signed entries under the keys", unjustified(signed.filter(isSigned), none, options), [])
  vector.equal("signed entries, wrong digests", unjustified(signed.filter(isSigned), wrong, options), [])
  vector.equal(
    "signed entries, each key's",
    signed.filter(isSigned).map((entry) => signerOf(entry, options)),
    ["rsa", "ec"],
  )
  vector.equal("signed entries without keys and policy", unjustified(signed.filter(isSigned), none, { keys: [] }), ["/usr/bin/dd", "/usr/bin/zmore"])
  vector.equal("plain entries under the policy", unjustified(plain, policy, { keys: [] }), [])
  vector.equal("key ring under the policy", unjustified(certificateEntries, policy, { keys: [] }), [])
  vector.equal(
    "malformed signature",
    malformed.map((entry) => reasonOf(entry, options)),
    malformed.map(() => "malformed"),
  )
  vector.equal(
    "malformed signature, though its digest is allowed",
    unjustified(malformed, policy, options),
    malformed.map((entry) => parseUtf8(entry.name)),
  )
  vector.note("keys: RSA 2048 and secp256k1, the latter only because it is named")
}

interface KeylimePolicy {
  readonly digests: { readonly [path: string]: JsonValue }
  readonly keyrings: { readonly [name: string]: JsonValue }
}

function keylimePolicy(document: JsonValue): KeylimePolicy {
  const digests = isObject(document) ? document["digests"] : undefined
  const keyrings = isObject(document) ? document["keyrings"] : undefined
  return { digests: isObject(digests) ? digests : {}, keyrings: isObject(keyrings) ? keyrings : {} }
}

function isJustified(entry: ImaEntry, policy: KeylimePolicy, options: FileSignatureOptions): boolean {
  const name = parseUtf8(entry.name)
  if (isSigned(entry)) {
    const verdict = judgeFileSignature(entry, options)
    if (verdict.signed) return true
    if (verdict.reason === "malformed") return false
  }
  const listed = entry.buffer === undefined ? policy.digests[name] : policy.keyrings[name]
  return Array.isArray(listed) && listed.includes(entry.digest)
}

function isSigned(entry: ImaEntry): boolean {
  return entry.signature !== undefined
}

function signerOf(entry: ImaEntry, options: FileSignatureOptions): string {
  const verdict = judgeFileSignature(entry, options)
  return verdict.signed ? (verdict.by.asymmetricKeyType ?? "") : verdict.reason
}

function reasonOf(entry: ImaEntry, options: FileSignatureOptions): string {
  const verdict = judgeFileSignature(entry, options)
  return verdict.signed ? "signed" : verdict.reason
}

function asciiEntries(vector: VectorCase, name: string): readonly ImaEntry[] {
  return readEntries(binaryFromAscii(vector.text(name)))
}

/** The binary list; from the text where the case has only that. A newline behind the last entry comes from how the source kept the file. */
function listBytes(vector: VectorCase): Uint8Array {
  const binary = vector.firstOf("ima.bin")
  if (binary === undefined) return binaryFromAscii(vector.text("ima.ascii"))
  try {
    parseImaList(binary)
    return binary
  } catch (error) {
    const cut = new Uint8Array(binary.buffer, binary.byteOffset, Math.max(binary.length - 1, 0))
    if (!(error instanceof PerunError) || binary.at(-1) !== 0x0a) throw error
    parseImaList(cut)
    vector.note("a newline behind the last entry was dropped")
    return cut
  }
}

export function readEntries(list: Uint8Array): readonly ImaEntry[] {
  return parseImaList(list).map((record) => readImaEntry(record))
}

function judgeListFacts(vector: VectorCase, list: Uint8Array, entries: readonly ImaEntry[]): void {
  vector.facts.check("entries", () => entries.length)
  vector.facts.check("violations", () => entries.filter((entry) => entry.violation).length)
  vector.facts.check("authorizedKeys", () => {
    const keys = entries.filter((entry) => parseUtf8(entry.name).endsWith("/.ssh/authorized_keys"))
    return [...new Set(keys.map((entry) => encodeHex(encodeUtf8(`${entry.hashAlgorithm}:\0`)) + entry.digest))]
  })
  if (list.length === 0) vector.problem("the list is empty")
}

/** The text form of the same list: it may have been read a little later, but its beginning is the same. */
function judgeAscii(vector: VectorCase, list: Uint8Array): void {
  if (vector.optional("ima.ascii") === undefined) return
  const ascii = parseImaList(binaryFromAscii(vector.text("ima.ascii")))
  vector.facts.check("asciiEntries", () => ascii.length)
  for (const [place, record] of parseImaList(list).entries()) {
    const other = ascii[place]
    if (other === undefined || encodeHex(other.bytes) !== encodeHex(record.bytes))
      return vector.problem(`entry ${place} differs between text and binary form`)
  }
}

function replayed(list: Uint8Array, bank: HashName): Record<string, string> {
  return Object.fromEntries(replayImaList(list, bank).registers)
}

/** PCR 0 to 9 by bank: replayed from the boot log, and where the TPM's values are there, found equal to them. */
function bootRegisters(vector: VectorCase): ReadonlyMap<string, ReadonlyMap<number, string>> {
  const bytes = vector.optional("eventlog.bin")
  const held =
    vector.optional("tpm-pcrs.json") === undefined ? new Map<string, ReadonlyMap<number, string>>() : tpmValues(vector.json("tpm-pcrs.json"))
  if (bytes === undefined) return held
  const log = parseEventLog(bytes)
  return new Map(
    log.banks.map(({ name, digestBytes }) => {
      const values = new Map(registersOf(log, name))
      for (let pcr = 0; pcr <= 9; pcr++) if (!values.has(pcr)) values.set(pcr, "00".repeat(digestBytes))
      const tpm = held.get(name)
      for (const [pcr, value] of values)
        if (tpm !== undefined && tpm.get(pcr) !== value) vector.problem(`the boot log does not explain PCR ${pcr} of the ${name} bank`)
      return [name, values]
    }),
  )
}

function verified(list: Uint8Array, bank: HashName, value: string, bootPcrs: ReadonlyMap<string, ReadonlyMap<number, string>>): ImaClaims {
  return verifyIma({ list, bank, quotedPcrs: new Map([[10, value]]), bootPcrs, insecureAllowSha1: true }).claims
}

function judgeChangedBits(
  vector: VectorCase,
  list: Uint8Array,
  bank: HashName,
  value: string,
  bootPcrs: ReadonlyMap<string, ReadonlyMap<number, string>>,
): void {
  const changed = Uint8Array.from(list)
  const place = Math.floor(changed.length / 3)
  changed[place] = (changed[place] ?? 0) ^ 1
  vector.refused(`${bank}: one bit of an entry`, () => verified(changed, bank, value, bootPcrs))
  const digit = (Number.parseInt(value.charAt(0), 16) ^ 1).toString(16)
  vector.refused(`${bank}: one bit of PCR 10`, () => verified(list, bank, digit + value.substring(1), bootPcrs), "pcr-mismatch")
}
