import type { Command } from "commander"
import { X509Certificate } from "node:crypto"
import { existsSync } from "node:fs"
import { readFileBounded } from "../../bytes/durable.ts"
import { MalformedError } from "../../bytes/error.ts"
import { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import type { TpmLocation } from "../../evidence/tpm/client/transport.ts"
import { serveManager } from "../../manager/server.ts"
import { initManager } from "../../manager/state.ts"
import { hostTpmSealer } from "../../manager/tpm-sealer.ts"
import { vaultWords } from "../../manager/vault.ts"
import { verifyManager } from "../../protocol/manager-connection.ts"
import { createTlsIdentity } from "../../protocol/tls.ts"
import { parseSshPublicKey } from "../../pki/ssh-key.ts"
import { unattestedManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { chosenManager, trustManager } from "../home.ts"
import { UsageError } from "../exit.ts"
import { interruptSignal } from "../interrupt.ts"
import type { Output } from "../output.ts"
import { parseTpmLocation } from "../tpm-location.ts"

export function register(command: Command, output: Output): void {
  command
    .command("init")
    .argument("<folder>", "folder of the manager; must not exist")
    .option(
      "--laboratory-root <file>",
      "root certificate (PEM) of laboratory TPMs that may enrol: INSECURE LABORATORY; again for each",
      (text, before: string[]) => [...before, text],
      [],
    )
    .option(
      "--tpm <where>",
      "seal the vault key to this TPM: device, unix:PATH or tcp:HOST:PORT (default: /dev/tpmrm0 where there is one)",
      parseTpmLocation,
    )
    .option("--key-file", "keep the vault key in a plain file, also where there is a TPM")
    .description("make a manager's state: its keys, vault and store")
    .action(async (folder: string, options: { laboratoryRoot: readonly string[]; tpm?: TpmLocation; keyFile?: true }) => {
      const laboratoryRoots = []
      for (const path of options.laboratoryRoot) laboratoryRoots.push(certificateBytes(await readFileBounded(path, 65_536), path))
      await using tpm = await vaultTpm(options)
      const made = await initManager({ folder, laboratoryRoots, ...(tpm === undefined ? {} : { sealer: hostTpmSealer(tpm, { cap: false }) }) })
      output.result({ ok: true, folder, ...made }, () => {
        output.line(`made ${folder}`, "good")
        output.line(`key       ${made.key} (what policies and perun manager trust name)`)
        output.line(`instance  ${made.instance}`)
        output.line(vaultWords[made.vault], made.vault === "tpm" ? "plain" : "warn")
      })
    })
  command
    .command("serve")
    .argument("<folder>", "folder that perun manager init made")
    .option("--listen <host:port>", "address to listen on", "127.0.0.1:7443")
    .option("--tpm <where>", "TPM that the vault key is sealed to (default: /dev/tpmrm0)", parseTpmLocation)
    .option("--cap", "extend PCR 15 once the vault key is out of the TPM: until the next boot nothing opens it again, not even a second start")
    .description("run the manager until Ctrl-C or SIGTERM")
    .action(async (folder: string, options: { listen: string; tpm?: TpmLocation; cap?: true }) => {
      const { host, port } = parseListen(options.listen)
      await using tpm = await vaultTpm(options)
      using interrupt = interruptSignal()
      await using running = await serveManager({
        folder,
        host,
        port,
        ...(tpm === undefined ? {} : { sealer: hostTpmSealer(tpm, { cap: options.cap === true }) }),
      })
      output.result(
        {
          event: "listening",
          url: running.url,
          key: running.description.key,
          instance: running.description.instance,
          vault: running.vault,
          laboratoryRoots: running.laboratoryRoots,
        },
        () => {
          output.line(`listening on ${running.url}`, "good")
          output.line(`key       ${running.description.key}`)
          output.line(`instance  ${running.description.instance}`)
          output.line(vaultWords[running.vault], running.vault === "tpm" ? "plain" : "warn")
          output.line(`${unattestedManager}: this manager proves nothing about itself`, "warn")
          for (const root of running.laboratoryRoots) output.line(`INSECURE LABORATORY: TPMs under the root ${root} may enrol`, "warn")
        },
      )
      await new Promise<void>((resolve) => interrupt.signal.addEventListener("abort", () => resolve(), { once: true }))
      output.line("stopping")
    })
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

/** The TPM for the vault key: the one named, else the kernel's where there is one, unless a key file is wanted. */
async function vaultTpm(options: { readonly tpm?: TpmLocation; readonly keyFile?: true }): Promise<HostTpm | undefined> {
  if (options.keyFile === true) return undefined
  if (options.tpm !== undefined) return HostTpm.open(options.tpm)
  return existsSync("/dev/tpmrm0") ? HostTpm.open() : undefined
}

function parseListen(text: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):([0-9]{1,5})$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined || port === undefined || Number(port) > 65_535) throw new UsageError(`--listen wants HOST:PORT, found ${text}`)
  return { host, port: Number(port) }
}

function certificateBytes(file: Uint8Array, path: string): Uint8Array {
  try {
    return new Uint8Array(new X509Certificate(file).raw)
  } catch (cause) {
    throw new MalformedError("malformed", "not a certificate", { path, cause })
  }
}
