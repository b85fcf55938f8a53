import { Argument, type Command, Option } from "commander"
import { join } from "node:path"
import { createFileDurably, readFileBounded, writeFileDurably } from "../../bytes/durable.ts"
import { digestOf, isDigest, type Digest } from "../../bytes/digest.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { type BootReference, type ImaReference, maxReferenceBytes, parseReference, type Reference, referenceDigest } from "../../policy/reference.ts"
import { documentOf } from "../../client/deposit.ts"
import { fetchReference, proposeUpdate } from "../../client/reference-updates.ts"
import { signStatement } from "../../pki/statement.ts"
import { diffReferences, type ReferenceDifference } from "../../policy/reference-diff.ts"
import { routes } from "../../protocol/routes.ts"
import { demandConsent } from "../confirm.ts"
import { withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { UsageError } from "../exit.ts"
import type { Cell, Output } from "../output.ts"
import { policyNamed } from "../policy-file.ts"

/** The laboratory's images and levels, as its recipe has them; here so that help and completion need not load the laboratory. */
export const imageKinds = ["small", "pytorch"] as const
export const imageLevels = ["sealed", "administered"] as const

export type ImageKindName = (typeof imageKinds)[number]
export type ImageLevelName = (typeof imageLevels)[number]

export function imageArgument(): Argument {
  return new Argument("<image>", "small: Node only; pytorch: Debian's python3-torch and python3-sklearn too").choices(imageKinds)
}

export function levelOption(): Option {
  return new Option("--level <level>", "sealed: verified disks, no way in; administered: somebody's ordinary server")
    .choices(imageLevels)
    .default("sealed")
}

export function register(command: Command, output: Output): void {
  command
    .command("build")
    .addArgument(imageArgument())
    .addOption(levelOption())
    .requiredOption("--out <folder>", "where boot-reference.json and ima-reference.json go")
    .description("compute the reference values of a laboratory image from what it is built of")
    .action(async (kind: ImageKindName, options: { level: ImageLevelName; out: string }) => {
      const references = await buildReferences(kind, options.level, output)
      const written = await writeReferences(options.out, references)
      output.result({ ok: true, image: kind, level: options.level, ...written }, () => showWritten(written, output))
    })
  command
    .command("show")
    .argument("<file>", "reference document")
    .option("--files", "list every file of an IMA reference")
    .description("check a reference document and show its digest, which policies name, and what it holds")
    .action(async (file: string, options: { files?: true }) => {
      const reference = await loadReference(file)
      const digest = referenceDigest(reference)
      output.result({ ok: true, digest, ...(options.files === true ? { reference } : summaryOf(reference)) }, () => {
        output.line(`digest   ${digest}`, "strong")
        for (const [label, value] of labelled(reference)) output.line(`${label.padEnd(8)} ${value}`)
        output.line()
        if (reference.kind === "boot") showBoot(reference, output)
        else showIma(reference, options.files === true, output)
      })
    })
  command
    .command("diff")
    .argument("<before>", "reference document")
    .argument("<after>", "reference document of the same kind")
    .description("say what a machine of the second reference does otherwise, entry by entry")
    .action(async (before: string, after: string) => {
      const [left, right] = [await loadReference(before), await loadReference(after)]
      const differences = diffReferences(left, right)
      const digests = { before: referenceDigest(left), after: referenceDigest(right) }
      output.result({ ok: true, ...digests, differences }, () => {
        output.line(`before  ${digests.before}`)
        output.line(`after   ${digests.after}`)
        showDifferences(differences, output)
      })
    })
  registerUpdates(command, output)
}

function showDifferences(differences: readonly ReferenceDifference[], output: Output): void {
  if (differences.length === 0) return output.line("no difference", "good")
  output.line()
  output.table(
    ["what", "before", "after"],
    differences.map(({ subject, before: was, after: is }): readonly Cell[] => [
      subject,
      was ?? { text: "not there", tone: "dim" },
      is ?? { text: "not there", tone: "dim" },
    ]),
  )
}

function registerUpdates(command: Command, output: Output): void {
  withManagerOption(command.command("update"))
    .argument("<policy>", "digest or file of an active policy that names you as the delegate")
    .argument("<file>", "reference document that is to stand there from now on")
    .requiredOption("--machine <name>", "machine of the policy whose reference it is; boot or IMA as the document is")
    .option("--yes", "sign without being asked, for scripts")
    .description("put another document in the place of a policy's reference, as the delegate whom the policy names, within what it allows")
    .action(async (named: string, file: string, options: ManagerOption & { machine: string; yes?: true }) => {
      const policy = await policyNamed(named)
      const { machine } = options
      const reference = await loadReference(file)
      const proposed = await withManager(options, output, (connection) => proposeUpdate(connection, { policy, machine, reference }))
      const { piece, replaces, update } = proposed
      if (!output.json) showDifferences(diffReferences(proposed.before, reference), output)
      output.warn(`machines that meet ${replaces} only will get no key any more once the overlap is over`)
      await demandConsent(options.yes, "Sign the update?")
      const view = await withManager(options, output, (connection, identity) =>
        connection.call(routes.updateReference, {
          params: { digest: policy },
          body: { machine, piece, replaces, reference: documentOf(reference), signature: signStatement("reference", update, identity.privateKey) },
        }),
      )
      output.result({ ok: true, ...view }, () =>
        output.line(`${machine}: ${piece} ${view.reference} from ${view.at} on (update ${view.update})`, "good"),
      )
    })
  withManagerOption(command.command("withdraw"))
    .argument("<policy>", "digest or file")
    .argument("<update>", "digest of the update, as perun policy status shows it")
    .option("--yes", "withdraw without being asked, for scripts")
    .description("take an update of a reference back, for good, as its delegate or an owner: what stood there before stands again")
    .action(async (named: string, update: string, options: ManagerOption & { yes?: true }) => {
      const digest = await policyNamed(named)
      if (!isDigest(update)) throw new UsageError("expected the update's digest: sha256: and 64 lower-case hexadecimal digits")
      await demandConsent(options.yes, `Take ${update} back?`)
      const view = await withManager(options, output, (connection, identity) =>
        connection.call(routes.withdrawReference, {
          params: { digest, update },
          body: { signature: signStatement("withdraw", update, identity.privateKey) },
        }),
      )
      output.result({ ok: true, ...view }, () => output.line(`taken back: ${view.machine} ${view.piece} ${view.reference}`, "good"))
    })
  withManagerOption(command.command("fetch"))
    .argument("<policy>", "digest or file")
    .argument("<reference>", "digest of the document, as the policy or perun policy status names it")
    .requiredOption("--out <file>", "where it goes; must not exist")
    .description("get a reference document of a policy, or of an update of it, to read it")
    .action(async (named: string, reference: string, options: ManagerOption & { out: string }) => {
      const digest = await policyNamed(named)
      if (!isDigest(reference)) throw new UsageError("expected the reference's digest: sha256: and 64 lower-case hexadecimal digits")
      const document = await withManager(options, output, (connection) => fetchReference(connection, digest, reference))
      await createFileDurably(options.out, `${JSON.stringify(document, null, 2)}\n`)
      output.result({ ok: true, reference, file: options.out }, () => output.line(`wrote ${options.out}`, "good"))
    })
}

/** Reference values as files, and the digests under which a policy names them. */
export interface WrittenReferences {
  readonly boot: { readonly digest: Digest; readonly file: string }
  readonly ima: { readonly digest: Digest; readonly file: string }
}

/** Reference values of a laboratory image; builds the image, or finds it in the cache. */
export async function buildReferences(
  kind: ImageKindName,
  level: ImageLevelName,
  output: Output,
): Promise<{ readonly boot: BootReference; readonly ima: ImaReference }> {
  const { buildImage } = await import("../../../lab/image/build.ts")
  const { imageReferences } = await import("../../../lab/reference/image-references.ts")
  const progress = output.progress()
  const onProgress = ({ step, done, total }: { readonly step: string; readonly done: number; readonly total: number }): void =>
    progress.update(step, done, total)
  try {
    return await imageReferences(await buildImage({ kind, level, onProgress }), onProgress)
  } finally {
    progress.end()
  }
}

export async function writeReferences(
  folder: string,
  { boot, ima }: { readonly boot: BootReference; readonly ima: ImaReference },
): Promise<WrittenReferences> {
  const write = async (name: string, reference: Reference): Promise<{ digest: Digest; file: string }> => {
    const file = join(folder, name)
    await writeFileDurably(file, `${JSON.stringify(reference, null, 2)}\n`)
    return { digest: referenceDigest(reference), file }
  }
  return { boot: await write("boot-reference.json", boot), ima: await write("ima-reference.json", ima) }
}

export function showWritten({ boot, ima }: WrittenReferences, output: Output): void {
  output.table(
    ["reference", "digest, for the policy", "file"],
    [
      ["boot", boot.digest, boot.file],
      ["ima", ima.digest, ima.file],
    ],
  )
}

async function loadReference(file: string): Promise<Reference> {
  return parseReference(await readFileBounded(file, maxReferenceBytes))
}

function labelled(reference: Reference): ReadonlyArray<readonly [string, string]> {
  const common = [
    ["kind", reference.kind],
    ["name", reference.name],
    ["made", reference.created],
    ["expires", reference.expires],
  ] as const
  if (reference.kind === "ima") {
    const { path, rules, before, replaceable } = reference.imaPolicy
    const count = rules.split("\n").filter((line) => /^\s*[^#\s]/.test(line)).length
    return [
      ...common,
      ["policy", `${path} ${digestOf(encodeUtf8(rules))}, ${count} rules, after ${before.length} other entries, replaceable ${replaceable}`],
    ]
  }
  const { appliance } = reference
  return [
    ...common,
    ["firmware", `locality ${reference.startupLocality}, Secure Boot ${reference.secureBoot}`],
    ...reference.commandLines.map(({ pcr, text }) => ["command", `register ${pcr}: ${text}`] as const),
    [
      "system",
      appliance === "none"
        ? "its builder states nothing (level administered)"
        : Object.entries({ ...appliance, verity: appliance.verity.map(({ parameter, rootHash }) => `${parameter}=${rootHash}`).join(" ") })
            .map(([fact, value]) => `${fact} ${value}`)
            .join(", "),
    ],
  ]
}

function summaryOf(reference: Reference): object {
  const { kind, name, created, expires } = reference
  if (reference.kind === "boot") return { kind, name, created, expires, registers: reference.registers, commandLines: reference.commandLines }
  return { kind, name, created, expires, files: Object.keys(reference.files).length, imaPolicy: reference.imaPolicy }
}

function showBoot({ registers }: BootReference, output: Output): void {
  output.table(
    ["register", "event", "what", "digests"],
    registers.flatMap((register): ReadonlyArray<readonly Cell[]> => {
      if ("any" in register) return [[register.pcr, { text: "any", tone: "warn" }, register.any, ""]]
      if (register.events.length === 0) return [[register.pcr, { text: "none", tone: "dim" }, "", ""]]
      return register.events.map(({ type, digests, description }) => [register.pcr, type, description, digests.join(" or ")])
    }),
  )
}

function showIma({ files, buffers, violationClasses }: ImaReference, all: boolean, output: Output): void {
  const entries = Object.entries(files).toSorted(([, [a = ""]], [, [b = ""]]) => (a < b ? -1 : 1))
  const shown = all ? entries : entries.slice(0, fewFiles)
  output.table(
    ["paths", "digest"],
    shown.map(([digest, paths]) => [paths.join(", "), digest]),
  )
  if (shown.length < entries.length) output.line(`and ${entries.length - shown.length} more files; --files lists all ${entries.length}`, "dim")
  for (const [name, digests] of Object.entries(buffers)) output.table([`buffer ${name}`], [[digests.join(" or ")]])
  for (const [name, prefixes] of Object.entries(violationClasses)) output.table([`violations allowed as ${name}`], [[prefixes.join(", ")]])
}

const fewFiles = 20
