import assert from "node:assert/strict"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { flipped, smallLaunch } from "../devices/launch.testing.ts"
import { measureTd } from "../devices/td-launch.ts"
import { type Launch, launchOfQemu } from "./launch.ts"
import { qemuArguments } from "./qemu.ts"

const folder = join(await mkdtemp(join(tmpdir(), "perun-launch-")), "a,b c")
await mkdir(folder)
after(async () => rm(join(folder, ".."), { recursive: true, force: true }))
const launch = smallLaunch()
const paths = {
  firmwareCode: join(folder, "code.fd"),
  firmwareVariables: join(folder, "variables.fd"),
  kernel: join(folder, "vmlinuz"),
  initrd: join(folder, "initrd"),
} as const

async function write(of: Launch): Promise<void> {
  for (const [part, path] of Object.entries(paths)) await writeFile(path, of[part as keyof typeof paths])
}

function words(of: Pick<Launch, "commandLine" | "memoryMiB" | "processors"> = launch): readonly string[] {
  return qemuArguments({
    ...paths,
    ...{ commandLine: of.commandLine, memoryMiB: of.memoryMiB, processors: of.processors },
    accelerator: "tcg",
    disks: [{ path: join(folder, "root.img"), serial: "perun-root" }],
    tpmSocket: join(folder, "tpm"),
    consolePath: join(folder, "console"),
    network: "none",
    forwards: [],
    channel: ["relay", "socket"],
  })
}

await write(launch)

test("launchOfQemu() reads the files that QEMU's arguments name", async () => {
  assert.deepEqual(await launchOfQemu(words()), launch)
})

for (const part of ["firmwareCode", "firmwareVariables", "kernel", "initrd"] as const)
  test(`launchOfQemu() sees a changed ${part} under the same arguments, and the registers show it`, async () => {
    await write({ ...launch, [part]: flipped(launch[part], launch[part].length - 1) })
    try {
      const changed = await launchOfQemu(words())
      assert.notDeepEqual(changed[part], launch[part])
      assert.notDeepEqual(measureTd(changed), measureTd(launch))
    } finally {
      await write(launch)
    }
  })

test("launchOfQemu() sees another command line, memory and number of processors", async () => {
  for (const change of [{ commandLine: "-kernel" }, { memoryMiB: 4096 }, { processors: 1 }])
    assert.deepEqual(await launchOfQemu(words({ ...launch, ...change })), { ...launch, ...change })
})

test("launchOfQemu() refuses what would start something that it does not measure", async () => {
  const refused = { name: "LabError", code: "build-failed" }
  for (const more of [
    ["-kernel", paths.kernel],
    ["-append", ""],
    ["-drive", `if=pflash,unit=0,file=${paths.initrd}`],
    ["-bios", paths.firmwareCode],
    ["-dtb", paths.initrd],
    ["-incoming", "tcp:0:1"],
    ["-m"],
  ])
    await assert.rejects(launchOfQemu([...words(), ...more]), refused, more.join(" "))
  const without = (option: string): readonly string[] => words().filter((word, at, all) => word !== option && all[at - 1] !== option)
  for (const option of ["-kernel", "-initrd", "-append", "-m", "-smp", "-drive"]) await assert.rejects(launchOfQemu(without(option)), refused, option)
})
