import { bytesEqual } from "../../../bytes/compare.ts"
import type { JsonValue } from "../../../bytes/json.ts"
import { encodeBase64, encodeHex, parseUtf8 } from "../../../bytes/text.ts"
import { hash } from "../../../pki/signatures.ts"
import type { HashName } from "../../../pki/signatures.ts"
import { parseCcel, replayCcel } from "../../ccel/format.ts"
import type { CcelLog } from "../../ccel/format.ts"
import { ccelQuirks, verifyCcel } from "../../ccel/verify.ts"
import type { CcelExpectation, CcelQuirk } from "../../ccel/verify.ts"
import { EvidenceError } from "../../errors.ts"
import { scanEventLog, parseEventLog } from "../../eventlog/format.ts"
import type { EventLog, LogEvent } from "../../eventlog/format.ts"
import { readVariable } from "../../eventlog/contents.ts"
import { replayEventLog, replayMeasurementRegisters } from "../../eventlog/replay.ts"
import { eventTypeName, eventTypes } from "../../eventlog/types.ts"
import { verifyEventLog } from "../../eventlog/verify.ts"
import { isObject } from "../vector.ts"
import type { Facts, VectorCase } from "../vector.ts"

/** `replay`: the log gives the stated register values, and everything else that is stated about it. */
export function judgeReplay(vector: VectorCase): void {
  const log = parseEventLog(logBytes(vector))
  judgeLogFacts(vector, vector.facts, log)
  judgeAgainstTpm(vector, log)
  judgeSourceParse(vector, log)
  judgeCcel(vector)
}

/** The log of a TD verifies against the registers that it leads to, and against no others; the firmware's faults are shown. */
function judgeCcel(vector: VectorCase): void {
  const bytes = vector.optional("ccel.bin")
  if (bytes === undefined) return
  const log = parseCcel(bytes)
  const [r0 = "", r1 = "", r2 = "", r3 = ""] = replayCcel(log).map(encodeHex)
  const quirks = Object.keys(ccelQuirks) as CcelQuirk[]
  const { claims } = verifyCcel(log, { rtmrs: [r0, r1, r2, r3], quirks })
  vector.note(`firmware quirks: ${claims.quirks.join(", ") || "none"}`)
  const other = "01".repeat(48)
  vector.refused("another RTMR0", () => verifyCcel(log, { rtmrs: [other, r1, r2, r3], quirks }), "pcr-mismatch")
  vector.refused("another RTMR1", () => verifyCcel(log, { rtmrs: [r0, other, r2, r3], quirks }), "pcr-mismatch")
  vector.refused("another RTMR2", () => verifyCcel(log, { rtmrs: [r0, r1, other, r3], quirks }), "pcr-mismatch")
  vector.equal("unexplained RTMR3", rtmr3With(log, [r0, r1, r2, other], quirks), claims.rtmr3 === "unused" ? "unexplained" : "refused")
}

/** What is said of RTMR3; a log that has events of it and leads to another value is refused. */
function rtmr3With(log: CcelLog, rtmrs: CcelExpectation["rtmrs"], quirks: readonly CcelQuirk[]): string {
  try {
    return verifyCcel(log, { rtmrs, quirks }).claims.rtmr3
  } catch (error) {
    if (error instanceof EvidenceError) return "refused"
    throw error
  }
}

/** `parse`: the log can be read; nothing need extend a register. */
export function judgeParse(vector: VectorCase): void {
  judgeReplay(vector)
}

/** `no-crash`: the log is broken; reading it gives our own error, and what stands before the fault is as stated. */
export function judgeNoCrash(vector: VectorCase): void {
  const bytes = logBytes(vector)
  vector.refused("the whole log", () => parseEventLog(bytes), "truncated", "malformed", "trailing-bytes", "too-large", "duplicate")
  judgeLogFacts(vector, vector.facts, scanEventLog(bytes).log)
}

/** `reject`: neither form nor registers may be accepted. */
export function judgeReject(vector: VectorCase): void {
  const bytes = logBytes(vector)
  const values = tpmValues(vector.optional("tpm-pcrs.json") === undefined ? undefined : vector.json("tpm-pcrs.json"))
  judgeLogFacts(vector, vector.facts, scanEventLog(bytes).log)
  vector.refused("the log", () => {
    const log = parseEventLog(bytes)
    for (const [bank, registers] of values) {
      const { match, mismatch } = compareWithTpm(log, bank, registers)
      if (mismatch.length > 0 || match.length === 0) throw new EvidenceError("pcr-mismatch", `PCRs ${mismatch.join(", ")}`)
    }
  })
}

