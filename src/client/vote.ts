import type { KeyObject } from "node:crypto"
import { signStatement } from "../pki/statement.ts"
import { releaseTerms, signingKeys, stakeholderOfKey } from "../policy/approval.ts"
import { own, parsePolicyValue, type Policy, policyDigest } from "../policy/document.ts"
import { type CheckFindings, signCheckReport, verifyCheckReport } from "../protocol/check-report.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { demandManagerOf } from "../protocol/manager-attestation.ts"
import type { OutputView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { voteDigest } from "../protocol/statements.ts"
import type { ManagerConnection } from "./connection.ts"

/** An output as a voter is shown it: the manager's answers, held against each other and against the policy that the output's own digest names. */
export interface Ballot {
  readonly output: OutputView
  /** Whom the policy itself gives the output to. */
  readonly to: readonly string[]
  readonly policy: Policy
  /** The machine that made it. */
  readonly host: string
  /** The voter's name in the policy. */
  readonly voter: string
  /** Whether the voter itself has signed that policy. */
  readonly policySigned: boolean
}

/** What of a connection a vote needs. */
export type VoterConnection = Pick<ManagerConnection, "call" | "manager" | "ownKey">

/**
 * Fetches all that a vote is about. What the policy says is read from the policy, whose digest is checked; what the manager says of run and output must agree, and it must
 * be one that the policy names, for a vote rests on its word for what happened.
 * @throws {ProtocolError} `not-found`, `not-permitted`, `policy-withdrawn`, `wrong-digest`, `wrong-manager`, `contradicting`, `wrong-check`
 */
export async function fetchBallot(connection: VoterConnection, id: string): Promise<Ballot> {
  const { outputs } = await connection.call(routes.listOutputs, { query: {} })
  const output = outputs.find((view) => view.output === id)
  if (output === undefined) throw new ProtocolError("not-found", `no output ${id} among those of your policies; perun output list shows them`)
  if (output.state === "locked") throw new ProtocolError("policy-withdrawn", "an owner withdrew its consent, and what was derived is locked with it")
  const run = await connection.call(routes.getRun, { params: { run: output.run } })
  const view = await connection.call(routes.getPolicy, { params: { digest: output.policy } })
  const policy = parsePolicyValue(view.policy)
  const digest = policyDigest(policy)
  if (digest !== output.policy) throw new ProtocolError("wrong-digest", `the manager sent the policy ${digest} instead of ${output.policy}`)
  demandManagerOf(policy.manager, connection.manager)
  const job = own(policy.jobs, output.job)
  const terms = job === undefined ? undefined : releaseTerms(job, output.name)
  if (terms === undefined) throw new ProtocolError("contradicting", `the policy has no output ${output.name} of a job ${output.job}`)
  demandSame("recipients", output.to.toSorted().join(", "), terms.to.toSorted().join(", "))
  demandSame("run", run.run, output.run)
  demandSame("policy", run.policy, output.policy)
  demandSame("job", run.job, output.job)
  demandSame("evidence", run.evidence, output.evidence)
  demandSame("laboratory", String(run.laboratory), String(output.laboratory))
  const voter = stakeholderOfKey(policy, connection.ownKey)
  if (voter === undefined) throw new ProtocolError("not-permitted", `the policy names no party with the key ${connection.ownKey}`)
  for (const { by, report } of output.checks) verifyCheckReport(policy, by, voteDigest(output), report)
  const signed = signingKeys(
    "policy",
    digest,
    view.approvals.map(({ signature }) => signature),
  )
  return { output, to: terms.to, policy, host: run.host ?? "", voter, policySigned: signed.has(connection.ownKey) }
}

/**
 * Signs a vote for exactly what `ballot` holds and hands it in; a checker with what it checked.
 * @throws {ProblemError} as the manager answers, `wrong-signature` where its own records say otherwise
 * @throws {ProtocolError} `contradicting` when its answer is about something else
 */
export async function castVote(
  connection: VoterConnection,
  { output }: Ballot,
  privateKey: KeyObject,
  findings?: CheckFindings,
): Promise<OutputView> {
  const digest = voteDigest(output)
  const signature = signStatement("vote", digest, privateKey)
  const body = { signature, ...(findings === undefined ? {} : { report: signCheckReport(findings, digest, privateKey) }) }
  const view = await connection.call(routes.voteOutput, { params: { output: output.output }, body })
  if (voteDigest(view) !== digest) throw new ProtocolError("contradicting", "the manager answered about another output than the one voted on")
  return view
}

function demandSame(what: string, found: string | undefined, expected: string): void {
  if (found === expected) return
  throw new ProtocolError(
    "contradicting",
    `${what}: the manager says ${found ?? "nothing"} in one place and ${expected} in another; nothing was signed`,
  )
}
