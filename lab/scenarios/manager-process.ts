import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Digest } from "../../src/bytes/digest.ts"
import { storeCollateral } from "../../src/evidence/collateral/cache.ts"
import type { TeeEvidence } from "../../src/evidence/tee/format.ts"
import { teeRootsFor } from "../../src/evidence/tee/roots.ts"
import { parsePemCertificates } from "../../src/pki/certificate.ts"
import { laboratoryDcapRoot } from "../../src/evidence/dcap/roots.ts"
import { admitMembers, type Member } from "../../src/manager/members.ts"
import { managerCollateralFolder, membersPath } from "../../src/manager/folder.ts"
import { initManager } from "../../src/manager/state.ts"
import type { AttestedManager } from "../../src/policy/document.ts"
import { measureProgram } from "../devices/program.ts"
import { labTdRequirement } from "../devices/td.ts"
import { tdFiles } from "../devices/td-folder.ts"
import { LabError } from "../error.ts"
import { dyingWithUs } from "../process.ts"

/** A policy manager in a process of its own, started by the command line that users type, on a laboratory's TD. INSECURE LABORATORY. */
export interface ManagerProcess extends AsyncDisposable {
  /** `https://127.0.0.1:port`, as programs on this machine reach it. */
  readonly url: string
  /** `https://10.0.2.2:port`, as a machine in QEMU's user network reaches it. */
  readonly urlForGuests: string
  /** SSH text of the manager's key. */
  readonly key: string
  /** What the policies demand of it: computed from this checkout's own files, not asked from the device. */
  readonly requirement: AttestedManager
  readonly pid: number
  /** Puts into its folder what vouches for this platform, as its operator does. */
  keepCollateral(evidence: TeeEvidence, laboratoryRoot: Digest): Promise<void>
  /** Lets a key propose policies, as its operator does while it runs. */
  admit(member: Member): Promise<void>
}

/** Makes a manager's state in `folder`, which must not exist, and starts it beside the device that proves it. */
export async function startNewManager(folder: string, laboratoryRoots: readonly Uint8Array[]): Promise<ManagerProcess> {
  await initManager({ folder, laboratoryRoots, vault: { kind: "key-file" } })
  const tdFolder = `${folder}-td`
  const td = await startProgram(["lab", "td", tdFolder, "--port", "0"])
  try {
    const { url: teeUrl = "" } = td.event
    const manager = await startProgram([
      ...["manager", "serve", folder, "--listen", "127.0.0.1:0"],
      ...["--tee", teeUrl, "--collateral", join(tdFolder, tdFiles.collateral)],
    ])
    const { url, key } = manager.event
    if (url === undefined || key === undefined) throw new LabError("program-failed", "the manager did not say where it listens")
    return {
      url,
      key,
      urlForGuests: url.replace("127.0.0.1", "10.0.2.2"),
      requirement: { accept: [{ tdx: labTdRequirement(await measureProgram(), await rootOf(tdFolder)) }] },
      pid: manager.pid,
      keepCollateral: async (evidence, laboratoryRoot) => {
        const judge = { roots: (known: TeeEvidence) => teeRootsFor(known, [laboratoryRoot]), time: Date.now() }
        await storeCollateral(managerCollateralFolder(folder), evidence, judge)
      },
      admit: async (member) => {
        await admitMembers(membersPath(folder), [member])
      },
      [Symbol.asyncDispose]: async () => {
        await manager.end()
        await td.end()
      },
    }
  } catch (error) {
    await td.end()
    throw error
  }
}

async function rootOf(tdFolder: string): Promise<ReturnType<typeof laboratoryDcapRoot>> {
  const [certificate] = parsePemCertificates(await readFile(join(tdFolder, tdFiles.root), "utf8"))
  if (certificate === undefined) throw new LabError("program-failed", "the device wrote no root")
  return laboratoryDcapRoot(certificate)
}

interface RunningProgram {
  readonly event: { readonly url?: string; readonly key?: string }
  readonly pid: number
  end(): Promise<void>
}

/** Starts a command of ours and waits for its event `listening`. @throws {LabError} `program-failed` with its last words */
async function startProgram(words: readonly string[]): Promise<RunningProgram> {
  const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url))
  const [command, all] = dyingWithUs(process.execPath, ["--disable-warning=ExperimentalWarning", main, ...words, "--json"])
  const child = spawn(command, all, { stdio: ["ignore", "pipe", "pipe"], detached: true })
  let lastWords = ""
  child.stderr.setEncoding("utf8").on("data", (text: string) => (lastWords = (lastWords + text).slice(-2000)))
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()))
  const { promise, resolve, reject } = Promise.withResolvers<RunningProgram["event"]>()
  createInterface({ input: child.stdout }).on("line", (line) => {
    const event = JSON.parse(line) as { event?: string; url?: string; key?: string; message?: string }
    if (event.event === "listening") resolve(event)
    else if (event.message !== undefined) lastWords = event.message
  })
  void ended.then(() => reject(new LabError("program-failed", `perun ${words.slice(0, 2).join(" ")} ended: ${lastWords.trim()}`)))
  return {
    event: await promise,
    pid: child.pid ?? 0,
    end: async () => {
      child.kill("SIGTERM")
      await ended
    },
  }
}
