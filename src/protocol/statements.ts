import { digestOfJson, type Digest } from "../bytes/digest.ts"
import type { ReleaseVote } from "../policy/approval.ts"
import type { OutputView } from "./messages.ts"

/** What a vote is about, as far as the manager's own records say it; who gets the output follows from policy, job and name. */
export type VoteSubject = Pick<OutputView, "run" | "job" | "name" | "ciphertext" | "sizeBytes" | "policy" | "evidence" | "laboratory">

/** What a vote for an output is signed over (statement purpose `vote`): everything that a voter is shown, and nothing else. */
export function voteDigest(subject: VoteSubject): Digest {
  const { run, job, name, ciphertext, sizeBytes, policy, evidence, laboratory } = subject
  const vote: ReleaseVote = { run, job, output: name, ciphertext, sizeBytes, policy, evidence, laboratory, vote: "release" }
  return digestOfJson(vote)
}
