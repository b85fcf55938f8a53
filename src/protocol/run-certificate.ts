import { z } from "zod"
import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { parseHex } from "../bytes/text.ts"
import { cosignedAt, type SignedCheckpoint, verifyCheckpoint } from "../log/checkpoint.ts"
import { leafHash, verifyInclusion } from "../log/merkle.ts"
import { maxNoteBytes, type NoteKey } from "../log/note.ts"
import { statementSignatureSchema, verifyStatement, type StatementSignature } from "../pki/statement.ts"
import { releaseTerms, stakeholderOfKey, tallyApprovals, tallyRelease, type Tally } from "../policy/approval.ts"
import { checkPolicy } from "../policy/check.ts"
import { noDerivations } from "../policy/derivation.ts"
import { own, parsePolicyValue, policyDigest, type Job, type Level, type Policy } from "../policy/document.ts"
import { demandReport, type SignedCheckReport, signedCheckReportSchema } from "./check-report.ts"
import { ProtocolError } from "./errors.ts"
import { metricValuesSchema, receiptSchema, signedManagerDescriptionSchema, type ManagerDescription, type Receipt } from "./messages.ts"
import { chainMetrics, noMetrics } from "./metrics.ts"
import { logKeyOf, receiptDigest, receiptLeaf } from "./receipts.ts"
import { voteDigest } from "./statements.ts"
import { documentSchema, idSchema, parseMessage } from "./wire.ts"

/**
 * A run certificate: one document that says of a model which inputs, code, policy, machine and votes it came from, and proves each of it by a signature that the reader can check without
 * asking anybody: the parties' own over policy and votes, the manager's over its log. Nothing in it is secret to the policy's parties.
 */

/** Receipts of one run: 32 outputs with 256 hand-outs each, and every signature of 256 parties, would fit. */
const maxReceipts = 20_000
/** Largest document; the policy is 1 MB at most. */
export const maxCertificateBytes = 32 * 1024 * 1024

const signed = z.strictObject({ signature: statementSignatureSchema, report: signedCheckReportSchema.exactOptional() })

export const runCertificateSchema = z.strictObject({
  perun: z.literal(1),
  kind: z.literal("run-certificate"),
  run: idSchema,
  manager: signedManagerDescriptionSchema,
  /** Of the manager's log; every proof here leads to it. */
  checkpoint: z.string().max(maxNoteBytes),
  policy: documentSchema,
  /** Signatures over the policy, a checker's with its report. */
  approvals: z.array(signed).max(256),
  /** By their place in the log, ascending. */
  receipts: z
    .array(
      z.strictObject({
        index: z.int().min(0),
        receipt: receiptSchema,
        proof: z.array(z.string().regex(/^[0-9a-f]{64}$/)).max(64),
      }),
    )
    .max(maxReceipts),
  /** Votes on each output that the receipts name. */
  outputs: z.array(z.strictObject({ output: idSchema, votes: z.array(signed).max(256) })).max(256),
  /** What the run reported, in its order; left out where whoever made the certificate does not show it. */
  metrics: z.array(metricValuesSchema).max(1_000_000).exactOptional(),
})

export type RunCertificate = z.output<typeof runCertificateSchema>

/** @throws {MalformedError} */
export function parseRunCertificate(input: Uint8Array | string): RunCertificate {
  return parseMessage(runCertificateSchema, input, maxCertificateBytes)
}

/** Whom the reader knows already; everything else follows from signatures. */
export interface CertificatePins {
  /** Keys of managers that the reader trusts to have checked the machines, `ssh-ed25519 …`; one of them must have signed. */
  readonly managers: readonly string[]
  /** Keys of parties by their name in the policy: each must itself have signed the policy with it. */
  readonly parties?: Readonly<Record<string, string>>
  /** Witnesses whose cosignature counts; without any, none does. */
  readonly witnesses?: readonly NoteKey[]
}

