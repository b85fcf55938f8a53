import type { Command } from "commander"
import { readFileBounded } from "../../bytes/durable.ts"
import { parseUtf8 } from "../../bytes/text.ts"
import { depositArtifact, loadManifest } from "../../client/deposit.ts"
import { routes } from "../../protocol/routes.ts"
import { artifactFolder, identityPath } from "../../sealing/blobs.ts"
import { manifestDigest, manifestSigner } from "../../sealing/manifest.ts"
import { rekeyArtifact } from "../../sealing/rekey-artifact.ts"
import { withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { homeIdentity } from "../home.ts"
import { interruptSignal } from "../interrupt.ts"
import type { Output } from "../output.ts"
import { loadPolicyFile } from "../policy-file.ts"
import { parseRecipientKind } from "./seal.ts"

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
  command
    .command("rekey")
    .argument("<folder>", "sealed artifact, as perun seal leaves it")
    .requiredOption("--out <folder>", "where the artifact with the new key goes; the same call goes on after an interrupt")
    .option("--key <file>", "age identity that opens it now (default: <folder>.identity.age)")
    .option("--recipient <kind>", "hybrid (post-quantum, default) or x25519 (for age older than 1.3)", parseRecipientKind, "hybrid")
    .description("seal an artifact anew to a key of its own, signed by this home's identity; its files never lie in clear on the disk")
    .action(async (folder: string, options: { out: string; key?: string; recipient: "hybrid" | "x25519" }) => {
      const owner = await homeIdentity()
      const signed = await loadManifest(folder)
      const identity = parseUtf8(await readFileBounded(options.key ?? identityPath(folder), 65_536)).trim()
      const progress = output.progress()
      using interrupt = interruptSignal()
      const made = await rekeyArtifact({
        from: { signed, identity, blobs: artifactFolder(folder, signed.manifest) },
        output: options.out,
        signer: manifestSigner(owner.privateKey),
        key: { generate: options.recipient },
        created: new Date().toISOString(),
        signal: interrupt.signal,
        onProgress: ({ doneBytes, totalBytes }) => progress.update("rekeying", doneBytes, totalBytes),
      }).finally(() => progress.end())
      const former = manifestDigest(signed.manifest)
      const { manifest } = made.signed
      output.result({ ok: true, manifest: made.digest, former, shards: manifest.shards.length, folder: options.out }, () => {
        output.line(`rekeyed ${manifest.name}${made.resumedShards > 0 ? `, shards kept from before: ${made.resumedShards}` : ""}`, "good")
        output.line(`manifest  ${made.digest}`)
        output.line(`before    ${former}`)
        if (manifest.owner !== signed.manifest.owner) output.line(`owner     ${manifest.owner}, before ${signed.manifest.owner}`, "warn")
        output.line(`key       ${identityPath(options.out)} (who has it can open the artifact)`)
        output.line(
          "next      a successor policy that names the new manifest, signed by all; perun artifact deposit; then destroy the former key and ciphertext",
        )
      })
    })
}