/** `sha256-ok-sha1-mismatch`: every register of SHA-256 fits what the TPM held, SHA-1 is reported as not matching. */
export function judgeSha256Only(vector: VectorCase): void {
  judgeReplay(vector)
  const log = parseEventLog(logBytes(vector))
  const values = tpmValues(vector.json("tpm-pcrs.json"))
  const sha256 = values.get("sha256")
  const sha1 = values.get("sha1")
  if (sha256 === undefined || sha1 === undefined) return vector.problem("tpm-pcrs.json lacks a bank")
  vector.equal("SHA-256 mismatches", compareWithTpm(log, "sha256", sha256).mismatch, [])
  vector.equal("SHA-1 matches", compareWithTpm(log, "sha1", sha1).match, [])
  const quoted = new Map([...sha1].filter(([pcr]) => pcr <= 7))
  vector.refused(
    "the SHA-1 bank",
    () => verifyEventLog(logBytes(vector), { bank: "sha1", quotedPcrs: quoted, insecureAllowSha1: true }),
    "pcr-mismatch",
    "log-incomplete",
  )
}

/**
 * `pcr5-mismatch-unless-ebs-workaround`: the log lacks the ExitBootServices events that the TPM holds. Refused, unless the caller names this firmware
 * quirk, and then shown.
 */
export function judgeMissingExit(vector: VectorCase): void {
  judgeReplay(vector)
  const bytes = logBytes(vector)
  const log = parseEventLog(bytes)
  const [bank] = Object.keys(vector.facts.value("pcrs") ?? {})
  if (bank !== "sha1") return vector.problem("expected facts of the SHA-1 bank")
  const stated = vector.facts.text("tpmPcr5Sha1") ?? ""
  const quotedPcrs = new Map([...registersOf(log, bank), [5, stated] as const])
  const verify = (quirks: readonly ("unlogged-exit-boot-services" | "no-exit-boot-services")[]): readonly string[] =>
    verifyEventLog(bytes, { bank, quotedPcrs, quirks, insecureAllowSha1: true }).claims.quirks
  vector.refused("PCR 5 without the quirk", () => verify([]), "pcr-mismatch")
  vector.refused("PCR 5 with another quirk", () => verify(["no-exit-boot-services"]), "pcr-mismatch")
  vector.equal("quirks shown", [...verify(["unlogged-exit-boot-services"])], ["unlogged-exit-boot-services"])
}

function logBytes(vector: VectorCase): Uint8Array {
  return vector.file("eventlog.bin", "ccel.bin")
}

/** Facts about one log, wherever they stand: in a case of kind `eventlog`, or below `logs` in one of kind `tpm`. */
export function judgeLogFacts(vector: VectorCase, facts: Facts, log: EventLog): void {
  const bound = boundEvents(log)
  const end = bound.at(-1)?.end ?? 0
  facts.check("events", () => bound.length)
  facts.check("trailingBytes", () => log.sizeBytes - end + log.trailing.length)
  facts.check("end", () => end)
  facts.check("noAction", () => bound.filter((event) => event.type === eventTypes.EV_NO_ACTION).map(signatureOf))
  facts.value("note")
  const pcrs = facts.object("pcrs")
  for (const bank of pcrs?.keys ?? []) pcrs?.check(bank, () => Object.fromEntries(registersOf(log, bank)))
  if (pcrs !== undefined) {
    const unstated = log.banks.filter((bank) => !pcrs.has(bank.name) && registersOf(log, bank.name).size > 0)
    for (const bank of unstated) vector.problem(`bank ${bank.name} is in the log but not stated`)
  }
  facts.check("rtmrs", () =>
    Object.fromEntries([...replayMeasurementRegisters(log)].map(([register, value]) => [`index${register}`, encodeHex(value)])),
  )
}

/**
 * The log without a trailing record of no register (0xFFFFFFFF): Windows ends its logs with one, which holds the system's own signed summary. The
 * vectors count its bytes as trailing ones.
 */
function boundEvents(log: EventLog): readonly LogEvent[] {
  const last = log.events.findLastIndex((event) => event.register !== noRegister)
  return log.events.filter((_event, index) => index <= last)
}

/** Name of an EV_NO_ACTION event: its first 16 bytes up to a NUL. */
function signatureOf(event: LogEvent): string {
  let text = ""
  for (const byte of event.data.slice(0, 16)) {
    if (byte === 0) break
    text += String.fromCharCode(byte)
  }
  return text
}

export function isBank(name: string): name is HashName {
  return name === "sha1" || name === "sha256" || name === "sha384" || name === "sha512"
}