/** What a certificate proves. */
export interface RunProof {
  readonly run: string
  readonly job: string
  readonly study: string
  readonly purpose: string
  readonly policy: Digest
  readonly supersedes: "none" | Digest
  readonly manager: Pick<ManagerDescription, "key" | "instance" | "evidence">
  /** `witnesses`: those that the reader named and that have cosigned this very checkpoint. */
  readonly log: { readonly size: number; readonly witnesses: readonly string[] }
  /** Parties whose own signature over the policy is here, with the key that made it. */
  readonly signedBy: readonly { readonly name: string; readonly key: string; readonly checked: boolean }[]
  readonly inputs: readonly { readonly artifact: string; readonly kind: string; readonly owner: string; readonly manifest: Digest }[]
  readonly secrets: readonly string[]
  readonly program: readonly string[]
  readonly machine: {
    readonly name: string
    readonly level: Level
    readonly host: string
    readonly evidence: Digest
    readonly notes: readonly string[]
  }
  /** INSECURE LABORATORY. */
  readonly laboratory: boolean
  readonly times: { readonly activated: string; readonly queued: string; readonly released: string; readonly ended: string }
  /** How it ended: `succeeded`, `failed`, or why its lease was taken. */
  readonly end: string
  readonly metrics: { readonly count: number; readonly digest: Digest; readonly shown: boolean }
  readonly outputs: readonly OutputProof[]
  readonly withdrawn: readonly { readonly by: string; readonly at: string }[]
  readonly refusals: number
  readonly renewals: number
}

export interface OutputProof {
  readonly name: string
  /** Digest of its manifest, which names the ciphertext: what `perun open --verify-only` prints of it. */
  readonly manifest: Digest
  readonly sizeBytes: number
  readonly votes: readonly string[]
  readonly missing: readonly string[]
  /** To whom it was handed out, and when first. */
  readonly released: readonly { readonly to: string; readonly at: string }[]
}

/**
 * Judges a certificate with nothing but itself and the reader's pins. No clock is read: what it says is past.
 * @throws {ProtocolError} `wrong-manager`, `wrong-run-certificate`, `votes-missing`, `check-missing`, `wrong-check`, `wrong-metrics`
 * @throws {LogError} `wrong-checkpoint`, `wrong-proof`; {PkiError} for signatures that do not verify; {PolicyError}; {MalformedError}
 */
export function verifyRunCertificate(certificate: RunCertificate, pins: CertificatePins): RunProof {
  const { run } = certificate
  const manager = demandManager(certificate, pins)
  const policy = parsePolicyValue(certificate.policy)
  const digest = policyDigest(policy)
  if (digest !== digestOfJson(certificate.policy)) throw wrong("policy", "its digest depends on who reads it")
  if (checkPolicy(policy).length > 0) throw wrong("policy", "no manager may take such a policy")
  demandPolicyOf(policy, manager)
  const signedBy = demandApprovals(policy, digest, certificate.approvals, pins)
  const log = verifyCheckpoint(certificate.checkpoint, logKeyOf(manager))
  const receipts = new ReceiptsOfRun(certificate, digest, log)
  const activated = receipts.only("policy-activated")
  const queued = receipts.only("run-queued")
  const released = receipts.only("key-released")
  const ended = receipts.end()
  inOrder([activated, queued, released, ended])
  const job = own(policy.jobs, queued.receipt.job ?? "")
  if (job === undefined || released.receipt.job !== queued.receipt.job) throw wrong("receipts", "the run is of no job of the policy")
  const machine = demandMachine(policy, job, released.receipt)
  demandSame("receipts", "keys of", released.receipt.artifacts ?? [], Object.keys(job.inputs))
  demandSame("receipts", "secrets", released.receipt.secrets ?? [], Object.keys(job.secrets ?? {}))
  demandMetrics(certificate.metrics, ended.receipt)
  return {
    run,
    job: queued.receipt.job ?? "",
    study: policy.study,
    purpose: policy.purpose,
    policy: digest,
    supersedes: policy.supersedes,
    manager: { key: manager.key, instance: manager.instance, evidence: manager.evidence },
    log: { size: log.size, witnesses: (pins.witnesses ?? []).filter((key) => cosignedAt(log.note, key).length > 0).map(({ name }) => name) },
    signedBy,
    inputs: Object.keys(job.inputs).flatMap((artifact) => {
      const known = own(policy.artifacts, artifact)
      return known === undefined ? [] : [{ artifact, kind: known.kind, owner: known.owner, manifest: known.manifest }]
    }),
    secrets: Object.keys(job.secrets ?? {}),
    program: job.run,
    machine,
    laboratory: [released, ended, ...receipts.of("output-received")].some(({ receipt }) => receipt.laboratory === true),
    times: { activated: activated.receipt.at, queued: queued.receipt.at, released: released.receipt.at, ended: ended.receipt.at },
    end: ended.receipt.code ?? ended.receipt.kind,
    metrics: { ...metricsOf(ended.receipt), shown: certificate.metrics !== undefined },
    outputs: outputsOf(certificate, { policy, digest, job: queued.receipt.job ?? "", released, ended, receipts }),
    withdrawn: receipts.of("policy-withdrawn").map(({ receipt }) => ({ by: receipt.by ?? "", at: receipt.at })),
    refusals: receipts.of("release-refused").length,
    renewals: receipts.of("lease-renewed").length,
  }
}

