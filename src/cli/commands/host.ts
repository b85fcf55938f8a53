import { randomBytes } from "node:crypto"
import type { Command } from "commander"
import { loadConfigFile } from "../../agent/config.ts"
import { openDevices } from "../../agent/devices.ts"
import { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import type { TpmLocation } from "../../evidence/tpm/client/transport.ts"
import { endorsementKeyDigest } from "../../evidence/tpm/endorsements.ts"
import { publicKeyOf } from "../../evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../../evidence/tpm/public-area.ts"
import { isTeeIdentity, type MachineIdentity } from "../../policy/listing.ts"
import { connectVerified, verifyManager } from "../../protocol/manager-connection.ts"
import { createTlsIdentity } from "../../protocol/tls.ts"
import type { HostView } from "../../protocol/messages.ts"
import { routes } from "../../protocol/routes.ts"
import { createFileDurably } from "../../bytes/durable.ts"
import { encodeHex } from "../../bytes/text.ts"
import { evidenceKinds } from "../../evidence/kinds.ts"
import { collectTee, type TeeSource } from "../../evidence/tee/collectors/collect.ts"
import { sessionReportData } from "../../evidence/report-data.ts"
import { encodeTeeEvidence } from "../../evidence/tee/format.ts"
import { UsageError } from "../exit.ts"
import { parseTeeSource } from "../tee-source.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { printable, type Cell, type Output } from "../output.ts"
import { parseTpmLocation } from "../tpm-location.ts"

export function register(command: Command, output: Output): void {
  command
    .command("enrol")
    .requiredOption("--config <file>", 'JSON: {"perun":1,"host":NAME,"manager":{"url":…,"key":…}}')
    .option("--tpm <where>", "device, unix:PATH or tcp:HOST:PORT (default: /dev/tpmrm0)", parseTpmLocation)
    .description("on the machine itself: prove its TPM or TEE to the manager under its name (the agent does it by itself when it starts)")
    .action(async (options: { config: string; tpm?: TpmLocation }) => {
      const config = await loadConfigFile(options.config)
      const tls = createTlsIdentity(config.host)
      const manager = await verifyManager(new URL(config.manager.url), config.manager, tls, { now: new Date() })
      using transport = connectVerified(manager, tls)
      await using devices = await openDevices(config, options.tpm)
      const as = { manager: manager.description.instance, tlsKey: tls.tlsKey }
      const view = await devices.attester.enrol(config.host, as, {
        begin: (body) => transport.call(routes.beginEnrolment, { body }),
        answer: (enrolment, body) => transport.call(routes.answerEnrolment, { params: { enrolment }, body }),
      })
      output.result({ ok: true, ...view }, () => {
        output.line(`enrolled ${view.host}`, "good")
        for (const [name, value] of identityFacts(view.identity)) output.line(`${name.padEnd(15)}  ${value}`)
      })
    })
  command
    .command("show")
    .option("--tpm <where>", "device, unix:PATH or tcp:HOST:PORT (default: /dev/tpmrm0)", parseTpmLocation)
    .option("--tee <where>", "show the TEE instead: tsm, gramine, azure, http://HOST:PORT or unix:PATH", parseTeeSource)
    .option("--out <file>", "with --tee: write its evidence to this file, which must not exist")
    .description("on the machine itself: show the endorsement key that policies list, or take evidence of its TEE")
    .action(async (options: { tpm?: TpmLocation; tee?: TeeSource; out?: string }) => {
      if (options.tee !== undefined || options.out !== undefined) return showTee(options, output)
      await using tpm = await HostTpm.open(options.tpm)
      const { ekCertificates, ekPublic } = await tpm.collectEndorsement()
      const endorsementKey = endorsementKeyDigest(publicKeyOf(parseSizedPublicArea(ekPublic)))
      output.result({ ok: true, endorsementKey, certificates: ekCertificates.length }, () => {
        output.line(`endorsement key  ${endorsementKey}`)
        output.line(`certificates     ${ekCertificates.length === 0 ? "none: this TPM cannot enrol" : ekCertificates.length}`)
      })
    })
  withManagerOption(command.command("list"))
    .description("machines that proved their TPM or TEE to the manager")
    .action(async (options: ManagerOption) => {
      const { hosts } = await withManager(options, output, (connection) => connection.call(routes.listHosts))
      output.result({ ok: true, hosts }, () =>
        output.table(["host", "endorsement key or platform", "root", "TPM or TEE", "enrolled", "state"], hosts.map(rowOf)),
      )
    })
  withManagerOption(command.command("retire"))
    .argument("<host>", "name of the machine")
    .description("take a machine out of use; its leases end")
    .action(async (host: string, options: ManagerOption) => {
      const view = await withManager(options, output, (connection) => connection.call(routes.retireHost, { params: { host }, body: {} }))
      output.result({ ok: true, ...view }, () => output.line(`retired ${host}`, "good"))
    })
}

/** Evidence over a nonce of this moment, for `perun evidence verify` and `perun collateral fetch`: what it proves is theirs to say. */
async function showTee({ tpm, tee, out }: { tpm?: TpmLocation; tee?: TeeSource; out?: string }, output: Output): Promise<void> {
  if (tee === undefined || out === undefined || (tpm !== undefined && tee !== "azure"))
    throw new UsageError("--tee and --out go together, and --tpm with --tee azure alone")
  const nonce = new Uint8Array(randomBytes(32))
  const evidence = await collectTee(tee, sessionReportData(nonce), tpm === undefined ? {} : { tpm })
  await createFileDurably(out, `${JSON.stringify(encodeTeeEvidence(evidence))}\n`)
  const nonceText = encodeHex(nonce)
  output.result({ ok: true, file: out, kind: evidence.kind, nonce: nonceText }, () => {
    output.line(`wrote ${out}, evidence of ${evidenceKinds[evidence.kind].name}`, "good")
    output.line(`what it says         perun evidence verify ${out} --nonce ${nonceText}`)
    output.line(`what vouches for it  perun collateral fetch ${out} --folder MANAGER/collateral`)
  })
}

function identityFacts(identity: MachineIdentity): readonly (readonly [string, string])[] {
  const root = `${identity.root}${identity.rootKind === "laboratory" ? ` ${insecureLaboratory}` : ""}`
  const description = printable(identity.description)
  if (isTeeIdentity(identity))
    return [
      ["platform", identity.platform === null ? "does not say which one it is" : `${identity.platform} (what policies list)`],
      ["TEE", description],
      ["root", root],
    ]
  return [
    ["endorsement key", `${identity.endorsementKey} (what policies list)`],
    ["TPM", description],
    ["root", root],
  ]
}

function nameOf(identity: MachineIdentity): string {
  return isTeeIdentity(identity) ? (identity.platform ?? "masked") : identity.endorsementKey
}

function rowOf({ host, identity, enrolledAt, retired }: HostView): readonly Cell[] {
  const root: Cell = identity.rootKind === "laboratory" ? { text: insecureLaboratory, tone: "warn" } : "vendor"
  return [host, nameOf(identity), root, identity.description, enrolledAt, retired ? { text: "retired", tone: "dim" } : "in use"]
}
