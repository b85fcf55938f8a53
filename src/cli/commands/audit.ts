import { InvalidArgumentError, type Command } from "commander"
import { open } from "node:fs/promises"
import { createFileDurably, fromSystemError, readFileBounded } from "../../bytes/durable.ts"
import { MalformedError } from "../../bytes/error.ts"
import { bytesEqual } from "../../bytes/compare.ts"
import { PerunError, UnavailableError } from "../../bytes/error.ts"
import { readBodyBounded } from "../../bytes/http-body.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { encodeAuditExport, exportPrefix, maxExportBytes, verifyAuditExport } from "../../protocol/audit-export.ts"
import { UsageError } from "../exit.ts"
import { fetchReceipts, followLog } from "../../protocol/follow-log.ts"
import { type SignedCheckpoint, verifyCheckpoint } from "../../log/checkpoint.ts"
import { LogError } from "../../log/errors.ts"
import { encodeNote, maxNoteBytes, type NoteKey } from "../../log/note.ts"
import { verifyConsistency } from "../../log/merkle.ts"
import { parseSshPublicKey } from "../../pki/ssh-key.ts"
import { provenReceiptSchema, type Receipt } from "../../protocol/messages.ts"
import { ProtocolError } from "../../protocol/errors.ts"
import { logKeyOf, verifyProvenReceipt } from "../../protocol/receipts.ts"
import { routes } from "../../protocol/routes.ts"
import { maxMessageBytes, parseMessage } from "../../protocol/wire.ts"
import { checkpointsFile, followOwnLog } from "../checkpoints.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import type { Cell, Output } from "../output.ts"
import { demandWitnessWords, type WitnessWords, withWitnessOptions } from "../witness-words.ts"

export function register(command: Command, output: Output): void {
  registerList(command, output)
  registerShow(command, output)
  registerExport(command, output)
  registerCheckpoints(command, output)
}

function registerList(command: Command, output: Output): void {
  withWitnessOptions(withManagerOption(command.command("list")))
    .option("--kind <kind>", "only receipts of this kind, e.g. key-released")
    .description("what happened in your policies, from the manager's log; every leaf of the log is verified first, those of others' receipts too")
    .action(async (options: ManagerOption & WitnessWords & { kind?: string }) => {
      const { receipts, head } = await withManager(options, output, async (connection) => {
        const { head: followed } = await followOwnLog(connection)
        return fetchReceipts(connection, followed)
      })
      const witnesses = demandWitnessWords(head, options, new Date())
      const own = receipts.flatMap(({ receipt }, index) => (receipt === undefined ? [] : [{ index, receipt }]))
      const listed = own.filter(({ receipt }) => options.kind === undefined || receipt.kind === options.kind)
      const others = receipts.length - own.length
      output.result({ ok: true, verified: receipts.length, others, checkpoint: encodeNote(head.note), witnesses, receipts: listed }, () => {
        output.table(
          ["", "at", "what", "by", "concerns", "on"],
          listed.map(({ index, receipt }) => rowOf(index, receipt)),
        )
        output.line()
        output.line(
          `${receipts.length} receipts, every one in the tree whose root the manager signed; the tree goes on from what was seen before`,
          "good",
        )
        if (witnesses.length > 0) output.line(`seen by enough of your witnesses: ${witnesses.join(", ")}`, "good")
        if (others > 0) output.line(`${others} of them do not concern you: their leaves were verified, what they say is not shown`)
        output.line(
          `checkpoint: ${checkpointsFile()}; give it to the other parties (perun audit checkpoint), and compare theirs (perun audit compare)`,
          "dim",
        )
      })
    })
}

