import { InvalidArgumentError, type Command } from "commander"
import { createFileDurably, readFileBounded } from "../../bytes/durable.ts"
import { isDigest, type Digest } from "../../bytes/digest.ts"
import { canonicalJsonBytes } from "../../bytes/json.ts"
import { documentOf, loadManifest, refuseOtherManager } from "../../client/deposit.ts"
import { parseIdentityCard } from "../../client/identity.ts"
import { updatesOfPolicy } from "../../client/reference-updates.ts"
import { reportsOfPolicy } from "../../client/reports.ts"
import { signStatement } from "../../pki/statement.ts"
import { tallyApprovals } from "../../policy/approval.ts"
import { differenceText, diffPolicies } from "../../policy/diff.ts"
import { type ArtifactKind, artifactKinds, type Level, levels, type Policy, type Role, roles } from "../../policy/document.ts"
import { parsePolicy } from "../../policy/parse.ts"
import { explainPolicy, explanationText } from "../../policy/explain.ts"
import { policyTemplate } from "../../policy/init.ts"
import { referenceDigest } from "../../policy/reference.ts"
import type { PolicyStatus, PolicyView, ReferenceUpdateView } from "../../protocol/messages.ts"
import { routes } from "../../protocol/routes.ts"
import { manifestDigest } from "../../sealing/manifest.ts"
import { loadAccept } from "../accept-file.ts"
import { showChecks } from "../check-file.ts"
import { loadConsents } from "../consent-file.ts"
import { demandConsent } from "../confirm.ts"
import { withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { RefusedError, UsageError } from "../exit.ts"
import { loadManagerPins } from "../home.ts"
import type { Cell, Output } from "../output.ts"
import { demandGoodPolicy, loadPolicyFile, loadReferenceFiles, policyNamed, showStatus } from "../policy-file.ts"
import { registerSignatures } from "./policy-signatures.ts"
import { registerSimulate } from "./policy-simulate.ts"
import { registerSign } from "./policy-sign.ts"

export function register(command: Command, output: Output): void {
  registerInit(command, output)
  registerReading(command, output)
  registerSign(command, output)
  registerSignatures(command, output)
  registerSimulate(command, output)
  registerManagerSteps(command, output)
}

interface InitOptions {
  readonly study: string
  readonly purpose?: string
  readonly party: readonly PartyArgument[]
  readonly artifact: readonly ArtifactArgument[]
  readonly managerKey?: string
  readonly level?: Level
  readonly accept?: string
  readonly endorsementKey: readonly Digest[]
  readonly laboratoryRoot: readonly Digest[]
  readonly boot?: string
  readonly ima?: string
  readonly expires?: string
  readonly out: string
}

function registerInit(command: Command, output: Output): void {
  command
    .command("init")
    .requiredOption("--study <name>", "name of the study")
    .option("--purpose <sentence>", "what it is for, and what leaves")
    .option(
      "--party <card:roles>",
      `a party: its identity.json and roles, e.g. clinic-a.json:data (${roles.join(", ")}); again for each`,
      collect(parseParty),
      [],
    )
    .option(
      "--artifact <name=kind:owner[:folder]>",
      "an artifact and the folder where it is sealed, e.g. records-a=dataset:clinic-a:sealed/a; again for each",
      collect(parseArtifact),
      [],
    )
    .option("--manager-key <key>", "the manager's key (default: of the one pinned last)")
    .option("--level <level>", `protection level of the machine: ${levels.join(", ")}`, parseLevel)
    .option("--accept <file>", "what the TEE of an enclave machine must prove: JSON with one alternative of accept, or a list of them")
    .option("--endorsement-key <digest>", "endorsement key of a machine that may run it; again for each", collect(parseDigestArgument), [])
    .option("--laboratory-root <digest>", "laboratory root that is accepted (INSECURE LABORATORY); again for each", collect(parseDigestArgument), [])
    .option("--boot <file>", "boot reference of the machine")
    .option("--ima <file>", "IMA reference of the machine")
    .option("--expires <time>", "UTC, e.g. 2027-06-30T00:00:00Z")
    .requiredOption("--out <file>", "policy file to write; must not exist")
    .description("write a draft with a comment at each choice; what is not known stands as FILL-IN")
    .action(async (options: InitOptions) => {
      if (options.accept !== undefined && options.level !== "enclave") throw new UsageError("--accept goes with --level enclave")
      const stakeholders = []
      for (const { card, roles: held } of options.party) {
        const { name, key, recipient } = parseIdentityCard(await readFileBounded(card, 65_536))
        stakeholders.push({ name, key, recipient, roles: held })
      }
      const artifacts = []
      for (const { name, kind, owner, folder } of options.artifact) {
        artifacts.push({ name, kind, owner, ...(folder === undefined ? {} : { manifest: manifestDigest((await loadManifest(folder)).manifest) }) })
      }
      const [pin] = options.managerKey === undefined ? await loadManagerPins() : []
      const managerKey = options.managerKey ?? pin?.key
      const references = await loadReferenceFiles([options.boot, options.ima].filter((path) => path !== undefined))
      const bootReference = references.list.find(({ kind }) => kind === "boot")
      const imaReference = references.list.find(({ kind }) => kind === "ima")
      const text = policyTemplate({
        study: options.study,
        ...(options.purpose === undefined ? {} : { purpose: options.purpose }),
        stakeholders,
        ...(managerKey === undefined ? {} : { managerKey }),
        ...(pin?.accept === undefined ? {} : { managerAccept: pin.accept }),
        artifacts,
        machine: {
          ...(options.level === undefined ? {} : { level: options.level }),
          ...(options.accept === undefined ? {} : { accept: await loadAccept(options.accept) }),
          ...(options.endorsementKey.length === 0 ? {} : { endorsementKeys: options.endorsementKey }),
          laboratoryRoots: options.laboratoryRoot,
          ...(bootReference === undefined ? {} : { bootReference: referenceDigest(bootReference) }),
          ...(imaReference === undefined ? {} : { imaReference: referenceDigest(imaReference) }),
        },
        ...(options.expires === undefined ? {} : { expires: options.expires }),
      })
      await createFileDurably(options.out, text)
      output.result({ ok: true, file: options.out }, () =>
        output.line(`wrote ${options.out}; fill in what says FILL-IN, then: perun policy check ${options.out}`, "good"),
      )
    })
}

function registerReading(command: Command, output: Output): void {
  command
    .command("check")
    .argument("<file>", "policy, YAML or JSON")
    .option("--reference <file>", "reference document that goes with it; again for each", collect(String), [])
    .description("find everything that is wrong with a policy: line, field, what to do")
    .action(async (file: string, options: { reference: readonly string[] }) => {
      const { digest } = await demandGoodPolicy(file, options.reference, output)
      output.result({ ok: true, digest, problems: [] }, () => output.line(`${file} is well formed and complete: ${digest}`, "good"))
    })
  command
    .command("explain")
    .argument("<file>", "policy, YAML or JSON")
    .option("--approval <file>", "signature of a party; again for each", collect(String), [])
    .description("say in words who sees what and when, what each level protects from, and whose signature is missing")
    .action(async (file: string, options: { approval: readonly string[] }) => {
      const { policy } = await loadPolicyFile(file)
      const signatures = (await loadConsents(options.approval)).map(({ signature }) => signature)
      const explanation = explainPolicy(policy, tallyApprovals(policy, signatures))
      output.result({ ok: true, ...explanation }, () => output.raw(explanationText(explanation)))
    })
  command
    .command("diff")
    .argument("<before>", "policy file")
    .argument("<after>", "policy file")
    .description("say what a successor changes: who gains, who loses, which fields differ")
    .action(async (before: string, after: string) => {
      const difference = diffPolicies((await loadPolicyFile(before)).policy, (await loadPolicyFile(after)).policy)
      output.result({ ok: true, ...difference }, () => output.raw(differenceText(difference)))
    })
}

/** Which secrets are at the manager, and which are still to be brought and by whom; nothing where the policy has none. */
function secretLines({ secrets = {} }: Policy, brought: readonly string[]): readonly string[] {
  const entries = Object.entries(secrets)
  if (entries.length === 0) return []
  const missing = entries.flatMap(([name, secret]) => ("owner" in secret && !brought.includes(name) ? [`${name} (${secret.owner})`] : []))
  const drawn = entries.flatMap(([name, secret]) => ("made" in secret ? [`${name} (the manager draws it)`] : []))
  const here = [...brought, ...drawn].join(", ") || "none yet"
  return [`secrets    ${here}${missing.length === 0 ? "" : `; to be brought: ${missing.join(", ")}`}`]
}

function registerManagerSteps(command: Command, output: Output): void {
  withManagerOption(command.command("submit"))
    .argument("<file>", "policy, YAML or JSON")
    .option("--reference <file>", "reference document that the policy names; again for each", collect(String), [])
    .description("propose a policy to the manager that it names, with its reference values")
    .action(async (file: string, options: ManagerOption & { reference: readonly string[] }) => {
      const { policy } = await demandGoodPolicy(file, options.reference, output)
      const { list } = await loadReferenceFiles(options.reference)
      const status = await withManager(options, output, (connection) => {
        refuseOtherManager(connection, policy)
        return connection.call(routes.submitPolicy, { body: { policy: documentOf(policy), references: list.map(documentOf) } })
      })
      output.result({ ok: true, ...status }, () => showStatus(status, output))
    })
  withManagerOption(command.command("status"))
    .argument("[policy]", "digest or file; all that name you when left out")
    .description("state of policies at the manager: whose signature is missing, whose key is deposited")
    .action(async (named: string | undefined, options: ManagerOption) => {
      if (named === undefined) {
        const { policies } = await withManager(options, output, (connection) => connection.call(routes.listPolicies))
        return output.result({ ok: true, policies }, () => output.table(["policy", "study", "state", "missing", "blockers"], policies.map(statusRow)))
      }
      const digest = await policyNamed(named)
      const view = await withManager(options, output, (connection) => connection.call(routes.getPolicy, { params: { digest } }))
      const reports = reportsOfPolicy(view, digest)
      const updates = updatesOfPolicy(view, digest)
      output.result({ ok: true, ...view }, () => {
        showStatus(view, output)
        output.line(`signed     ${view.approvals.map(({ stakeholder }) => stakeholder).join(", ") || "nobody"}`)
        showChecks(reports, output)
        output.line(`deposited  ${view.deposits.join(", ") || "nothing"}`)
        for (const line of secretLines(parsePolicy(canonicalJsonBytes(view.policy), "json").policy, view.secrets)) output.line(line)
        showReferences(updates, view.acceptedReferences, output)
        if (view.withdrawals.length > 0) output.line(`withdrawn  ${view.withdrawals.map(({ stakeholder }) => stakeholder).join(", ")}`, "bad")
      })
    })
  withManagerOption(command.command("fetch"))
    .argument("<digest>", "digest of a policy that the manager has")
    .requiredOption("--out <file>", "where it goes, as JSON; references beside it; must not exist")
    .description("get a proposed policy and its references, to read before you sign")
    .action(async (named: string, options: ManagerOption & { out: string }) => {
      const digest = parseDigestArgument(named)
      const view = await withManager(options, output, (connection) => connection.call(routes.getPolicy, { params: { digest } }))
      const { policy, digest: found } = parsePolicy(canonicalJsonBytes(view.policy), "json")
      if (found !== digest) throw new RefusedError(`the manager sent the policy ${found} instead of ${digest}`)
      await createFileDurably(options.out, `${JSON.stringify(policy, null, 2)}\n`)
      const files = [options.out]
      for (const [index, reference] of view.references.entries()) {
        const path = `${options.out}.reference-${index}.json`
        await createFileDurably(path, `${JSON.stringify(reference)}\n`)
        files.push(path)
      }
      output.result({ ok: true, digest, files }, () => output.line(`wrote ${files.join(", ")}`, "good"))
    })
  withManagerOption(command.command("withdraw"))
    .argument("<policy>", "digest or file")
    .description("take your consent back, at once, alone and for good: leases end, keys of your artifacts and what came of them are locked")
    .option("--yes", "withdraw without being asked, for scripts")
    .action(async (named: string, options: ManagerOption & { yes?: true }) => {
      const digest = await policyNamed(named)
      output.warn(`a withdrawal is for good: nothing can be released under ${digest} again`)
      await demandConsent(options.yes, "Withdraw?")
      const status = await withManager(
        options,
        output,
        (connection, identity) =>
          connection.call(routes.withdrawPolicy, { params: { digest }, body: { signature: signStatement("withdraw", digest, identity.privateKey) } }),
        { hold: "warn" },
      )
      output.result({ ok: true, ...status }, () => showStatus(status, output))
    })
}

/** What delegates have put in the place of the policy's own references. */
function showReferences(updates: readonly ReferenceUpdateView[], accepted: PolicyView["acceptedReferences"], output: Output): void {
  for (const { machine, piece, references } of accepted) output.line(`reference  ${machine} ${piece}: ${references.join(" or ")}`)
  if (updates.length === 0) return
  output.table(
    ["update", "machine", "piece", "to", "by", "at", "taken back"],
    updates.map(({ update, machine, piece, reference, by, at, withdrawn }) => [
      update,
      machine,
      piece,
      reference,
      by,
      at,
      withdrawn === undefined ? "" : { text: `by ${withdrawn.by}, ${withdrawn.at}`, tone: "warn" },
    ]),
  )
}

function statusRow({ digest, study, state, missing, blockers }: PolicyStatus): readonly Cell[] {
  return [digest, study, { text: state, tone: state === "active" ? "good" : "plain" }, missing.join(", "), blockers.join("; ")]
}

interface PartyArgument {
  readonly card: string
  readonly roles: readonly Role[]
}

function parseParty(text: string): PartyArgument {
  const match = /^(.+):([a-z,]+)$/.exec(text)
  const [, card = "", list = ""] = match ?? []
  const held = list.split(",").map((word) => roles.find((role) => role === word))
  if (match === null || held.includes(undefined)) throw new InvalidArgumentError(`expected CARD.json:ROLE[,ROLE] with roles of ${roles.join(", ")}`)
  return { card, roles: held.filter((role) => role !== undefined) }
}

interface ArtifactArgument {
  readonly name: string
  readonly kind: ArtifactKind
  readonly owner: string
  readonly folder?: string
}

function parseArtifact(text: string): ArtifactArgument {
  const [, name, word, owner, folder] = /^([^=]+)=([a-z]+):([a-z0-9-]+)(?::(.+))?$/.exec(text) ?? []
  const kind = artifactKinds.find((known) => known === word)
  if (name === undefined || owner === undefined || kind === undefined)
    throw new InvalidArgumentError(`expected NAME=KIND:OWNER[:FOLDER] with a kind of ${artifactKinds.join(", ")}`)
  return { name, kind, owner, ...(folder === undefined ? {} : { folder }) }
}

function parseLevel(text: string): Level {
  const level = levels.find((known) => known === text)
  if (level === undefined) throw new InvalidArgumentError(`must be one of ${levels.join(", ")}`)
  return level
}

function parseDigestArgument(text: string): Digest {
  if (!isDigest(text)) throw new InvalidArgumentError("expected sha256: and 64 lower-case hexadecimal digits")
  return text
}

function collect<T>(parse: (text: string) => T): (text: string, before: readonly T[]) => readonly T[] {
  return (text, before) => [...before, parse(text)]
}
