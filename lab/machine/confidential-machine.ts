import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { TeeRequirement } from "../../src/policy/tee.ts"
import type { TdxProcessor } from "../devices/tdx-processor.ts"
import { bootMachine, type Machine, type MachineEnd, type MachineOptions } from "./boot.ts"
import { launchOfQemu } from "./launch.ts"
import { channelAddress } from "./qemu.ts"

/** What is not for these: their device lives in this process, and the channel is its own. */
export interface ConfidentialMachineOptions extends Omit<MachineOptions, "detached" | "channelSocket" | "onLaunch"> {
  /** Whose device the machine carries. */
  readonly processor: TdxProcessor
}

/** A machine with a laboratory's TEE device beside its TPM. INSECURE LABORATORY: its host reads its memory as that of any other. */
export interface ConfidentialMachine extends AsyncDisposable {
  readonly machine: Machine
  /** What exactly this machine meets, computed from the bytes that QEMU was given. */
  readonly requirement: TeeRequirement
  /** Ends machine and device. */
  stop(): Promise<MachineEnd>
}

/** Where such a machine asks its device; from elsewhere nothing answers there. */
export const teeUrlForGuests: `http://${string}` = `http://${channelAddress}`

/**
 * Boots a machine whose device was told nothing: it reads the files in QEMU's own arguments, just before QEMU does, and quotes what it measured there. The device listens on a
 * socket of a private folder, which only this machine's QEMU joins to an address of its guest.
 * @throws {LabError} as bootMachine, and `build-failed` where something cannot be measured
 */
export async function startConfidentialMachine({ processor, ...options }: ConfidentialMachineOptions): Promise<ConfidentialMachine> {
  // Made with mode 0700.
  const folder = await mkdtemp(join(tmpdir(), "perun-tee-"))
  await using cleanUp = new AsyncDisposableStack()
  cleanUp.defer(async () => rm(folder, { recursive: true, force: true }))
  const channelSocket = join(folder, "device")
  let requirement: TeeRequirement | undefined
  const machine = await bootMachine({
    ...options,
    channelSocket,
    onLaunch: async (words) => {
      const device = await processor.start(await launchOfQemu(words), channelSocket)
      cleanUp.use(device)
      ;({ requirement } = device)
    },
  })
  if (requirement === undefined) throw new Error("internal: the machine started without its device")
  const device = cleanUp.move()
  // Also when the guest turns itself off.
  const ended = machine.ended.then(async (end) => {
    await device.disposeAsync()
    return end
  })
  const stop = async (): Promise<MachineEnd> => {
    await machine.stop()
    return ended
  }
  return { machine, requirement, stop, [Symbol.asyncDispose]: async () => void (await stop()) }
}
