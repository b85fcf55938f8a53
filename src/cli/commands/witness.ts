import { type Command, InvalidArgumentError } from "commander"
import { encodeBase64 } from "../../bytes/text.ts"
import { encodeVerifierKey, type NoteKey, parseVerifierKey } from "../../log/note.ts"
import { parseSshPublicKey } from "../../pki/ssh-key.ts"
import { verifyManager } from "../../protocol/manager-connection.ts"
import { logKeyOf } from "../../protocol/receipts.ts"
import { createTlsIdentity } from "../../protocol/tls.ts"
import { serveWitness, type WitnessEvent } from "../../witness/server.ts"
import { WitnessState } from "../../witness/state.ts"
import { chosenManager, demandPinnedResultKey } from "../home.ts"
import { interruptSignal } from "../interrupt.ts"
import { parseListen } from "../listen-address.ts"
import type { Output } from "../output.ts"
import { UsageError } from "../exit.ts"

export function register(command: Command, output: Output): void {
  command
    .command("init")
    .argument("<folder>", "folder of the witness; must not exist")
    .requiredOption("--name <name>", "name that others know it by, e.g. witness.hospital.example/perun")
    .description("make a witness: its key, and an empty memory of logs")
    .action(async (folder: string, { name }: { name: string }) => {
      const key = encodeVerifierKey(await WitnessState.create(folder, name))
      output.result({ ok: true, folder, name, key }, () => {
        output.line(`made ${folder}`, "good")
        output.line(`key  ${key} (what policies name, and perun manager serve --witness URL=KEY)`)
        output.line("follow a log with perun witness add-log; a witness that follows none cosigns nothing")
      })
    })
  command
    .command("add-log")
    .argument("<folder>", "folder that perun witness init made; no witness may run on it meanwhile")
    .option("--manager <url>", "the log of a manager that is pinned here (default: the default one)")
    .option("--log-key <key>", "the manager's log key, ssh-ed25519 …, as perun manager status shows it; with --instance, instead of asking one")
    .option("--instance <id>", "the manager's instance, as perun manager status shows it")
    .option("--key <key>", "any log's key, name+id+base64 (C2SP signed-note)")
    .description("follow the log of a manager from now on")
    .action(async (folder: string, options: LogWords) => {
      const key = await logOf(options)
      using state = await WitnessState.open(folder)
      const done = state.follow(key)
      output.result({ ok: true, folder, log: key.name, added: done === "added" }, () =>
        output.line(done === "added" ? `follows ${key.name}` : `follows ${key.name} already; nothing was changed`, "good"),
      )
    })
  command
    .command("show")
    .argument("<folder>", "folder that perun witness init made; no witness may run on it meanwhile")
    .description("the witness's key, the logs that it follows and how far it has seen them")
    .action(async (folder: string) => {
      using state = await WitnessState.open(folder)
      const logs = state.logs().map(({ key, seen }) => ({
        origin: key.name,
        key: encodeVerifierKey(key),
        size: seen?.size ?? null,
        root: seen === undefined ? null : encodeBase64(seen.root),
      }))
      const key = encodeVerifierKey(state.key)
      output.result({ ok: true, folder, name: state.name, key, logs }, () => {
        output.line(`key  ${key}`)
        output.table(
          ["log", "receipts seen", "root"],
          logs.map(({ origin, size, root }) => [origin, size ?? "none yet", root ?? ""]),
        )
        if (logs.length === 0) output.line("follows no log (perun witness add-log)", "warn")
      })
    })
  command
    .command("serve")
    .argument("<folder>", "folder that perun witness init made")
    .option("--listen <host:port>", "address to listen on", "127.0.0.1:7480")
    .description(
      "cosign checkpoints of the logs that it follows, until Ctrl-C or SIGTERM; over plain HTTP, for everything in it is signed and public",
    )
    .action(async (folder: string, options: { listen: string }) => {
      const address = parseListen(options.listen)
      using interrupt = interruptSignal()
      using state = await WitnessState.open(folder)
      await using served = await serveWitness(state, address, (event) => say(event, output))
      const key = encodeVerifierKey(state.key)
      output.result({ event: "listening", url: served.url, key, logs: state.logs().length }, () => {
        output.line(`listening on ${served.url}`, "good")
        output.line(`key   ${key}`)
        output.line(`logs  ${state.logs().length}`)
        output.line(`for the manager: perun manager serve … --witness '${served.url}=${key}'`, "dim")
      })
      await new Promise<void>((resolve) => interrupt.signal.addEventListener("abort", () => resolve(), { once: true }))
      output.line("stopping")
    })
}

function say(event: WitnessEvent, output: Output): void {
  output.result(event, () => {
    if (event.event === "cosigned") output.line(`cosigned ${event.origin}: ${event.size} receipts`, "good")
    else output.line(`refused (${event.code}): ${event.message}`, "bad")
  })
}

interface LogWords {
  readonly manager?: string
  readonly logKey?: string
  readonly instance?: string
  readonly key?: string
}

async function logOf({ manager, logKey, instance, key }: LogWords): Promise<NoteKey> {
  const ways = [key, logKey ?? instance, manager].filter((way) => way !== undefined)
  if (ways.length > 1) throw new UsageError("say which log in one way: --manager, --log-key with --instance, or --key")
  if (key !== undefined) return readKey(key)
  if (logKey !== undefined || instance !== undefined) {
    if (logKey === undefined || instance === undefined) throw new UsageError("--log-key and --instance go together")
    if (!/^[0-9a-f]{32}$/.test(instance)) throw new UsageError("--instance: expected 32 hexadecimal digits")
    return logKeyOf({ logKey: parseSshPublicKey(logKey).text, instance })
  }
  const pin = await chosenManager(manager)
  const { description } = await verifyManager(new URL(pin.url), pin, createTlsIdentity("perun client"), { now: new Date() })
  demandPinnedResultKey(pin, description)
  return logKeyOf(description)
}

function readKey(text: string): NoteKey {
  const key = parseVerifierKey(text)
  if (key.type !== 1) throw new InvalidArgumentError("a log's key is of type 1 (Ed25519)")
  return key
}
