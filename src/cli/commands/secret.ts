import type { Command } from "commander"
import { readFileBounded } from "../../bytes/durable.ts"
import { depositSecret, largestSecret, makeSecretFile } from "../../client/secret.ts"
import { withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import type { Output } from "../output.ts"
import { loadPolicyFile } from "../policy-file.ts"

export function register(command: Command, output: Output): void {
  command
    .command("make")
    .requiredOption(
      "--value-file <file>",
      "file that holds the value, byte by byte; /dev/stdin reads it from there, so that it stands in no command line",
    )
    .requiredOption("--out <file>", "where value and salt are kept, for you alone; must not exist")
    .description("make the commitment to a value that a policy names in secrets: everybody signs for it, nobody learns it")
    .action(async (options: { valueFile: string; out: string }) => {
      const value = await readFileBounded(options.valueFile, largestSecret)
      const commitment = await makeSecretFile(options.out, value)
      output.result({ ok: true, commitment, bytes: value.length, file: options.out }, () => {
        output.line(`commitment  ${commitment} (for the policy: secrets.NAME.commitment)`, "good")
        output.line(`value       ${options.out}, ${value.length} bytes: keep it, perun secret deposit wants it`)
      })
    })
  withManagerOption(command.command("deposit"))
    .argument("<policy>", "policy file that you have signed")
    .argument("<name>", "name of the secret in the policy")
    .argument("<file>", "what perun secret make kept")
    .description("give a secret's value to the manager that the policy names, for jobs under this policy only")
    .action(async (policyFile: string, secret: string, file: string, options: ManagerOption) => {
      const { policy, digest } = await loadPolicyFile(policyFile)
      const view = await withManager(options, output, (connection) => depositSecret(connection, { policy, secret, file }))
      output.result({ ok: true, ...view }, () => output.line(`brought ${secret} under ${digest}`, "good"))
    })
}
