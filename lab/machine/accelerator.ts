import { spawn } from "node:child_process"
import { constants } from "node:fs"
import { access, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { release, tmpdir } from "node:os"
import { join } from "node:path"
import { cacheFolder, withLock } from "../cache.ts"
import { dyingWithUs, runProgram } from "../process.ts"

/**
 * `kvm` only where a probe guest really ran under it on this kernel and QEMU: /dev/kvm alone proves nothing inside nested machines. Found out once per
 * kernel, QEMU version and start of this host.
 */
export async function chooseAccelerator(): Promise<"kvm" | "tcg"> {
  if (
    !(await access("/dev/kvm", constants.R_OK | constants.W_OK)
      .then(() => true)
      .catch(() => false))
  )
    return "tcg"
  const version = await runProgram("qemu-system-x86_64", ["--version"])
  const key = `${release()} ${version.split("\n")[0] ?? ""} ${(await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim()}`
  return await withLock("accelerator", async () => {
    const path = join(cacheFolder(), "accelerator.json")
    const known = await readFile(path, "utf8").catch(() => "")
    const [knownKey, knownResult] = known.split("\n")
    if (knownKey === key && (knownResult === "kvm" || knownResult === "tcg")) return knownResult
    const result = (await probeGuestRuns()) ? "kvm" : "tcg"
    await writeFile(path, `${key}\n${result}\n`)
    return result
  })
}

/** Runs 16-bit code from a 64 KiB "BIOS" of ours that writes a word to the debug port and powers off by its exit device. */
async function probeGuestRuns(): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), "perun-probe-"))
  try {
    const bios = join(folder, "bios.bin")
    await writeFile(bios, probeBios())
    const child = spawn(
      ...dyingWithUs("qemu-system-x86_64", [
        ...[
          "-nodefaults",
          "-no-user-config",
          "-no-reboot",
          "-display",
          "none",
          "-machine",
          "q35",
          "-accel",
          "kvm",
          "-cpu",
          "host",
          "-smp",
          "2",
          "-m",
          "64",
        ],
        ...["-bios", bios, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
      ]),
      { stdio: "ignore", timeout: probeTimeoutMs, killSignal: "SIGKILL" },
    )
    const { promise, resolve } = Promise.withResolvers<number | null>()
    child.on("error", () => resolve(null))
    child.on("close", resolve)
    // isa-debug-exit turns the value v that the guest writes into status 2v + 1.
    return (await promise) === 2 * probeValue + 1
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** At the reset vector, 16 bytes before the end: mov al, probeValue; out 0xf4, al; hlt. */
function probeBios(): Uint8Array {
  const bios = new Uint8Array(0x10000).fill(0xf4)
  bios.set([0xb0, probeValue, 0xe6, 0xf4, 0xf4], bios.length - 16)
  return bios
}

const probeValue = 0x2a
const probeTimeoutMs = 15_000