/** Replayed values by register, lower-case hexadecimal; none for a bank that the log does not have. */
export function registersOf(log: EventLog, bank: string): ReadonlyMap<number, string> {
  if (!isBank(bank) || !log.banks.some((candidate) => candidate.name === bank)) return new Map()
  return new Map([...replayEventLog(log, bank).registers].map(([pcr, value]) => [pcr, encodeHex(value)]))
}

/** Registers that the log extends, parted by whether the TPM holds what the log leads to. */
export function compareWithTpm(
  log: EventLog,
  bank: string,
  values: ReadonlyMap<number, string>,
): { readonly match: number[]; readonly mismatch: number[] } {
  const replayed = [...registersOf(log, bank)].filter(([pcr]) => values.has(pcr)).sort(([a], [b]) => a - b)
  return {
    match: replayed.filter(([pcr, value]) => values.get(pcr) === value).map(([pcr]) => pcr),
    mismatch: replayed.filter(([pcr, value]) => values.get(pcr) !== value).map(([pcr]) => pcr),
  }
}

function judgeAgainstTpm(vector: VectorCase, log: EventLog): void {
  const stated = vector.facts.object("againstTpm")
  const bytes = vector.optional("tpm-pcrs.json")
  if (stated === undefined) return
  if (bytes === undefined) return vector.problem("tpm-pcrs.json is missing")
  judgeComparison(stated, log, tpmValues(vector.json("tpm-pcrs.json")))
}

/** Facts of the form bank → { match, mismatch }. */
export function judgeComparison(stated: Facts, log: EventLog, values: ReadonlyMap<string, ReadonlyMap<number, string>>): void {
  for (const bank of stated.keys) stated.check(bank, () => compareWithTpm(log, bank, values.get(bank) ?? new Map<number, string>()))
}

/** pcrs.json and tpm-pcrs.json: bank → index → hexadecimal. */
export function tpmValues(document: JsonValue | undefined): ReadonlyMap<string, ReadonlyMap<number, string>> {
  const banks = new Map<string, ReadonlyMap<number, string>>()
  if (!isObject(document)) return banks
  for (const [bank, registers] of Object.entries(document)) {
    if (!isObject(registers)) continue
    banks.set(
      bank.toLowerCase().replace("-", ""),
      new Map(Object.entries(registers).map(([pcr, value]) => [Number(pcr), String(value).toLowerCase()])),
    )
  }
  return banks
}

/** parsed-by-source.json: the parse result of the program that the log was taken from. */
function judgeSourceParse(vector: VectorCase, log: EventLog): void {
  if (vector.optional("parsed-by-source.json") === undefined) return
  const document = vector.json("parsed-by-source.json")
  const records = isObject(document) ? document["uefi_event_logs"] : undefined
  if (!Array.isArray(records)) return vector.problem("parsed-by-source.json has another form")
  const events = log.events.filter((event) => event.index > 0)
  vector.equal("events of the source's parse", events.length, records.length)
  for (const [place, event] of events.entries()) {
    const record = records[place]
    if (!isObject(record)) return vector.problem(`record ${place} of the source's parse has another form`)
    const { details, ...rest } = record
    vector.equal(`event ${event.index}`, sourceForm(event), rest)
    const ours = sourceDetails(event)
    if (ours !== undefined) vector.equal(`details of event ${event.index}`, ours, details ?? null)
  }
  vector.note("device paths and labels are not compared with the source's printed form")
}

/** One event in the source's form. */
function sourceForm(event: LogEvent): JsonValue {
  const digest = event.digests.get("sha384")
  return {
    digest_matches_event: digest !== undefined && bytesEqual(hash("sha384", event.data), digest),
    digests: [...event.digests].map(([bank, value]) => ({ alg: bank.toUpperCase().replace("SHA", "SHA-"), digest: encodeHex(value) })),
    event: encodeBase64(event.data),
    index: event.register,
    type_name: eventTypeName(event.type),
  }
}

/** Variables and actions; undefined where the source's details are only a way of printing. */
function sourceDetails(event: LogEvent): JsonValue | undefined {
  const typeName = eventTypeName(event.type)
  if (typeName === "EV_SEPARATOR") return {}
  if (typeName === "EV_EFI_ACTION") return { string: parseUtf8(event.data) }
  const variable = typeName.startsWith("EV_EFI_VARIABLE_") ? readVariable(event.data) : undefined
  if (variable === undefined) return undefined
  const guid = variable.vendorGuid
  return {
    unicode_name: variable.name,
    unicode_name_length: variable.name.length,
    variable_data: encodeBase64(variable.value),
    variable_data_length: variable.value.length,
    variable_name: guid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5"),
  }
}

const noRegister = 0xffffffff