function wrong(path: string, message: string): ProtocolError {
  return new ProtocolError("wrong-run-certificate", message, { path })
}

/** @throws {ProtocolError} `wrong-manager` */
function demandManager({ manager: { description, signature } }: RunCertificate, { managers }: CertificatePins): ManagerDescription {
  if (!managers.includes(description.key))
    throw new ProtocolError("wrong-manager", `it is of the manager with the key ${description.key}, whom you have not pinned`, { path: "manager" })
  if (signature.key !== description.key || verifyStatement("manager", digestOfJson(description), signature) !== description.key)
    throw new ProtocolError("wrong-manager", "the description is not signed by its own key", { path: "manager.signature" })
  return description
}

/** A policy names its manager by its key, or says what it must prove; the second is judged when it is asked, not here. */
function demandPolicyOf(policy: Policy, { key, evidence }: ManagerDescription): void {
  if ("insecureUnattested" in policy.manager) {
    if (policy.manager.insecureUnattested.key !== key) throw wrong("policy.manager", "the policy names another manager")
  } else if (evidence === null) throw wrong("policy.manager", "the policy demands a manager that proves itself, and this one does not")
}

interface Signed {
  readonly signature: StatementSignature
  readonly report?: SignedCheckReport
}

/** Every signature here must be good: one that is not is no oversight. */
function demandApprovals(policy: Policy, digest: Digest, approvals: readonly Signed[], { parties = {} }: CertificatePins): RunProof["signedBy"] {
  const signedBy = approvals.map((approval) => signerOf(policy, "policy", digest, approval))
  const tally = tallyApprovals(
    policy,
    approvals.map(({ signature }) => signature),
  )
  if (!tally.satisfied) throw wrong("approvals", `signatures are missing: ${missingIn(tally)}`)
  for (const [name, key] of Object.entries(parties))
    if (!signedBy.some((one) => one.name === name && one.key === key))
      throw wrong("approvals", `${name} has not signed the policy with the key that you pin`)
  return signedBy
}

function signerOf(policy: Policy, purpose: "policy" | "vote", digest: Digest, { signature, report }: Signed): RunProof["signedBy"][number] {
  const key = verifyStatement(purpose, digest, signature)
  const name = stakeholderOfKey(policy, key)
  if (name === undefined) throw wrong(purpose === "policy" ? "approvals" : "outputs", `${key} is no party of the policy`)
  demandReport(policy, name, digest, report)
  return { name, key, checked: report !== undefined }
}

function missingIn(tally: Tally): string {
  return [...tally.missing, ...tally.originsMissing].join(", ")
}

type PlacedReceipt = Pick<RunCertificate["receipts"][number], "index" | "receipt">

/** Receipts that are about the run or its policy, each proved to stand in the log. */
class ReceiptsOfRun {
  readonly #receipts: readonly PlacedReceipt[]

  constructor({ receipts, run }: RunCertificate, policy: Digest, { size, root }: SignedCheckpoint) {
    let last = -1
    for (const { index, receipt, proof } of receipts) {
      if (index <= last) throw wrong("receipts", "they are not in the order of the log")
      last = index
      if (receipt.policy !== policy || (receipt.run !== undefined && receipt.run !== run))
        throw wrong("receipts", `receipt ${index} is about another run or policy`)
      const leaf = leafHash(receiptLeaf(index, receiptDigest(receipt)))
      verifyInclusion({ index, size, leaf, proof: proof.map((hash) => parseHex(hash, "proof")), root })
    }
    this.#receipts = receipts
  }

  of(kind: Receipt["kind"]): readonly PlacedReceipt[] {
    return this.#receipts.filter(({ receipt }) => receipt.kind === kind)
  }

