import { readdirSync, readFileSync, statfsSync, statSync } from "node:fs"
import { freemem } from "node:os"
import { join } from "node:path"
import { fromSystemError, readFileBounded } from "../bytes/durable.ts"
import { PerunError } from "../bytes/error.ts"
import { parseBase64 } from "../bytes/text.ts"
import { certificateFingerprint, parseCertificate } from "../pki/certificate.ts"
import { parseMessage } from "../protocol/wire.ts"
import { checkBackup, newestBackup } from "./backup.ts"
import { systemClock } from "./clock.ts"
import { folderPart, membersPath } from "./folder.ts"
import { loadMembers } from "./members.ts"
import { leastFreeBytes } from "./readiness.ts"
import { isRotationLeft, openJournal } from "./rotate-vault.ts"
import { configurationSchema, maxConfigurationBytes, randomBytes } from "./state.ts"
import type { SqliteJournal } from "./sqlite-journal.ts"
import { Store } from "./store.ts"
import { TimeCheck, type TimeSource } from "./time-check.ts"
import { loadVaultFile, openVault, type VaultFile } from "./vault.ts"

/** `good`; `note`: to be known; `warn`: weaker than it could be; `bad`: to be mended. */
export type FindingState = "good" | "note" | "warn" | "bad"

/** What the doctor found about one thing. */
export interface DoctorFinding {
  /** Stable word for programs. */
  readonly check: string
  readonly state: FindingState
  /** What is so. */
  readonly found: string
  /** What to do about it; empty for what is good. */
  readonly advice: string
}

/** Where the doctor looks besides the folder; files of the kernel are given so that tests can show others. */
export interface DoctorWorld {
  readonly backups?: string
  readonly timeSource?: TimeSource
  /** `/proc` */
  readonly proc?: string
  /** Bytes free on the folder's disk. */
  readonly freeBytes?: (folder: string) => number
  readonly nodeVersion?: string
  readonly now?: () => Date
}

/**
 * Looks at a manager's folder and machine and changes nothing. Never throws for what it finds: what cannot be read is a finding.
 * @throws {UnavailableError} for a folder that is not there
 */
export async function examineManager(folder: string, world: DoctorWorld = {}): Promise<readonly DoctorFinding[]> {
  try {
    readdirSync(folder)
  } catch (error) {
    throw fromSystemError(error, folder)
  }
  const vault = await attempt("vault", async () => loadVaultFile(folderPart(folder, "vault")))
  return [
    nodeFinding(world.nodeVersion ?? process.versions.node),
    ...accessFindings(folder),
    ...("finding" in vault ? [vault.finding] : [vaultFinding(vault.value)]),
    await laboratoryFinding(folder),
    await membersFinding(folder),
    ...(await storeFindings(folder, "value" in vault ? vault.value : undefined)),
    diskFinding(folder, world.freeBytes ?? freeBytesOf),
    ...(await backupFindings(world)),
    ...(await timeFindings(world)),
    ...machineFindings(world.proc ?? "/proc"),
  ]
}

type Attempt<T> = { readonly value: T } | { readonly finding: DoctorFinding }

/** What cannot be read is bad, in the words of the error. */
async function attempt<T>(check: string, read: () => Promise<T>): Promise<Attempt<T>> {
  try {
    return { value: await read() }
  } catch (error) {
    if (!(error instanceof PerunError)) throw error
    return { finding: bad(check, `${error.message} [${error.code}]`, "put it back from a backup (perun manager restore)") }
  }
}

function good(check: string, found: string): DoctorFinding {
  return { check, state: "good", found, advice: "" }
}
function note(check: string, found: string, advice = ""): DoctorFinding {
  return { check, state: "note", found, advice }
}
function warn(check: string, found: string, advice: string): DoctorFinding {
  return { check, state: "warn", found, advice }
}
function bad(check: string, found: string, advice: string): DoctorFinding {
  return { check, state: "bad", found, advice }
}

function nodeFinding(version: string): DoctorFinding {
  return Number(version.split(".")[0]) >= 24
    ? good("node", version)
    : bad("node", version, "Node 24 or newer is needed; start by ./perun, which brings it")
}

