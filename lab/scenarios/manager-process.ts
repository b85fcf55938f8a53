import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { admitMembers, type Member } from "../../src/manager/members.ts"
import { initManager, membersPath } from "../../src/manager/state.ts"
import { LabError } from "../error.ts"
import { dyingWithUs } from "../process.ts"

/** A policy manager in a process of its own, started by the command line that users type. */
export interface ManagerProcess extends AsyncDisposable {
  /** `https://127.0.0.1:port`, as programs on this machine reach it. */
  readonly url: string
  /** `https://10.0.2.2:port`, as a machine in QEMU's user network reaches it. */
  readonly urlForGuests: string
  /** SSH text of the manager's key, which the policies pin. */
  readonly key: string
  readonly pid: number
  /** Lets a key propose policies, as its operator does while it runs. */
  admit(member: Member): Promise<void>
  /** Ends it as SIGKILL does. */
  kill(): Promise<void>
}

/** Makes a manager's state in `folder`, which must not exist, and starts it. */
export async function startNewManager(folder: string, laboratoryRoots: readonly Uint8Array[]): Promise<ManagerProcess> {
  await initManager({ folder, laboratoryRoots })
  return await startManager(folder)
}

/** Starts a manager over an existing state. @throws {LabError} `program-failed` with its last words */
export async function startManager(folder: string, port = 0): Promise<ManagerProcess> {
  const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url))
  const [command, words] = dyingWithUs(process.execPath, [
    "--disable-warning=ExperimentalWarning",
    main,
    ...["manager", "serve", folder, "--json", "--listen", `127.0.0.1:${port}`],
  ])
  const child = spawn(command, words, { stdio: ["ignore", "pipe", "pipe"], detached: true })
  let lastWords = ""
  child.stderr.setEncoding("utf8").on("data", (text: string) => (lastWords = (lastWords + text).slice(-2000)))
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()))
  const { promise, resolve, reject } = Promise.withResolvers<{ readonly url: string; readonly key: string }>()
  createInterface({ input: child.stdout }).on("line", (line) => {
    const event = JSON.parse(line) as { event?: string; url?: string; key?: string; message?: string }
    if (event.event === "listening" && event.url !== undefined && event.key !== undefined) resolve({ url: event.url, key: event.key })
    else if (event.message !== undefined) lastWords = event.message
  })
  void ended.then(() => reject(new LabError("program-failed", `the manager ended: ${lastWords.trim()}`)))
  const { url, key } = await promise
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal)
    await ended
  }
  return {
    url,
    key,
    urlForGuests: url.replace("127.0.0.1", "10.0.2.2"),
    pid: child.pid ?? 0,
    admit: async (member) => {
      await admitMembers(membersPath(folder), [member])
    },
    kill: () => end("SIGKILL"),
    [Symbol.asyncDispose]: () => end("SIGTERM"),
  }
}
