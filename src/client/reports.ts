import type { Digest } from "../bytes/digest.ts"
import { parsePolicyValue, policyDigest } from "../policy/document.ts"
import { type SignedCheckReport, verifyCheckReport } from "../protocol/check-report.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { PolicyView } from "../protocol/messages.ts"

/**
 * What checkers say they checked before they signed a policy, out of a manager's answer about it: each report proved by the checker's own key, which the policy states.
 * @throws {ProtocolError} `wrong-digest`, `wrong-check`; {PkiError} for a signature that does not verify
 */
export function reportsOfPolicy(
  view: Pick<PolicyView, "policy" | "approvals">,
  digest: Digest,
): readonly { readonly by: string; readonly report: SignedCheckReport }[] {
  const policy = parsePolicyValue(view.policy)
  const found = policyDigest(policy)
  if (found !== digest) throw new ProtocolError("wrong-digest", `the manager sent the policy ${found} instead of ${digest}`)
  return view.approvals.flatMap(({ stakeholder, report }) => {
    if (report === undefined) return []
    verifyCheckReport(policy, stakeholder, digest, report)
    return [{ by: stakeholder, report }]
  })
}
