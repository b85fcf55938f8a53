import { type Digest, digestOfJson } from "../bytes/digest.ts"
import type { RequestBody, routes } from "../protocol/routes.ts"
import { own, type Job } from "../policy/document.ts"
import { artifactProblems, type SuccessionProblem } from "../policy/successors.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { RefusedError } from "../protocol/problem.ts"
import { type ManagerContext, pairKey, type Reader } from "./context.ts"
import { missingSecrets } from "./secrets.ts"
import { derivationsOf, type Standing, withdrawnKeysBehind } from "./standing.ts"

/** Why an artifact may not be used under a policy now; empty when it may. */
export function problemsOfArtifact(context: ManagerContext, reader: Reader, standing: Standing, artifact: string): readonly SuccessionProblem[] {
  const manifest = own(standing.policy.artifacts, artifact)?.manifest
  const withdrawnKeys = manifest === undefined ? new Set<string>() : withdrawnKeysBehind(context, reader, manifest)
  return artifactProblems(standing.policy, artifact, standing.signatures, derivationsOf(context, reader), {
    withdrawn: standing.withdrawn,
    withdrawnKeys,
  })
}

/** A party's own signature over this very policy. @throws {RefusedError} `owner-not-signed` */
export function ownerHasSigned({ approvals, withdrawn }: Standing, party: string): void {
  if (!approvals.some(({ stakeholder }) => stakeholder === party) || withdrawn.has(party))
    throw new RefusedError("owner-not-signed", `owner-not-signed: ${party}`, [])
}

/** @throws {RefusedError} with the first problem's code */
export function demandUsable(problems: readonly SuccessionProblem[]): void {
  const [first] = problems
  if (first !== undefined) throw new RefusedError(first.code, `${first.code}: ${first.names.join(", ")}`, [])
}

/** Every input's key must be there, and its owners' consent with it. @throws {RefusedError}, {ProtocolError} `wrong-state` */
export function demandInputs(context: ManagerContext, reader: Reader, standing: Standing, job: Job): void {
  for (const artifact of Object.keys(job.inputs)) demandUsable(problemsOfArtifact(context, reader, standing, artifact))
  const missing = Object.keys(job.inputs).filter((artifact) => reader.get("deposits", pairKey(standing.record.digest, artifact)) === undefined)
  if (missing.length > 0) throw new ProtocolError("wrong-state", `keys are not deposited: ${missing.join(", ")}`)
  const secrets = missingSecrets(reader, standing.record.digest, standing.policy, job)
  if (secrets.length > 0) throw new ProtocolError("wrong-state", `secrets were not brought: ${secrets.join(", ")}`)
}

/** A signature as a stakeholder hands it in, a checker with its report. */
export type Consent = RequestBody<typeof routes.approvePolicy>

/** What a receipt says of a checker's report. */
export function receiptOfReport(report: Consent["report"]): { readonly report?: Digest } {
  return report === undefined ? {} : { report: digestOfJson(report.report) }
}