function accessFindings(folder: string): readonly DoctorFinding[] {
  // What lies in a folder of the owner's alone is behind it; the vault's file has to be shut by itself, for it is copied about.
  const open = [folder, folderPart(folder, "vault")].filter((path) => ((modeOf(path) ?? 0) & 0o077) !== 0)
  const mode = (modeOf(folder) ?? 0).toString(8).padStart(4, "0")
  if (open.length === 0) return [good("access", `${folder} is its owner's alone (${mode})`)]
  return [bad("access", `${open.join(", ")} can be reached by others (${mode})`, `chmod -R go= ${folder}`)]
}

function modeOf(path: string): number | undefined {
  const status = statSync(path, { throwIfNoEntry: false })
  return status === undefined ? undefined : status.mode & 0o777
}

function vaultFinding({ kind }: VaultFile): DoctorFinding {
  if (kind === "key-file")
    return warn(
      "vault",
      "the vault key lies in a plain file",
      "perun manager rotate-vault moves it into a TPM, an enclave or to custodians (docs/vault.md)",
    )
  if (kind === "tpm")
    return note("vault", "sealed to this machine's TPM: no backup opens without it", "for a manager that must outlive its machine use shares")
  return good("vault", kind === "shares" ? "shared among custodians, who unlock every start" : "wrapped under the enclave's sealing key")
}

async function laboratoryFinding(folder: string): Promise<DoctorFinding> {
  const read = await attempt("configuration", async () => {
    const file = await readFileBounded(folderPart(folder, "configuration"), maxConfigurationBytes)
    const { laboratoryRoots } = parseMessage(configurationSchema, file, maxConfigurationBytes)
    return laboratoryRoots.map((root) => certificateFingerprint(parseCertificate(parseBase64(root))).slice(0, 23))
  })
  if ("finding" in read) return read.finding
  const names = read.value
  if (names.length === 0) return good("configuration", "no laboratory root: only machines of real makers may enrol")
  return warn(
    "configuration",
    `INSECURE LABORATORY: ${names.join(", ")} may enrol`,
    "not for real data; a manager made without --laboratory-root takes none",
  )
}

async function membersFinding(folder: string): Promise<DoctorFinding> {
  const read = await attempt("members", async () => loadMembers(membersPath(folder)))
  if ("finding" in read) return read.finding
  const count = read.value.length
  return count === 0
    ? warn("members", "nobody can propose a policy", `perun manager admit --folder ${folder} KEY`)
    : good("members", `${count} keys may propose policies`)
}

async function storeFindings(folder: string, vault: VaultFile | undefined): Promise<readonly DoctorFinding[]> {
  if (isRotationLeft(folder)) return [note("store", "a rotation of the vault was broken off", "the next start ends it or undoes it; nothing is lost")]
  const opened = await attempt("store", async () => openJournal(folder))
  if ("finding" in opened) {
    const isUsed = opened.finding.found.includes("another process")
    // Whoever has it may be a manager that waits for its custodians and has verified nothing.
    return [isUsed ? note("store", "in use by another process: a manager verifies it as it opens it (GET /v1/readyz)") : opened.finding]
  }
  const journal = opened.value
  try {
    if (vault?.kind !== "key-file") return [note("store", `not looked into: its key is not here (${journal.countEntries()} entries of the log)`)]
    const verified = await attempt("store", async () => {
      const key = await openVault(vault, {})
      const store = openStore(journal, key)
      for (let from = 0; from < store.logSize; from += entriesAtOnce) store.logEntries(from, from + entriesAtOnce)
      return store.logSize
    })
    return [
      "finding" in verified ? verified.finding : good("store", `every record and all ${verified.value} entries of the log are as they were written`),
    ]
  } finally {
    journal.close()
  }
}

function openStore(journal: SqliteJournal, vaultKey: Uint8Array): Store {
  try {
    return Store.open({ journal, vaultKey, randomBytes })
  } finally {
    vaultKey.fill(0)
  }
}

const entriesAtOnce = 4096

