import { digestOfJson, type Digest } from "../bytes/digest.ts"

/** What a vote for an output is signed over (statement purpose `vote`): this ciphertext of this output of this run under this policy, nothing else. */
export function voteDigest(vote: { readonly policy: Digest; readonly run: string; readonly output: string; readonly ciphertext: Digest }): Digest {
  const { policy, run, output, ciphertext } = vote
  return digestOfJson({ policy, run, output, ciphertext, vote: "release" })
}