function registerShow(command: Command, output: Output): void {
  withManagerOption(command.command("show"))
    .argument("<index>", "place of a receipt in the log, as perun audit list shows it", parseIndex)
    .option("--out <file>", "keep the receipt with its proof in this file, which must not exist: anybody can verify it (perun audit verify)")
    .description("one receipt with the proof that it is in the manager's log")
    .action(async (index: number, options: ManagerOption & { out?: string }) => {
      const proven = await withManager(options, output, async (connection) => {
        const answer = await connection.call(routes.proveReceipt, { params: { index: String(index) } })
        if (answer.index !== index) throw new LogError("wrong-proof", `asked for receipt ${index}, got ${answer.index}`)
        verifyProvenReceipt(answer, logKeyOf(connection.description))
        return answer
      })
      if (options.out !== undefined) await createFileDurably(options.out, `${JSON.stringify(proven, null, 1)}\n`)
      output.result({ ok: true, ...proven, ...(options.out === undefined ? {} : { file: options.out }) }, () => {
        showReceipt(index, proven.receipt, output)
        if (options.out !== undefined) output.line(`kept with its proof in ${options.out}`, "good")
      })
    })
  command
    .command("verify")
    .argument("<file...>", "receipts as perun audit show --out keeps them, or logs of perun audit export")
    .requiredOption("--log-key <key>", "the manager's log key, ssh-ed25519 …, as perun manager status shows it")
    .requiredOption("--instance <id>", "the manager's instance, as perun manager status shows it")
    .option("--goes-on-from <file>", "an earlier export or checkpoint: each export must be the continuation of it")
    .description(
      "verify receipts and whole logs offline: each receipt is in a log whose checkpoint this manager signed, and in an export none was left out",
    )
    .action(async (files: readonly string[], options: { logKey: string; instance: string; goesOnFrom?: string }) => {
      const key = logKeyOf({ logKey: parseSshPublicKey(options.logKey).text, instance: options.instance })
      const earlier = options.goesOnFrom === undefined ? undefined : await earlierHead(options.goesOnFrom, key)
      for (const file of files) {
        if (await isExport(file)) {
          const bytes = await readFileBounded(file, maxExportBytes)
          const { receipts, head } = inFile(file, () => verifyAuditExport(bytes, key, earlier))
          const own = receipts.filter(({ receipt }) => receipt !== undefined).length
          output.result({ ok: true, file, size: head.size, receipts: own, checkpoint: encodeNote(head.note) }, () => {
            output.line(`${file}: all ${head.size} receipts of the log, ${own} of them with what they say`, "good")
            if (earlier !== undefined) output.line(`it goes on from the ${earlier.size} of ${String(options.goesOnFrom)}`, "good")
          })
          continue
        }
        if (earlier !== undefined) throw new UsageError(`--goes-on-from is for exports: ${file} is none`)
        const bytes = await readFileBounded(file, maxMessageBytes)
        const proven = inFile(file, () => parseMessage(provenReceiptSchema, bytes, maxMessageBytes))
        const { size } = inFile(file, () => verifyProvenReceipt(proven, key))
        output.result({ ok: true, file, index: proven.index, size, receipt: proven.receipt }, () => {
          output.line(`${file}: receipt ${proven.index} of a log of ${size}`, "good")
          showReceipt(proven.index, proven.receipt, output)
        })
      }
    })
}

function registerExport(command: Command, output: Output): void {
  withManagerOption(command.command("export"))
    .requiredOption("--out <file>", "where it goes; must not exist")
    .description("the whole log as you see it, in one file (JSON lines) that perun audit verify takes offline; of others' receipts their digests")
    .action(async (options: ManagerOption & { out: string }) => {
      const verified = await withManager(options, output, async (connection) => {
        const { head } = await followOwnLog(connection)
        return fetchReceipts(connection, head)
      })
      await createFileDurably(options.out, encodeAuditExport(verified, new Date()))
      const own = verified.receipts.filter(({ receipt }) => receipt !== undefined).length
      output.result({ ok: true, file: options.out, size: verified.head.size, receipts: own }, () =>
        output.line(`wrote ${options.out}: ${verified.head.size} receipts, ${own} of them with what they say`, "good"),
      )
    })
}

/** By its first bytes: other files are read up to their own, smaller bounds. @throws {UnavailableError} */
async function isExport(path: string): Promise<boolean> {
  try {
    await using file = await open(path, "r")
    const { buffer, bytesRead } = await file.read({ buffer: new Uint8Array(exportPrefix.length) })
    return bytesEqual(buffer.subarray(0, bytesRead), encodeUtf8(exportPrefix))
  } catch (error) {
    throw fromSystemError(error, path)
  }
}

/** Of an earlier export or a checkpoint. @throws as verifyAuditExport */
async function earlierHead(file: string, log: NoteKey): Promise<SignedCheckpoint> {
  const isWhole = await isExport(file)
  const bytes = await readFileBounded(file, isWhole ? maxExportBytes : maxNoteBytes)
  return inFile(file, () => (isWhole ? verifyAuditExport(bytes, log).head : verifyCheckpoint(bytes, log)))
}

