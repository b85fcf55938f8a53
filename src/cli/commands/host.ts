import type { Command } from "commander"
import type { HostView } from "../../protocol/messages.ts"
import { routes } from "../../protocol/routes.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import type { Cell, Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  withManagerOption(command.command("list"))
    .description("machines that proved their TPM to the manager")
    .action(async (options: ManagerOption) => {
      const { hosts } = await withManager(options, output, (connection) => connection.call(routes.listHosts))
      output.result({ ok: true, hosts }, () => output.table(["host", "endorsement key", "root", "TPM", "enrolled", "state"], hosts.map(rowOf)))
    })
  withManagerOption(command.command("retire"))
    .argument("<host>", "name of the machine")
    .description("take a machine out of use; its leases end")
    .action(async (host: string, options: ManagerOption) => {
      const view = await withManager(options, output, (connection) => connection.call(routes.retireHost, { params: { host }, body: {} }))
      output.result({ ok: true, ...view }, () => output.line(`retired ${host}`, "good"))
    })
}

function rowOf({ host, identity, enrolledAt, retired }: HostView): readonly Cell[] {
  const root: Cell = identity.rootKind === "laboratory" ? { text: insecureLaboratory, tone: "warn" } : "vendor"
  return [host, identity.endorsementKey, root, identity.description, enrolledAt, retired ? { text: "retired", tone: "dim" } : "in use"]
}
