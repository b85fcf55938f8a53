import { InvalidArgumentError, type Command } from "commander"
import { digestOf } from "../../bytes/digest.ts"
import { createFileDurably, readFileBounded } from "../../bytes/durable.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { LogError } from "../../log/errors.ts"
import type { NoteKey } from "../../log/note.ts"
import { makeRunCertificate } from "../../client/run-certificate.ts"
import { parseSshPublicKey } from "../../pki/ssh-key.ts"
import type { MetricValues } from "../../protocol/messages.ts"
import { routes } from "../../protocol/routes.ts"
import {
  maxCertificateBytes,
  notProved,
  parseRunCertificate,
  proofLines,
  type RunProof,
  verifyRunCertificate,
} from "../../protocol/run-certificate.ts"
import { followOwnLog } from "../checkpoints.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { UsageError } from "../exit.ts"
import { loadManagerPins } from "../home.ts"
import { interruptSignal } from "../interrupt.ts"
import type { Output } from "../output.ts"
import { witnessKeyArgument } from "../witness-words.ts"

export function register(command: Command, output: Output): void {
  withManagerOption(command.command("make"))
    .argument("<run>", "run that has ended, as job list shows it")
    .requiredOption("--out <file>", "where the certificate goes; must not exist")
    .option("--metrics", "show in it what the run reported, not its digest alone: to everybody who gets the file")
    .description("one file that proves of a run's outputs which inputs, code, policy, machine and votes they came from")
    .action(async (run: string, options: ManagerOption & { out: string; metrics?: true }) => {
      using interrupt = interruptSignal()
      const made = await withManager(options, output, async (connection) => {
        await followOwnLog(connection)
        const bare = await makeRunCertificate(connection, run)
        if (options.metrics !== true) return bare
        const metrics: MetricValues[] = []
        for await (const event of connection.transport.events(routes.watchRun, { params: { run }, signal: interrupt.signal }))
          if (event.kind === "metrics") metrics.push(event.values)
        return { ...bare, metrics }
      })
      const proof = verifyRunCertificate(made, { managers: [made.manager.description.key] })
      await createFileDurably(options.out, `${JSON.stringify(made)}\n`)
      output.result({ ok: true, file: options.out, ...proof }, () => {
        showProof(proof, output)
        output.line(`wrote ${options.out}; anybody with the manager's key verifies it: perun certificate verify ${options.out}`, "good")
      })
    })
  command
    .command("verify")
    .argument("<file>", "certificate")
    .option(
      "--manager-key <key>",
      "key of the manager that you trust, ssh-ed25519 …; again for each (default: those that this home has pinned)",
      collect(parseKey),
      [],
    )
    .option("--party <name=key>", "a party that must itself have signed the policy with this key; again for each", collect(parseParty), [])
    .option(
      "--witness <key>",
      "a witness that must have cosigned the certificate's checkpoint (perun witness show); again for each",
      witnessKeyArgument,
      [],
    )
    .description("verify a run's certificate offline, with nothing but the file and the keys that you know")
    .action(async (file: string, options: { managerKey: readonly string[]; party: readonly PartyPin[]; witness: readonly NoteKey[] }) => {
      const pinned = options.managerKey.length > 0 ? options.managerKey : (await loadManagerPins()).flatMap(({ key }) => key ?? [])
      if (pinned.length === 0) throw new UsageError("no manager is pinned in this home; give its key with --manager-key")
      const names = options.party.map(({ name }) => name)
      if (new Set(names).size < names.length) throw new UsageError("--party: a party is named twice")
      const seers = options.witness.map(({ name }) => name)
      if (new Set(seers).size < seers.length) throw new UsageError("--witness: a witness is named twice")
      const certificate = parseRunCertificate(await readFileBounded(file, maxCertificateBytes))
      const parties = Object.fromEntries(options.party.map(({ name, key }) => [name, key]))
      const proof = verifyRunCertificate(certificate, { managers: pinned, parties, witnesses: options.witness })
      const silent = seers.filter((name) => !proof.log.witnesses.includes(name))
      if (silent.length > 0)
        throw new LogError("not-witnessed", `${silent.join(", ")} has not cosigned the checkpoint of this certificate`, { path: file })
      output.result({ ok: true, file, ...proof, notProved: notProved(proof) }, () => {
        showProof(proof, output)
        output.line(`${file} is what it says`, "good")
      })
    })
  command
    .command("page")
    .requiredOption("--out <file>", "where the page goes, as HTML; must not exist")
    .description("one HTML file in which a browser verifies certificates offline, for those who have no Perun")
    .action(async (options: { out: string }) => {
      const page = encodeUtf8(await buildPage())
      await createFileDurably(options.out, page)
      const digest = digestOf(page)
      output.result({ ok: true, file: options.out, bytes: page.length, digest }, () => {
        output.line(`wrote ${options.out}: ${page.length} bytes, ${digest}`, "good")
        output.line("the same version makes the same bytes; whoever opens it needs nothing else", "dim")
      })
    })
}

/** What builds it is among the packages for development, which a production installation leaves out. */
async function buildPage(): Promise<string> {
  let page: typeof import("../../../page/build.ts")
  try {
    page = await import("../../../page/build.ts")
  } catch (cause) {
    if (!(cause instanceof Error && "code" in cause && cause.code === "ERR_MODULE_NOT_FOUND")) throw cause
    throw new UsageError("the page is built by esbuild, which is not installed here: npm ci in a checkout, without --omit=dev")
  }
  return page.buildCertificatePage()
}

function showProof(proof: RunProof, output: Output): void {
  output.table(
    ["proved", "", "by a signature of"],
    proofLines(proof).map(({ what, text, by }) => [
      { text: what, tone: what === "WITHDRAWN" ? "bad" : "strong" },
      { text, tone: text.includes(insecureLaboratory) ? "warn" : "plain" },
      { text: by, tone: "dim" },
    ]),
  )
  output.line()
  for (const line of notProved(proof)) output.line(`not proved: ${line}`, "warn")
}

interface PartyPin {
  readonly name: string
  readonly key: string
}

function parseKey(text: string): string {
  try {
    return parseSshPublicKey(text).text
  } catch {
    throw new InvalidArgumentError("expected an SSH public key: ssh-ed25519 AAAA…")
  }
}

function parseParty(text: string): PartyPin {
  const [, name, key] = /^([a-z][a-z0-9-]{0,62})=(.+)$/.exec(text) ?? []
  if (name === undefined || key === undefined) throw new InvalidArgumentError("expected NAME=KEY, e.g. clinic-a=ssh-ed25519 AAAA…")
  return { name, key: parseKey(key) }
}

function collect<T>(parse: (text: string) => T): (text: string, before: readonly T[]) => readonly T[] {
  return (text, before) => [...before, parse(text)]
}