  /** @throws {ProtocolError} `wrong-run-certificate` where there is none, or more than one */
  only(kind: Receipt["kind"]): PlacedReceipt {
    return one(this.of(kind), kind)
  }

  end(): PlacedReceipt {
    return one([...this.of("run-finished"), ...this.of("lease-ended")], "run-finished or lease-ended")
  }
}

function one(found: readonly PlacedReceipt[], what: string): PlacedReceipt {
  const [first, ...more] = found
  if (first === undefined || more.length > 0) throw wrong("receipts", `expected one receipt ${what}, found ${found.length}`)
  return first
}

function inOrder(receipts: readonly PlacedReceipt[]): void {
  if (receipts.some(({ index }, at) => at > 0 && index <= (receipts[at - 1]?.index ?? 0)))
    throw wrong("receipts", "what happened did not happen in this order")
}

function demandMachine(policy: Policy, { machine: name }: Job, { host, evidence, findings = [] }: Receipt): RunProof["machine"] {
  const machine = own(policy.machines, name)
  if (machine === undefined || host === undefined || evidence === undefined) throw wrong("receipts", "no machine got the keys")
  return { name, level: machine.level, host, evidence, notes: findings.map(({ code, subject, found }) => `${code}: ${subject}: ${found}`) }
}

function demandSame(path: string, what: string, found: readonly string[], expected: readonly string[]): void {
  if (found.toSorted().join("\n") === expected.toSorted().join("\n")) return
  throw wrong(path, `${what} ${found.join(", ") || "nothing"} were released, the job asks for ${expected.join(", ") || "none"}`)
}

function metricsOf({ metrics }: Receipt): { readonly count: number; readonly digest: Digest } {
  if (metrics === undefined) throw wrong("receipts", "the run's end says nothing of its metrics")
  return metrics
}

/** @throws {ProtocolError} `wrong-metrics` */
function demandMetrics(shown: RunCertificate["metrics"], ended: Receipt): void {
  const { count, digest } = metricsOf(ended)
  if (shown === undefined) return
  if (shown.length !== count || shown.reduce(chainMetrics, noMetrics) !== digest)
    throw new ProtocolError("wrong-metrics", "the metrics are not those that the run reported, in their order", { path: "metrics" })
}

interface OutputFacts {
  readonly policy: Policy
  readonly digest: Digest
  readonly job: string
  readonly released: PlacedReceipt
  readonly ended: PlacedReceipt
  readonly receipts: ReceiptsOfRun
}

function outputsOf({ run, outputs }: RunCertificate, facts: OutputFacts): readonly OutputProof[] {
  const received = facts.receipts.of("output-received")
  const ids = received.map(({ receipt }) => receipt.output)
  if (new Set(ids).size !== ids.length || ids.length !== outputs.length || outputs.some(({ output }) => !ids.includes(output)))
    throw wrong("outputs", "they are not those of the receipts")
  return received.map((placed) => outputProof(run, placed, outputs.find(({ output }) => output === placed.receipt.output)?.votes ?? [], facts))
}

function outputProof(run: string, placed: PlacedReceipt, votes: readonly Signed[], facts: OutputFacts): OutputProof {
  const { policy, digest, job, released, ended, receipts } = facts
  const { name, manifest, sizeBytes, output, laboratory = false } = placed.receipt
  const terms = name === undefined ? undefined : releaseTerms(own(policy.jobs, job) ?? noJob(), name)
  const { evidence } = released.receipt
  if (name === undefined || terms === undefined || manifest === undefined || sizeBytes === undefined || evidence === undefined)
    throw wrong("receipts", `receipt ${placed.index} is of no output of the job`)
  inOrder([released, placed, ended])
  const subject = voteDigest({ run, job, name, ciphertext: manifest, sizeBytes, policy: digest, evidence, laboratory })
  const voters = votes.map((vote) => signerOf(policy, "vote", subject, vote).name)
  const signatures = votes.map(({ signature }) => signature)
  const tally = tallyRelease(policy, job, name, { digest: subject, signatures }, noDerivations)
  const handedOut = receipts.of("output-released").filter(({ receipt }) => receipt.output === output)
  if (handedOut.length > 0 && !tally.satisfied)
    throw new ProtocolError("votes-missing", `${name} was released, and the votes of ${missingIn(tally)} are not here`, { path: "outputs" })
  for (const { receipt, index } of handedOut)
    if (!terms.to.includes(receipt.by ?? ""))
      throw wrong("receipts", `receipt ${index}: ${receipt.by ?? "nobody"} is not among those whom the policy gives ${name} to`)
  const first = new Map(handedOut.toReversed().map(({ receipt }) => [receipt.by ?? "", receipt.at]))
  return {
    name,
    manifest,
    sizeBytes,
    votes: [...new Set(voters)],
    missing: [...tally.missing],
    released: [...first].map(([to, at]) => ({ to, at })).toReversed(),
  }
}

