import { existsSync } from "node:fs"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { parseEventLog } from "../../evidence/eventlog/format.ts"
import { eventTypes } from "../../evidence/eventlog/types.ts"
import { encodeImaList, isViolation, parseImaList, templateHashInput, type ImaRecord } from "../../evidence/ima/format.ts"
import { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import { noSoftwareTpm, startSoftwareTpm } from "../../evidence/tpm/client/swtpm.testing.ts"
import type { TpmLocation } from "../../evidence/tpm/client/transport.ts"
import { hash } from "../../pki/signatures.ts"

const vectors = process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../../shared/vectors")
const captured = join(vectors, "host/violation-sig")
/** Why there is no such machine here; false where there is one. */
export const noReplayedMachine = noSoftwareTpm !== false ? noSoftwareTpm : existsSync(captured) ? false : "skipped: no vectors"

/** A machine whose kernel shows a captured boot, on a software TPM that was extended with just that. */
export interface ReplayedMachine extends AsyncDisposable {
  readonly location: TpmLocation
  readonly paths: { readonly bootLog: string; readonly imaList: string; readonly imaCount: string }
  readonly records: readonly ImaRecord[]
  /** The kernel extends the register with the entries of that range. */
  measure(from: number, to: number, tpm?: HostTpm): Promise<void>
  /** The list shows the first `count` entries. */
  show(count: number): Promise<void>
}

export async function replayMachine(): Promise<ReplayedMachine> {
  const software = await startSoftwareTpm()
  const folder = await mkdtemp(join(tmpdir(), "perun-machine-"))
  const path = (name: string): string => join(folder, name)
  const bootLog = new Uint8Array(await readFile(join(captured, "eventlog.bin")))
  const records = parseImaList(new Uint8Array(await readFile(join(captured, "ima.bin"))))
  await writeFile(path("boot"), bootLog)
  {
    await using tpm = await HostTpm.open(software.location)
    for (const { type, register, digests } of parseEventLog(bootLog).events)
      if (type !== eventTypes.EV_NO_ACTION) await tpm.pcrExtend(register, "sha256", digests.get("sha256") ?? new Uint8Array(0))
  }
  return {
    location: software.location,
    paths: { bootLog: path("boot"), imaList: path("list"), imaCount: path("count") },
    records,
    measure: async (from, to, tpm) => {
      await using own = tpm === undefined ? await HostTpm.open(software.location) : undefined
      for (const record of records.slice(from, to)) await (tpm ?? own)?.pcrExtend(record.pcr, "sha256", registerDigest(record))
    },
    show: async (count) => {
      await writeFile(path("list"), encodeImaList(records.filter((_, index) => index < count)))
      await writeFile(path("count"), `${count}\n`)
    },
    [Symbol.asyncDispose]: async () => {
      await rm(folder, { recursive: true })
      await software[Symbol.asyncDispose]()
    },
  }
}

/** What the kernel extends the SHA-256 bank with. */
export function registerDigest(record: ImaRecord): Uint8Array {
  return isViolation(record) ? new Uint8Array(32).fill(0xff) : hash("sha256", templateHashInput(record))
}
