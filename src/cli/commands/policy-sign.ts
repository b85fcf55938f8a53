import type { Command } from "commander"
import { readFileBounded, writeFileDurably } from "../../bytes/durable.ts"
import { canonicalJson } from "../../bytes/json.ts"
import { parseUtf8 } from "../../bytes/text.ts"
import { signStatement, statementSignatureOfSshSignature, type StatementSignature, verifyStatement } from "../../pki/statement.ts"
import { stakeholderOfKey } from "../../policy/approval.ts"
import { differenceText, diffPolicies } from "../../policy/diff.ts"
import { parsePolicyValue, type Policy, policyDigest, managerText } from "../../policy/document.ts"
import { policyWarnings } from "../../policy/explain.ts"
import type { ParsedPolicy } from "../../policy/parse.ts"
import { type CheckFindings, isChecker, signCheckReport } from "../../protocol/check-report.ts"
import { ProblemError } from "../../protocol/problem.ts"
import { routes } from "../../protocol/routes.ts"
import { loadCheckFindings } from "../check-file.ts"
import { demandConsent } from "../confirm.ts"
import { withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { RefusedError } from "../exit.ts"
import { homeIdentity, loadManagerPins } from "../home.ts"
import type { Output } from "../output.ts"
import { demandGoodPolicy, showStatus } from "../policy-file.ts"
import { refuseOtherManager } from "../../client/deposit.ts"

interface SignOptions extends ManagerOption {
  readonly reference: readonly string[]
  readonly out?: string
  readonly offline?: true
  readonly sshSignature?: string
  readonly report?: string
  readonly yes?: true
}

export function registerSign(command: Command, output: Output): void {
  withManagerOption(command.command("sign"))
    .argument("<file>", "policy, YAML or JSON")
    .option(
      "--reference <file>",
      "reference document that goes with it; again for each",
      (text: string, before: readonly string[]) => [...before, text],
      [],
    )
    .option("--out <file>", "where the signature goes (default: FILE.NAME.approval.json)")
    .option("--offline", "do not send the signature to the manager")
    .option("--ssh-signature <file>", "take over a signature that ssh-keygen made, instead of signing with this home's identity")
    .option("--report <file>", "of a checker: what it checked, as JSON; its signature counts with it only")
    .option("--yes", "sign without being asked, for scripts")
    .description(
      "show what a policy is, ask, and sign exactly that; the signature is a file that anyone can check, and goes to the manager unless --offline",
    )
    .addHelpText(
      "after",
      `
With an SSH key (or a FIDO key) instead of this home's identity:
  printf 'perun policy %s' "$(perun policy check FILE --json | sed 's/.*"digest":"\\([^"]*\\)".*/\\1/')" > statement
  ssh-keygen -Y sign -n perun-policy -f ~/.ssh/id_ed25519 statement
  perun policy sign FILE --ssh-signature statement.sig`,
    )
    .action(async (file: string, options: SignOptions) => {
      // Read once: what is shown, asked for and signed is this and not what the file holds a moment later.
      const parsed = await demandGoodPolicy(file, options.reference, output)
      const { policy, digest } = parsed
      const hand = await signingHand(options, parsed)
      const findings = await findingsOf(options, policy, hand.signer)
      const predecessor = options.offline === true ? undefined : await predecessorOf(policy, options, output)
      showPolicy(parsed, hand, predecessor, await pinDifference(policy, options.manager), output)
      await demandConsent(options.yes, "Sign this policy?")
      const signature = hand.sign()
      const report = findings === undefined ? {} : { report: signCheckReport(findings, digest, (await homeIdentity()).privateKey) }
      const path = options.out ?? `${file}.${hand.signer}.approval.json`
      await writeFileDurably(path, `${JSON.stringify(findings === undefined ? signature : { signature, ...report }, null, 2)}\n`)
      output.line(`signed ${digest} as ${hand.signer}: ${path}`, "good")
      if (options.offline === true) return output.event({ ok: true, digest, signer: hand.signer, file: path, sent: false })
      const status = await withManager(options, output, (connection) => {
        refuseOtherManager(connection, policy)
        return connection.call(routes.approvePolicy, { params: { digest }, body: { signature, ...report } })
      })
      output.result({ ok: true, digest, signer: hand.signer, file: path, sent: true, status }, () => showStatus(status, output))
    })
}

/** What a checker checked. @throws {RefusedError} where it is missing, or where nobody asked for it; {MalformedError} */
async function findingsOf({ report, sshSignature }: SignOptions, policy: Policy, signer: string): Promise<CheckFindings | undefined> {
  if (!isChecker(policy, signer)) {
    if (report === undefined) return undefined
    throw new RefusedError(`${signer} is no checker in this policy, so --report has no place; nothing was signed`)
  }
  if (report === undefined) throw new RefusedError(`${signer} is a checker: give what it checked with --report FILE; nothing was signed`)
  if (sshSignature !== undefined) throw new RefusedError("a checker signs with this home's identity, which signs its report too; nothing was signed")
  return loadCheckFindings(report)
}

/** Who signs, and how: with this home's identity, or by a signature that ssh-keygen made and that is good already. */
interface SigningHand {
  readonly signer: string
  readonly key: string
  sign(): StatementSignature
}

async function signingHand({ sshSignature }: SignOptions, { policy, digest }: ParsedPolicy): Promise<SigningHand> {
  const named = (key: string): string => {
    const signer = stakeholderOfKey(policy, key)
    if (signer === undefined) throw new RefusedError(`the policy names no party with the key ${key}; nothing was signed`)
    return signer
  }
  if (sshSignature === undefined) {
    const { key, privateKey } = await homeIdentity()
    return { signer: named(key), key, sign: () => signStatement("policy", digest, privateKey) }
  }
  const signature = statementSignatureOfSshSignature(parseUtf8(await readFileBounded(sshSignature, 65_536)))
  const key = verifyStatement("policy", digest, signature)
  return { signer: named(key), key, sign: () => signature }
}

/** The policy that this one replaces, as the manager has it under exactly that digest; undefined for a first policy, or where the manager lacks it or does not show it to this party. */
async function predecessorOf({ supersedes }: Policy, options: ManagerOption, output: Output): Promise<Policy | undefined> {
  if (supersedes === "none") return undefined
  return withManager(options, output, async (connection) => {
    try {
      const predecessor = parsePolicyValue((await connection.call(routes.getPolicy, { params: { digest: supersedes } })).policy)
      const found = policyDigest(predecessor)
      if (found !== supersedes) throw new RefusedError(`the manager sent the policy ${found} instead of ${supersedes}`)
      return predecessor
    } catch (error) {
      // Who joins with this policy was no party of what it replaces.
      if (error instanceof ProblemError && (error.code === "not-found" || error.code === "not-permitted")) return undefined
      throw error
    }
  })
}

/** What the policy trusts its manager for, where this party trusts the one it pinned for something else; undefined where it is the same, or nothing is pinned. */
async function pinDifference({ manager }: Policy, url: string | undefined): Promise<string | undefined> {
  const pins = await loadManagerPins()
  const pin = url === undefined ? pins[0] : pins.find((other) => other.url === url)
  if (pin?.accept === undefined) return undefined
  if (!("accept" in manager)) return `this policy takes its manager on its key alone; ${pin.url} is pinned here by what it must prove`
  if (canonicalJson(manager.accept) === canonicalJson(pin.accept)) return undefined
  return `this policy's demands on its manager are not those that are pinned here for ${pin.url}: know why before you sign`
}

function showPolicy(
  { policy, digest }: ParsedPolicy,
  { signer, key }: SigningHand,
  predecessor: Policy | undefined,
  managerWarning: string | undefined,
  output: Output,
): void {
  const { study, purpose, expires, supersedes, manager, stakeholders } = policy
  const changes = predecessor === undefined ? undefined : diffPolicies(predecessor, policy)
  const parties = Object.entries(stakeholders).map(([name, { keys, roles }]) => ({ name, roles, keys }))
  output.event({
    event: "to-sign",
    digest,
    study,
    purpose,
    expires,
    signer,
    key,
    manager,
    parties,
    supersedes,
    ...(managerWarning === undefined ? {} : { managerWarning }),
    ...(changes === undefined ? {} : { changes }),
  })
  if (output.json) return
  output.line(`As ${signer} you sign`, "strong")
  output.line(`policy      ${digest}`)
  output.line(`study       ${study}`)
  output.line(`purpose     ${purpose}`)
  output.line(`expires     ${expires}`)
  output.line(`your key    ${key}`)
  output.line(`manager     ${managerText(manager)}`)
  output.line(`supersedes  ${supersedes}`)
  for (const warning of [...policyWarnings(policy), ...(managerWarning === undefined ? [] : [managerWarning])]) output.line(warning, "warn")
  output.line()
  output.table(
    ["party", "roles", "keys that sign and vote for it"],
    parties.map(({ name, roles, keys }) => [name, roles.join(", "), keys.join(", ")]),
  )
  output.line()
  if (changes !== undefined) output.raw(differenceText(changes))
  else if (supersedes !== "none")
    output.line("what it changes is not known here: compare it with its predecessor by perun policy diff BEFORE AFTER first", "warn")
  output.line("who sees what, and what the machines protect from: perun policy explain", "dim")
}
