import { digestOfJson, type Digest } from "../bytes/digest.ts"
import type { ReleaseVote } from "../policy/approval.ts"
import type { OutputView } from "./messages.ts"

/** What a vote for an output is signed over (statement purpose `vote`): this ciphertext of this output of this run under this policy, nothing else. */
export function voteDigest(output: Pick<OutputView, "run" | "name" | "ciphertext" | "policy">): Digest {
  const vote: ReleaseVote = { run: output.run, output: output.name, ciphertext: output.ciphertext, policy: output.policy, vote: "release" }
  return digestOfJson(vote)
}
