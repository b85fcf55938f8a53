import { InvalidArgumentError, type Command } from "commander"
import { identityPath } from "../../sealing/blobs.ts"
import { manifestSigner, type ArtifactKind } from "../../sealing/manifest.ts"
import { sealArtifact } from "../../sealing/seal-artifact.ts"
import { homeIdentity } from "../home.ts"
import { interruptSignal } from "../interrupt.ts"
import { formatBytes, type Output } from "../output.ts"

const kinds = ["dataset", "code", "model", "mock"] as const satisfies readonly ArtifactKind[]

export function register(command: Command, output: Output): void {
  command
    .argument("<folder>", "folder whose files are sealed")
    .requiredOption("--out <folder>", "where the sealed artifact goes; the same call goes on after an interrupt")
    .requiredOption("--kind <kind>", `what it is: ${kinds.join(", ")}`, parseKind)
    .requiredOption("--name <name>", "its name, which is public")
    .option("--recipient <kind>", "hybrid (post-quantum, default) or x25519 (for age older than 1.3)", parseRecipientKind, "hybrid")
    .option("--shard-bytes <count>", "size of a shard that packing aims at", parseCount)
    .addHelpText(
      "after",
      "\nThe folder gets manifest.json, shards and index (ciphertext): all public. The key goes beside it, to <folder>.identity.age: keep it.",
    )
    .action(async (source: string, options: SealOptions) => {
      const identity = await homeIdentity()
      const progress = output.progress()
      using interrupt = interruptSignal()
      const sealed = await sealArtifact({
        source,
        output: options.out,
        kind: options.kind,
        name: options.name,
        signer: manifestSigner(identity.privateKey),
        key: { generate: options.recipient },
        created: new Date().toISOString(),
        shardBytes: options.shardBytes,
        signal: interrupt.signal,
        onProgress: ({ doneBytes, totalBytes }) => progress.update("sealing", doneBytes, totalBytes),
      }).finally(() => progress.end())
      const { files, shards, index } = sealed.signed.manifest
      const ciphertextBytes = shards.reduce((sum, shard) => sum + shard.sizeBytes, index.sizeBytes)
      output.result(
        { ok: true, manifest: sealed.digest, files: files.count, bytes: files.bytes, ciphertextBytes, shards: shards.length, folder: options.out },
        () => {
          output.line(
            `sealed ${counted(files.count, "file")} (${formatBytes(files.bytes)}) into ${counted(shards.length, "shard")}${sealed.resumedShards > 0 ? `, ${sealed.resumedShards} kept from before` : ""}`,
            "good",
          )
          output.line(`manifest  ${sealed.digest}`)
          output.line(`key       ${identityPath(options.out)} (who has it can open the artifact)`)
        },
      )
    })
}

interface SealOptions {
  readonly out: string
  readonly kind: (typeof kinds)[number]
  readonly name: string
  readonly recipient: "hybrid" | "x25519"
  readonly shardBytes?: number
}

function parseKind(text: string): (typeof kinds)[number] {
  const kind = kinds.find((known) => known === text)
  if (kind === undefined) throw new InvalidArgumentError(`must be one of ${kinds.join(", ")}`)
  return kind
}

/** @throws {InvalidArgumentError} */
export function parseRecipientKind(text: string): "hybrid" | "x25519" {
  if (text === "hybrid" || text === "x25519") return text
  throw new InvalidArgumentError("must be hybrid or x25519")
}

function parseCount(text: string): number {
  if (!/^[1-9][0-9]{0,14}$/.test(text)) throw new InvalidArgumentError("must be a positive whole number")
  return Number(text)
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`
}
