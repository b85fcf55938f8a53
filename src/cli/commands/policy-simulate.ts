import type { Command } from "commander"
import { concatBytes } from "../../bytes/compare.ts"
import { parseHex } from "../../bytes/text.ts"
import { EvidenceError } from "../../evidence/errors.ts"
import { withCachedCollateral } from "../../evidence/collateral/cache.ts"
import { reportDataBytes, sessionDigestBytes } from "../../evidence/report-data.ts"
import { verifyHost } from "../../evidence/host/verify.ts"
import type { TpmIdentity } from "../../evidence/tpm/claims.ts"
import { parseAttest } from "../../evidence/tpm/format.ts"
import type { TeeEvidence } from "../../evidence/tee/format.ts"
import { type GenuineTee, verifyTee } from "../../evidence/tee/verify.ts"
import { type Simulation, simulate } from "../../policy/appraise.ts"
import { tallyApprovals } from "../../policy/approval.ts"
import { hostRequirementOf, type Machine, own, type Policy } from "../../policy/document.ts"
import { hostExpectationOf, teeExpectationOf } from "../../policy/expectations.ts"
import { tallyText } from "../../policy/explain.ts"
import type { Finding } from "../../policy/findings.ts"
import type { References } from "../../policy/reference.ts"
import { insecureLaboratory } from "../connect.ts"
import { loadAzureEvidence } from "../azure-file.ts"
import { loadConsents } from "../consent-file.ts"
import { enrolmentOfKey, loadEnrolments, loadHostEvidence } from "../evidence-file.ts"
import { recogniseEvidence, unknownEvidence } from "../evidence-form.ts"
import { RefusedError, UsageError } from "../exit.ts"
import type { Output } from "../output.ts"
import { demandGoodPolicy, loadReferenceFiles } from "../policy-file.ts"
import { loadTeeEvidence } from "../tee-file.ts"
import { collateralFolder } from "./collateral.ts"

interface SimulateOptions {
  readonly job?: string
  readonly reference: readonly string[]
  readonly approval: readonly string[]
  readonly enrolled?: string
  readonly collateral?: string
  readonly at?: string
}

/** Would this machine be let in? Judged by the functions that a manager judges with, over evidence that was recorded. */
export function registerSimulate(command: Command, output: Output): void {
  command
    .command("simulate")
    .argument("<file>", "policy, YAML or JSON")
    .argument("<evidence...>", "recorded evidence of machines, one each: what perun evidence verify reads")
    .option("--job <job>", "judge for this job only (default: for each)")
    .option("--reference <file>", "reference document that the policy names; again for each", collect, [])
    .option("--approval <file>", "signature over the policy; again for each: say whether it would be active too", collect, [])
    .option("--enrolled <file>", "what perun host list --json printed: which key was proved to live in which TPM")
    .option("--collateral <file>", "what the processor's maker says of the platform, as perun collateral fetch --out writes it")
    .option("--at <time>", "judge at this time, UTC (default: now)")
    .description(
      "say whether machines would be let in, by recorded evidence, and what stands against it; exit 0 only if all would, for every job asked about",
    )
    .action(async (file: string, paths: readonly string[], options: SimulateOptions) => {
      const time = parseTime(options.at)
      const { policy, digest } = await demandGoodPolicy(file, options.reference, output, time)
      const references = (await loadReferenceFiles(options.reference)).byDigest
      const jobs = options.job === undefined ? Object.keys(policy.jobs) : [options.job]
      if (jobs.some((job) => !Object.hasOwn(policy.jobs, job))) throw new UsageError(`the policy has no job ${jobs.join()}`)
      const enrolments = options.enrolled === undefined ? [] : await loadEnrolments(options.enrolled)
      const verdicts: Verdict[] = []
      for (const path of paths)
        for (const job of jobs)
          verdicts.push({
            evidence: path,
            job,
            ...(await judge(path, job, { policy, references, time, enrolments, collateral: options.collateral })),
          })
      const signatures = (await loadConsents(options.approval)).map(({ signature }) => signature)
      const tally = options.approval.length === 0 ? undefined : tallyApprovals(policy, signatures)
      const standing = tally === undefined ? {} : { active: tally.satisfied, signed: tally.signed, missing: tally.missing }
      const refused = verdicts.filter(({ outcome }) => outcome !== "would-be-granted")
      output.event({
        ...(refused.length === 0 && tally?.satisfied !== false ? { ok: true } : { event: "simulated" }),
        digest,
        at: time.toISOString(),
        verdicts,
        ...standing,
      })
      for (const verdict of verdicts) showVerdict(verdict, policy, output)
      if (tally !== undefined) for (const line of ["With these signatures", ...tallyText(tally).split("\n")]) output.line(line)
      output.line("recorded evidence says nothing about a machine now: a manager asks for fresh evidence over a nonce of its own", "dim")
      if (refused.length > 0)
        throw new RefusedError(`would not be let in: ${refused.map(({ evidence, job }) => `${evidence} for ${job}`).join(", ")}`)
      if (tally?.satisfied === false)
        throw new RefusedError(`would be let in, but the policy is not active: signatures of ${tally.missing.join(", ")} are missing`)
    })
}

interface Verdict {
  readonly evidence: string
  readonly job: string
  readonly outcome: Simulation["outcome"] | "not-genuine" | "not-judged"
  readonly insecureLaboratory: boolean
  readonly findings: readonly Finding[]
  /** What was wrong with evidence that is not genuine, or why it cannot be judged. */
  readonly reason?: string
}