function diskFinding(folder: string, freeBytes: (folder: string) => number): DoctorFinding {
  const free = freeBytes(folder)
  const words = `${(free / 2 ** 30).toFixed(1)} GiB free`
  return free < leastFreeBytes ? bad("disk", words, `make room: below ${leastFreeBytes / 2 ** 20} MiB the manager is not ready`) : good("disk", words)
}

function freeBytesOf(folder: string): number {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

/** Backups are made every day where nothing else is said; twice that is late. */
const lateHours = 48

async function backupFindings({ backups, now = () => new Date(systemClock.wallMilliseconds()) }: DoctorWorld): Promise<readonly DoctorFinding[]> {
  if (backups === undefined) return [note("backups", "not looked at", "say where they are: --backups FOLDER")]
  const found = await attempt("backups", async () => {
    const newest = await newestBackup(backups)
    return newest === undefined ? undefined : checkBackup(join(backups, newest))
  })
  if ("finding" in found) return [{ ...found.finding, advice: "make another: it would not bring this manager back" }]
  if (found.value === undefined) return [bad("backups", `there is none in ${backups}`, "perun manager serve --backups FOLDER")]
  const { at, receipts, blobs } = found.value
  const hours = (now().getTime() - Date.parse(at)) / 3_600_000
  const words = `the newest is ${hours.toFixed(1)} h old and every file as its list says: ${receipts} receipts, ${blobs} blobs`
  return [hours > lateHours ? warn("backups", words, "look why none was made since") : good("backups", words)]
}

async function timeFindings({ timeSource }: DoctorWorld): Promise<readonly DoctorFinding[]> {
  if (timeSource === undefined)
    return [note("time", "the clock was held against nobody's", "perun manager serve --time-source; here too, to try it (docs/time.md)")]
  const told: string[] = []
  const check = new TimeCheck(timeSource, systemClock, randomBytes, (line) => told.push(line))
  await check.tick()
  if (told.length === 0) return [good("time", `${timeSource.url} bears the clock out`)]
  return [bad("time", told.join("; "), "mend the clock (chrony, systemd-timesyncd) or the way to the authority; nothing is granted meanwhile")]
}

/** What the machine could do to secrets in memory, and what limits the manager. */
function machineFindings(proc: string): readonly DoctorFinding[] {
  const findings: DoctorFinding[] = []
  const swaps = textOf(join(proc, "swaps"))
    .split("\n")
    .slice(1)
    .filter((line) => line !== "")
  findings.push(
    swaps.length === 0
      ? good("swap", "none: secrets in memory do not reach a disk")
      : warn(
          "swap",
          `secrets in memory may reach ${swaps.map((line) => line.split(/\s/)[0]).join(", ")}`,
          "swapoff -a, or swap on dm-crypt with a random key",
        ),
  )
  const limits = textOf(join(proc, "self/limits"))
  const core = softLimit(limits, "Max core file size")
  findings.push(
    core === 0
      ? good("core", "no core dumps")
      : warn("core", "a crash may write memory to the disk", "LimitCORE=0 (perun manager unit has it), or ulimit -c 0"),
  )
  const files = softLimit(limits, "Max open files")
  findings.push(
    files !== undefined && files < leastOpenFiles
      ? warn("files", `at most ${files} open files`, "every host at work holds a connection: LimitNOFILE=65536, or ulimit -n 65536")
      : good("files", `${files === undefined ? "any number of" : `up to ${files}`} open files`),
  )
  const free = freemem()
  findings.push(
    free < leastMemoryBytes
      ? warn("memory", `${Math.round(free / 2 ** 20)} MiB free`, "large bodies are judged in memory: leave it 1 GiB")
      : good("memory", `${(free / 2 ** 30).toFixed(1)} GiB free`),
  )
  return findings
}

/** Ten thousand hosts and their watchers. */
const leastOpenFiles = 16_384
const leastMemoryBytes = 1_073_741_824

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

/** Undefined for `unlimited`, and where the kernel does not say. */
function softLimit(limits: string, name: string): number | undefined {
  const [, soft] = new RegExp(`^${name}\\s+(\\S+)`, "m").exec(limits) ?? []
  return soft === undefined || soft === "unlimited" ? undefined : Number(soft)
}
