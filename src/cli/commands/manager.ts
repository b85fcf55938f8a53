import type { Command } from "commander"
import { verifyManager } from "../../protocol/manager-connection.ts"
import { createTlsIdentity } from "../../protocol/tls.ts"
import { parseSshPublicKey } from "../../pki/ssh-key.ts"
import { unattestedManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { chosenManager, trustManager } from "../home.ts"
import type { Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  command
    .command("trust")
    .argument("<url>", "address, e.g. https://manager.example:7443")
    .argument("<key>", "the manager's key, ssh-ed25519 …, as its operator and the other parties know it")
    .option("--replace", "put this key in the place of another one that is pinned for the address")
    .description("pin a manager's key on this machine and make it the default; the manager must show that key")
    .action(async (url: string, text: string, options: { replace?: true }) => {
      const key = parseSshPublicKey(text).text
      const { description } = await verifyManager(new URL(url), key, createTlsIdentity("perun client"))
      await trustManager({ url, key }, options.replace === true)
      output.result({ ok: true, url, key, instance: description.instance, evidence: description.evidence }, () => {
        output.line(`pinned ${url}`, "good")
        if (description.evidence === null)
          output.line(`${unattestedManager}: it proves nothing about itself; its operator could read what is deposited there`, "warn")
      })
    })
  withManagerOption(command.command("status"))
    .description("what the pinned manager says about itself")
    .action(async (options: ManagerOption) => {
      const pin = await chosenManager(options.manager)
      const { description } = await verifyManager(new URL(pin.url), pin.key, createTlsIdentity("perun client"))
      output.result({ ok: true, url: pin.url, ...description }, () => {
        output.line(`address        ${pin.url}`)
        output.line(`instance       ${description.instance}`)
        output.line(`key            ${description.key}`)
        output.line(`TLS key        ${description.tlsKey}`)
        output.line(`log key        ${description.logKey}`)
        output.line(`configuration  ${description.configuration}`)
        output.line(`vault key      ${description.vault === "tpm" ? "sealed to the TPM" : "in a key file that its operator can read"}`)
        if (description.evidence === null) output.line(`evidence       none: ${unattestedManager}`, "warn")
      })
    })
}