interface Ground {
  readonly policy: Policy
  readonly references: References
  readonly time: Date
  readonly enrolments: readonly TpmIdentity[]
  readonly collateral: string | undefined
}

async function judge(path: string, job: string, ground: Ground): Promise<Omit<Verdict, "evidence" | "job">> {
  const { policy, references, time } = ground
  const machine = own(policy.machines, own(policy.jobs, job)?.machine ?? "")
  if (machine === undefined) throw new TypeError("internal: a checked policy lacks the machine of a job")
  const notJudged = (reason: string): Omit<Verdict, "evidence" | "job"> => ({
    outcome: "not-judged",
    insecureLaboratory: false,
    findings: [],
    reason,
  })
  if (machine.level === "enclave" && machine.guest !== "none") return notJudged("that a guest's TPM is inside this TEE shows in a session only")
  const requirement = hostRequirementOf(machine)
  const unknown = requirement === undefined ? [] : [requirement.boot.reference, requirement.ima.reference].filter((digest) => !references.has(digest))
  if (unknown.length > 0) return notJudged(`give the reference ${unknown.join(" and ")} with --reference`)
  try {
    const evidence = await verified(path, machine, ground)
    const { outcome, findings, pieces } = simulate(evidence, { policy, job, references, time })
    return { outcome, findings, insecureLaboratory: pieces.some(({ laboratoryRoot }) => laboratoryRoot !== undefined) }
  } catch (error) {
    // What is wrong with one machine's evidence is told beside it, so that the others are judged too; a file that cannot be read at all ends the command.
    if (!(error instanceof EvidenceError)) throw error
    return { outcome: "not-genuine", insecureLaboratory: false, findings: [], reason: `${error.message} [${error.code}]` }
  }
}

/** Genuine evidence of whatever session. */
async function verified(path: string, machine: Machine, ground: Ground): Promise<Parameters<typeof simulate>[0]> {
  const { references, time, enrolments, collateral } = ground
  switch (await recogniseEvidence(path)) {
    case "azure-vtpm": {
      const { evidence } = await loadAzureEvidence(path, collateral)
      return { tee: await verifiedTee(path, evidence, machine, time) }
    }
    case "host": {
      const { bundle } = await loadHostEvidence(path)
      const requirement = hostRequirementOf(machine)
      if (requirement === undefined) throw new EvidenceError("surplus-piece", "the machine is a TEE, and this is evidence of a TPM", { path })
      const identity = enrolmentOfKey(enrolments, bundle) ?? "unproved"
      const extraData = parseAttest(bundle.quote).extraData
      return { host: verifyHost(bundle, { ...hostExpectationOf(requirement, references), identity, extraData, previous: "none" }) }
    }
    case "tee": {
      const given = await loadTeeEvidence(path, collateral === undefined ? {} : { collateral })
      if (given === undefined) throw unknownEvidence(path)
      return { tee: await verifiedTee(path, given, machine, time) }
    }
  }
}

async function verifiedTee(path: string, given: TeeEvidence, machine: Machine, time: Date): Promise<GenuineTee> {
  if (machine.level !== "enclave")
    throw new EvidenceError("surplus-piece", "the machine is a host with a TPM, and this is evidence of a TEE", { path })
  const expectation = teeExpectationOf(machine, time)
  const evidence = await withCachedCollateral(collateralFolder(), given, { roots: (of) => expectation(of).roots, time: time.getTime() })
  // What it was made for is not known here, so it is held against what it carries itself, as a host's quote is.
  const asSigned = verifyTee(evidence, { ...expectation(evidence), reportData: "as-signed" })
  const reportData = asSigned.kind === "azure-vtpm" ? sessionOf(evidence) : parseHex(asSigned.tee.claims.reportData)
  return verifyTee(evidence, { ...expectation(evidence), reportData: reportData ?? "as-signed" })
}

/** Report data in whose place the virtual TPM's quote carries a session's digest; undefined where it carries something else. */
function sessionOf(evidence: TeeEvidence): Uint8Array | undefined {
  const digest = evidence.kind === "azure-vtpm" ? parseAttest(evidence.quote.attest).extraData : new Uint8Array()
  return digest.length === sessionDigestBytes ? concatBytes(digest, new Uint8Array(reportDataBytes - digest.length)) : undefined
}

function showVerdict({ evidence, job, outcome, findings, reason, insecureLaboratory: isLaboratory }: Verdict, policy: Policy, output: Output): void {
  const question = `would ${evidence} be let in for ${job}, on ${own(policy.jobs, job)?.machine ?? ""}?`
  if (isLaboratory) output.line(`${insecureLaboratory}: ${evidence} chains to a laboratory root`, "warn")
  if (outcome === "would-be-granted") output.line(`${question} yes`, "good")
  else output.line(`${question} no: ${reason ?? `${findings.filter(({ effect }) => effect === "refusal").length} findings stand against it`}`, "bad")
  for (const { code, effect, subject, found, expected, advice } of findings)
    output.line(`  ${code} ${subject}: found ${found}, expected ${expected}; ${advice}`, effect === "refusal" ? "bad" : "dim")
}

function parseTime(text: string | undefined): Date {
  const time = text === undefined ? new Date() : new Date(text)
  if (Number.isNaN(time.getTime())) throw new UsageError(`--at wants a time like 2026-11-22T00:00:00Z, found ${text ?? ""}`)
  return time
}

function collect(text: string, before: readonly string[]): readonly string[] {
  return [...before, text]
}