function registerCheckpoints(command: Command, output: Output): void {
  withWitnessOptions(withManagerOption(command.command("checkpoint")))
    .option("--out <file>", "write it to this file, which must not exist")
    .description("the checkpoint of the manager's log that this home saw last, as the manager signed it: for other parties to compare")
    .action(async (options: ManagerOption & WitnessWords & { out?: string }) => {
      const { head } = await withManager(options, output, (connection) => followOwnLog(connection))
      const witnesses = demandWitnessWords(head, options, new Date())
      const text = encodeNote(head.note)
      if (options.out !== undefined) await createFileDurably(options.out, text)
      output.result({ ok: true, size: head.size, checkpoint: text, witnesses, ...(options.out === undefined ? {} : { file: options.out }) }, () => {
        if (options.out === undefined) output.raw(text)
        else output.line(`wrote ${options.out}: ${head.size} receipts`, "good")
      })
    })
  withManagerOption(command.command("compare"))
    .argument(
      "<file...>",
      "checkpoints that other parties have seen (perun audit checkpoint --out): files, or https:// addresses where they are kept",
    )
    .description("whether other parties see the same log: their checkpoints must be parts of one history with yours")
    .action(async (files: readonly string[], options: ManagerOption) => {
      const others = await Promise.all(files.map(async (file) => ({ file, text: await readCheckpoint(file) })))
      await withManager(options, output, async (connection) => {
        const log = logKeyOf(connection.description)
        for (const { file, text } of others) {
          const other = inFile(file, () => verifyCheckpoint(text, log))
          const { head } = await followOwnLog(connection)
          if (other.size > head.size)
            throw new LogError(
              "older-tree",
              `${file} has ${other.size} entries and this manager shows you ${head.size}: what they have seen is kept from you`,
            )
          await compare(connection, file, other, head)
          output.result({ event: "same-log", file, size: other.size, ownSize: head.size }, () =>
            output.line(`${file}: ${other.size} receipts, part of the log that you see (${head.size})`, "good"),
          )
        }
      })
      output.event({ ok: true, compared: files.length })
    })
}

/** From a file or an address; who keeps it there is not trusted, for the manager has signed it. @throws {UnavailableError}; {MalformedError} `too-large` */
async function readCheckpoint(place: string): Promise<Uint8Array> {
  if (!/^https?:\/\//.test(place)) return readFileBounded(place, maxNoteBytes)
  try {
    const response = await fetch(place, { redirect: "error", signal: AbortSignal.timeout(30_000) })
    if (!response.ok) throw new UnavailableError("unavailable", `${place}: status ${response.status}`)
    return await readBodyBounded(response, maxNoteBytes)
  } catch (cause) {
    if (cause instanceof PerunError) throw cause
    throw new UnavailableError("unavailable", `${place} cannot be reached`, { cause })
  }
}

/** The log that the manager shows here goes on from the other party's checkpoint. */
async function compare(connection: Parameters<typeof followLog>[0], file: string, other: SignedCheckpoint, head: SignedCheckpoint): Promise<void> {
  try {
    if (other.size === head.size) verifyConsistency(other, head, [])
    else await followLog(connection, other)
  } catch (cause) {
    if (!(cause instanceof LogError)) throw cause
    throw new LogError(
      "forked",
      `${file} is of another history than the one that this manager shows you: it has signed both (${file}, ${checkpointsFile()}); stop, and tell the other parties`,
      { cause },
    )
  }
}

function inFile<T>(file: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (cause instanceof LogError) throw new LogError(cause.code, cause.message, { path: file, cause })
    if (cause instanceof ProtocolError) throw new ProtocolError(cause.code, cause.message, { path: file, cause })
    if (cause instanceof MalformedError) throw new MalformedError(cause.code, cause.message, { path: file, cause })
    throw cause
  }
}

function showReceipt(index: number, receipt: Receipt, output: Output): void {
  const { salt: _salt, ...facts } = receipt
  output.line(`receipt   ${index}`)
  for (const [name, value] of Object.entries(facts)) output.line(`${name.padEnd(9)} ${typeof value === "string" ? value : JSON.stringify(value)}`)
}

function parseIndex(text: string): number {
  if (!/^(?:0|[1-9][0-9]{0,14})$/.test(text)) throw new InvalidArgumentError("expected a whole number, from 0")
  return Number(text)
}

function rowOf(index: number, receipt: Receipt): readonly Cell[] {
  const { at, kind, by, byKey, host, policy, run, output, artifacts, secrets, evidence, code, laboratory, report, vault, custodians, runKeys } =
    receipt
  const refused = kind === "release-refused"
  const kept = custodians === undefined ? vault : `${vault}: ${custodians.map(({ name }) => name).join(", ")}`
  const things = [...(artifacts ?? []), ...(secrets ?? []).map((name) => `secret ${name}`), ...keysOfOutputs(runKeys)].join(", ")
  const concerns = [kept, host, things || undefined, output, run ?? policy].filter((part) => part !== undefined).join(" ")
  const grounds = [
    code,
    evidence === undefined ? undefined : `evidence ${evidence}`,
    laboratory === true ? insecureLaboratory : undefined,
    report === undefined ? undefined : `report ${report}`,
  ]
  return [
    index,
    at,
    { text: kind, tone: refused ? "bad" : "plain" },
    by ?? byKey ?? "",
    concerns,
    grounds.filter((part) => part !== undefined).join(" "),
  ]
}

function keysOfOutputs(runs: number | undefined): readonly string[] {
  return runs === undefined || runs === 0 ? [] : [`outputs of ${runs} ${runs === 1 ? "run" : "runs"}`]
}
