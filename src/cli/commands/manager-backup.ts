import type { Command } from "commander"
import { UnavailableError } from "../../bytes/error.ts"
import { type BackupSummary, makeBackup, restoreBackup } from "../../manager/backup.ts"
import { openJournal } from "../../manager/rotate-vault.ts"
import type { Output } from "../output.ts"

export function registerBackup(command: Command, output: Output): void {
  command
    .command("backup")
    .argument("<folder>", "folder of a manager that does not run; one that runs makes its own (manager serve --backups)")
    .requiredOption("--out <folder>", "where it goes; must not exist")
    .description("copy a manager's state as a whole, with a list of every file's digest")
    .action(async (folder: string, { out }: { out: string }) => {
      const journal = await openJournal(folder).catch((cause: unknown) => {
        if (!(cause instanceof UnavailableError) || !cause.message.includes("another process")) throw cause
        throw new UnavailableError("unavailable", "its manager runs, and makes its own backups: manager serve --backups FOLDER", {
          path: folder,
          cause,
        })
      })
      try {
        const summary = await makeBackup(folder, out, journal, new Date())
        output.result({ ok: true, folder: out, ...summary }, () => {
          output.line(`made ${out}`, "good")
          showSummary(summary, output)
          output.line("it holds what the manager's folder holds, a vault key in a file included: keep it as you keep the manager", "warn")
        })
      } finally {
        journal.close()
      }
    })
  command
    .command("restore")
    .argument("<backup>", "folder that manager backup or manager serve --backups made")
    .requiredOption("--out <folder>", "folder of the manager; must not exist")
    .description("make a manager's folder out of a backup whose every file is as it was written")
    .action(async (backup: string, { out }: { out: string }) => {
      const summary = await restoreBackup(backup, out)
      output.result({ ok: true, folder: out, ...summary }, () => {
        output.line(`made ${out}`, "good")
        showSummary(summary, output)
        output.line(
          "parties who saw its log go further than this refuse it (older-tree): what happened since is lost, withdrawals among it, and only they can say what it was",
          "warn",
        )
      })
    })
}

function showSummary({ at, receipts, blobs, bytes }: BackupSummary, output: Output): void {
  output.line(`state of  ${at}`)
  output.line(`holds     ${receipts} receipts, ${blobs} blobs, ${bytes} bytes`)
}
