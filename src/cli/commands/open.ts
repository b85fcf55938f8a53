import type { Command } from "commander"
import { readFileBounded } from "../../bytes/durable.ts"
import { parseUtf8 } from "../../bytes/text.ts"
import { loadManifest } from "../../client/deposit.ts"
import { artifactFolder, identityPath } from "../../sealing/blobs.ts"
import { openArtifact, verifyArtifact } from "../../sealing/open-artifact.ts"
import { manifestDigest } from "../../sealing/manifest.ts"
import { UsageError } from "../exit.ts"
import { interruptSignal } from "../interrupt.ts"
import { formatBytes, type Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  command
    .argument("<folder>", "sealed artifact, as perun seal leaves it")
    .option("--out <folder>", "where the files go; must not exist, or be empty")
    .option("--key <file>", "age identity that opens it (default: <folder>.identity.age)")
    .option("--verify-only", "check signature, sizes and digests of the ciphertext; needs no key")
    .action(async (folder: string, options: { out?: string; key?: string; verifyOnly?: true }) => {
      const signed = await loadManifest(folder)
      const blobs = artifactFolder(folder, signed.manifest)
      const progress = output.progress()
      using interrupt = interruptSignal()
      const common = {
        signed,
        blobs,
        signal: interrupt.signal,
        onProgress: ({ phase, doneBytes, totalBytes }: { phase: string; doneBytes: number; totalBytes: number }) =>
          progress.update(phase, doneBytes, totalBytes),
      }
      const manifest = manifestDigest(signed.manifest)
      if (options.verifyOnly === true) {
        await verifyArtifact(common).finally(() => progress.end())
        return output.result({ ok: true, manifest }, () => output.line(`whole and signed by ${signed.manifest.owner}: ${manifest}`, "good"))
      }
      if (options.out === undefined) throw new UsageError("--out says where the files go (or --verify-only)")
      const identity = parseUtf8(await readFileBounded(options.key ?? identityPath(folder), 65_536)).trim()
      const { files } = await openArtifact({ ...common, identity, destination: options.out }).finally(() => progress.end())
      const bytes = files.reduce((sum, file) => sum + file.sizeBytes, 0)
      output.result({ ok: true, manifest, files: files.length, bytes, folder: options.out }, () =>
        output.line(`opened ${files.length} files (${formatBytes(bytes)}) into ${options.out}`, "good"),
      )
    })
}
