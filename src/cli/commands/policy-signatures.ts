import type { Command } from "commander"
import { PerunError } from "../../bytes/error.ts"
import { refuseOtherManager } from "../../client/deposit.ts"
import { signingKeys, stakeholderOfKey, tallyApprovals } from "../../policy/approval.ts"
import { type Policy, policyDigest } from "../../policy/document.ts"
import { tallyText } from "../../policy/explain.ts"
import { demandReport } from "../../protocol/check-report.ts"
import type { PolicyStatus } from "../../protocol/messages.ts"
import { routes } from "../../protocol/routes.ts"
import { showChecks } from "../check-file.ts"
import { withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { type Consent, loadConsents } from "../consent-file.ts"
import { RefusedError } from "../exit.ts"
import type { Cell, Output } from "../output.ts"
import { loadPolicyFile, showStatus } from "../policy-file.ts"

/** Signatures that are kept as files: judged without a manager, and handed in by whoever has them. */
export function registerSignatures(command: Command, output: Output): void {
  command
    .command("verify-signatures")
    .argument("<file>", "policy, YAML or JSON")
    .argument("<signature...>", "signatures over it, as policy sign or ssh-keygen -Y sign wrote them")
    .description(
      "say whose signatures these are, which are good, and which are still missing; no manager is asked, and withdrawals are not known here",
    )
    .action(async (file: string, paths: readonly string[]) => {
      const { policy, digest } = await loadPolicyFile(file)
      const consents = await loadConsents(paths)
      const judged = consents.map((consent, index) => ({ file: paths[index] ?? "", ...judgeConsent(policy, consent) }))
      const good = consents.filter((_, index) => judged[index]?.valid === true)
      const tally = tallyApprovals(
        policy,
        good.map(({ signature }) => signature),
      )
      const { satisfied, signed, missing } = tally
      output.result({ ok: satisfied && good.length === consents.length, digest, signatures: judged, satisfied, signed, missing }, () => {
        output.table(["file", "signature", "of", "key"], judged.map(rowOf))
        showChecks(
          consents.flatMap(({ report }, index) => {
            const by = judged[index]?.signer ?? null
            return report === undefined || by === null ? [] : [{ by, report }]
          }),
          output,
        )
        for (const line of tallyText(tally).split("\n")) output.line(line)
      })
      const bad = judged.filter(({ valid }) => !valid).map((one) => one.file)
      if (bad.length > 0) throw new RefusedError(`not good for ${digest}: ${bad.join(", ")}`)
      if (!satisfied) throw new RefusedError(`signatures are missing: ${missing.join(", ")}`)
    })
  withManagerOption(command.command("send-signatures"))
    .argument("<file>", "policy, YAML or JSON")
    .argument("<signature...>", "signatures over it, of any of its parties")
    .description("hand in signatures that were made offline; each proves itself, so any party may carry those of others")
    .action(async (file: string, paths: readonly string[], options: ManagerOption) => {
      const { policy, digest } = await loadPolicyFile(file)
      const consents = await loadConsents(paths)
      for (const [index, consent] of consents.entries()) {
        const { valid, message } = judgeConsent(policy, consent)
        if (!valid) throw new RefusedError(`${paths[index] ?? ""}: ${message}; nothing was sent`)
      }
      const status = await withManager(options, output, async (connection) => {
        refuseOtherManager(connection, policy)
        let last: PolicyStatus | undefined
        for (const body of consents) last = await connection.call(routes.approvePolicy, { params: { digest }, body })
        return last
      })
      if (status === undefined) throw new TypeError("internal: no signature was sent")
      output.result({ ok: true, digest, sent: consents.length, status }, () => showStatus(status, output))
    })
}

interface JudgedConsent {
  readonly valid: boolean
  readonly key: string
  /** Whose it is, where it is good. */
  readonly signer: string | null
  /** Why it does not count; `good` where it does. */
  readonly message: string
}

function judgeConsent(policy: Policy, { signature, report }: Consent): JudgedConsent {
  const digest = policyDigest(policy)
  const { key } = signature
  const [fault] = tallyApprovals(policy, [signature]).invalid
  if (fault !== undefined) return { valid: false, key, signer: null, message: `${fault.message} [${fault.code}]` }
  const [proved = key] = signingKeys("policy", digest, [signature])
  const signer = stakeholderOfKey(policy, proved)
  if (signer === undefined) throw new TypeError("internal: a counted signature of nobody")
  try {
    demandReport(policy, signer, digest, report)
  } catch (error) {
    // What is wrong with one file is told beside it, so that the others are judged too.
    if (!(error instanceof PerunError)) throw error
    return { valid: false, key, signer: null, message: `${error.message} [${error.code}]` }
  }
  return { valid: true, key: proved, signer, message: "good" }
}

function rowOf({ file, valid, signer, message, key }: JudgedConsent & { readonly file: string }): readonly Cell[] {
  return [file, { text: message, tone: valid ? "good" : "bad" }, signer ?? "nobody", key]
}