function noJob(): never {
  throw wrong("receipts", "the run is of no job of the policy")
}

/** What no certificate proves: said wherever one is shown. */
export function notProved(proof: RunProof): readonly string[] {
  return [
    "that the program does what its name says: the code's owner and whoever reviewed it know",
    "times: they are the manager's",
    "that nothing else happened: whoever made the certificate chose the receipts, though it could change none; a withdrawal after it shows only in the log",
    ...(proof.inputs.length > 0 ? ["votes of parties behind inputs that were themselves derived: the manager counted them"] : []),
    proof.manager.evidence === null
      ? "what the manager runs: UNATTESTED MANAGER, known by its key alone"
      : "what the manager runs: parties judged its evidence when they gave it their keys; it is not in here",
    ...(proof.log.witnesses.length === 0 ? ["that others see the same log: no witness whom you named has cosigned this checkpoint"] : []),
    ...(proof.laboratory ? ["what machine it was: INSECURE LABORATORY, whoever holds its root can imitate it"] : []),
  ]
}

/** One line of a certificate as people read it. */
export interface ProofLine {
  readonly what: string
  readonly text: string
  /** Who vouches for it, by a signature that was checked. */
  readonly by: string
}

/** What was proved, line by line: the same in a terminal and on the page. */
export function proofLines(proof: RunProof): readonly ProofLine[] {
  const { manager, machine, times, metrics } = proof
  const log = "the manager's log"
  const lines: (readonly [string, string, string])[] = [
    ["study", `${proof.study}: ${proof.purpose}`, "the parties"],
    ["policy", proof.policy, "the parties"],
    ...proof.signedBy.map(
      ({ name, key, checked }) => ["signed", `${name}${checked ? ", a program, with a report of its checks" : ""}`, key] as const,
    ),
    ["job", `${proof.job}: ${proof.program.join(" ")}`, "the parties"],
    ...proof.inputs.map(({ artifact, kind, owner, manifest }) => ["input", `${artifact}, ${kind} of ${owner}: ${manifest}`, "the parties"] as const),
    ...proof.secrets.map((name) => ["secret", name, "the parties"] as const),
    ["run", proof.run, log],
    ["machine", `${machine.host}, as ${machine.name} of level ${machine.level}${proof.laboratory ? ", INSECURE LABORATORY" : ""}`, log],
    ["evidence", machine.evidence, log],
    ...machine.notes.map((note) => ["note", note, log] as const),
    ["keys", `released at ${times.released}; policy active since ${times.activated}`, log],
    ["end", `${proof.end} at ${times.ended}`, log],
    ["metrics", `${metrics.count} reports, ${metrics.digest}${metrics.shown ? ", shown here" : ""}`, log],
    ...proof.outputs.flatMap(({ name, manifest, sizeBytes, votes, missing, released }) => [
      ["output", `${name}: ${manifest}, ${sizeBytes} bytes of ciphertext`, log] as const,
      ["votes", `${votes.join(", ") || "nobody"}${missing.length === 0 ? "" : `; missing: ${missing.join(", ")}`}`, "the voters"] as const,
      ...released.map(({ to, at }) => ["given", `${name} to ${to} at ${at}`, log] as const),
    ]),
    ...proof.withdrawn.map(({ by, at }) => ["WITHDRAWN", `${by} at ${at}`, log] as const),
    [
      "log",
      `${proof.log.size} receipts of ${manager.instance}${proof.log.witnesses.length === 0 ? "" : `, seen by ${proof.log.witnesses.join(", ")}`}`,
      manager.key,
    ],
  ]
  return lines.map(([what, text, by]) => ({ what, text, by }))
}
