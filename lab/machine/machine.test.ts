import assert from "node:assert/strict"
import { appendFile, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { configurationDisk, stopMachineOf } from "./boot.ts"
import { ConsoleFile } from "./console.ts"
import { qemuArguments, type QemuPlan } from "./qemu.ts"
import { shownBytes } from "./shown.ts"

const plan: QemuPlan = {
  accelerator: "tcg",
  firmwareCode: "/code.fd",
  firmwareVariables: "/tmp/a,b/vars.fd",
  kernel: "/vmlinuz",
  initrd: "/initrd",
  commandLine: "quiet perun.root=5,ab",
  disks: [
    { path: "/root.img", serial: "perun-root" },
    { path: "/config.img", serial: "perun-config" },
  ],
  tpmSocket: "/tmp/tpm",
  consolePath: "/console",
  memoryMiB: 1024,
  processors: 2,
  network: "host",
  forwards: [{ host: 8080, guest: 80 }],
}

function after(words: readonly string[], option: string): readonly string[] {
  return words.flatMap((word, index) => (word === option ? [words[index + 1] ?? ""] : []))
}

test("qemuArguments() gives disks their serials and throw-away layers, in order", () => {
  const words = qemuArguments(plan)
  const drives = after(words, "-drive").filter((drive) => drive.includes("if=none"))
  assert.equal(drives.length, 2)
  assert.ok(drives.every((drive) => drive.includes("snapshot=on")))
  assert.ok(after(words, "-device").some((device) => device.includes("serial=perun-root")))
  assert.deepEqual(after(words, "-append"), ["quiet perun.root=5,ab"])
})

test("qemuArguments() doubles commas in paths, which would end an option", () => {
  assert.ok(after(qemuArguments(plan), "-drive").some((drive) => drive.endsWith("file=/tmp/a,,b/vars.fd")))
})

test("qemuArguments() closes the network where none is wanted, and forwards from this host only", () => {
  assert.match(after(qemuArguments({ ...plan, network: "none", forwards: [] }), "-netdev")[0] ?? "", /restrict=on/)
  const open = after(qemuArguments(plan), "-netdev")[0] ?? ""
  assert.doesNotMatch(open, /restrict=on/)
  assert.match(open, /hostfwd=tcp:127\.0\.0\.1:8080-10\.0\.2\.15:80/)
})

test("qemuArguments() gives a machine its own channel, also without a network, and none unless it is asked", () => {
  const channel = ["/usr/bin/node", "/tmp/it's, here/relay.ts", "/tmp/socket"]
  const netdev = after(qemuArguments({ ...plan, network: "none", channel }), "-netdev")[0] ?? ""
  assert.match(netdev, /restrict=on/)
  assert.ok(netdev.endsWith(String.raw`,guestfwd=tcp:10.0.2.4:8090-cmd:'/usr/bin/node' '/tmp/it'\''s,, here/relay.ts' '/tmp/socket'`), netdev)
  assert.doesNotMatch(after(qemuArguments(plan), "-netdev")[0] ?? "", /guestfwd/)
})

test("qemuArguments() uses the processor of the host under KVM only", () => {
  assert.deepEqual(after(qemuArguments(plan), "-cpu"), ["max"])
  assert.deepEqual(after(qemuArguments({ ...plan, accelerator: "kvm" }), "-cpu"), ["host"])
})

test("configurationDisk() pads with NUL to whole sectors", () => {
  assert.equal(configurationDisk("{}").length, 4096)
  const large = configurationDisk("x".repeat(5000))
  assert.equal(large.length, 5120)
  assert.equal(large[4999], 0x78)
  assert.equal(large[5000], 0)
})

test("ConsoleFile.find() sees text that comes later, and gives up when told that no more comes", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-console-"))
  try {
    const path = join(folder, "console")
    const file = new ConsoleFile(path)
    assert.equal(await file.text(), "")
    await writeFile(path, "first\r\nsecond 12\r\n")
    assert.equal(await file.find(/second \d+/, () => true), "second 12")
    const later = file.find("third", () => false)
    await appendFile(path, "third\r\n")
    assert.equal(await later, "third")
    assert.equal(await file.find("never", () => true), undefined)
    assert.equal(await file.text(), "first\nsecond 12\nthird\n")
  } finally {
    await rm(folder, { recursive: true })
  }
})

test("stopMachineOf() leaves alone what is no machine of ours", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-stop-"))
  try {
    assert.equal(await stopMachineOf(folder), false)
    await writeFile(join(folder, "machine.json"), JSON.stringify({ qemu: process.pid, swtpm: 2 ** 22 }))
    assert.equal(await stopMachineOf(folder), false)
  } finally {
    await rm(folder, { recursive: true })
  }
})

test("shownBytes() reads what a probe showed between other lines", () => {
  const text = "noise\nperun-probe: begin ima\nAQID\nBA==\n\nperun-probe: end ima\nnoise"
  assert.deepEqual(shownBytes(text, "ima"), new Uint8Array([1, 2, 3, 4]))
  assert.throws(() => shownBytes(text, "events"), { code: "build-failed" })
})
