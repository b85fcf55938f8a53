import type { Command } from "commander"
import { depositArtifact } from "../../client/deposit.ts"
import { routes } from "../../protocol/routes.ts"
import { withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { interruptSignal } from "../interrupt.ts"
import type { Output } from "../output.ts"
import { loadPolicyFile } from "../policy-file.ts"

export function register(command: Command, output: Output): void {
  withManagerOption(command.command("deposit"))
    .argument("<policy>", "policy file that you have signed")
    .argument("<name>", "name of the artifact in the policy")
    .argument("<folder>", "sealed artifact, as perun seal leaves it")
    .description("upload an artifact's ciphertext and give its key to the manager that the policy names, for use under this policy only")
    .action(async (file: string, artifact: string, folder: string, options: ManagerOption) => {
      const { policy, digest } = await loadPolicyFile(file)
      const progress = output.progress()
      using interrupt = interruptSignal()
      const view = await withManager(options, output, (connection) =>
        depositArtifact(connection, {
          policy,
          artifact,
          folder,
          signal: interrupt.signal,
          onProgress: (step, done, total) => progress.update(`${step} ${artifact}`, done, total),
        }),
      ).finally(() => progress.end())
      output.result({ ok: true, ...view }, () => output.line(`deposited the key of ${artifact} under ${digest}`, "good"))
    })
  withManagerOption(command.command("list"))
    .description("artifacts whose keys are deposited under the policies that name you")
    .action(async (options: ManagerOption) => {
      const { artifacts } = await withManager(options, output, (connection) => connection.call(routes.listArtifacts))
      output.result({ ok: true, artifacts }, () =>
        output.table(
          ["artifact", "kind", "owner", "deposited", "manifest", "policy"],
          artifacts.map((view) => [view.artifact, view.kind, view.owner, view.depositedAt, view.manifest, view.policy]),
        ),
      )
    })
}
