import assert from "node:assert/strict"
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { test } from "node:test"
import { applianceFaults, applianceOf, inspectRoot, type RootFacts } from "./appliance.ts"
import { listTree } from "./tree.ts"

const locked = "root:!*:::::::\nnobody:!*:::::::\n"

async function inspect(files: Readonly<Record<string, string>>, modes: Readonly<Record<string, number>> = {}): Promise<RootFacts> {
  const root = await mkdtemp(join(tmpdir(), "perun-root-"))
  try {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(root, path)), { recursive: true })
      await writeFile(join(root, path), text)
      await chmod(join(root, path), modes[path] ?? 0o644)
    }
    return await inspectRoot(root, await listTree(root))
  } finally {
    await rm(root, { recursive: true })
  }
}

test("inspectRoot() finds nothing in a root that is an appliance's", async () => {
  assert.deepEqual(applianceFaults(await inspect({ "etc/shadow": locked, "usr/bin/bwrap": "" }, { "usr/bin/bwrap": 0o755 })), [])
})

for (const [name, files, modes, fact] of [
  ["a login program", { "etc/shadow": locked, "usr/sbin/agetty": "" }, {}, "loginPrograms"],
  ["an SSH server", { "etc/shadow": locked, "usr/sbin/sshd": "" }, {}, "loginPrograms"],
  ["an account without a lock", { "etc/shadow": "root::19000:0:99999:7:::\n" }, {}, "openAccounts"],
  ["a password", { "etc/shadow": "root:$y$j9T$abc:19000:0:99999:7:::\n" }, {}, "openAccounts"],
  ["a setuid program", { "etc/shadow": locked, "usr/bin/mount": "" }, { "usr/bin/mount": 0o4755 }, "setuidPrograms"],
  ["a setgid program", { "etc/shadow": locked, "usr/bin/wall": "" }, { "usr/bin/wall": 0o2755 }, "setuidPrograms"],
  ["swap", { "etc/shadow": locked, "usr/sbin/swapon": "" }, {}, "swap"],
  ["a kernel module", { "etc/shadow": locked, "usr/lib/modules/6/a.ko": "" }, {}, "kernelModules"],
  ["a boot service", { "etc/shadow": locked, "etc/rcS.d/S01x": "" }, {}, "services"],
] as const) {
  test(`inspectRoot() finds ${name}`, async () => {
    const faults = applianceFaults(await inspect(files, modes))
    assert.equal(faults.length, 1)
    assert.ok(faults[0]?.startsWith(`${fact}: `), faults[0])
  })
}

test("applianceOf() states what level sealed asks for", () => {
  const none: RootFacts = { loginPrograms: [], openAccounts: [], setuidPrograms: [], swap: [], kernelModules: [], services: [] }
  const verity = [{ parameter: "perun.root", rootHash: "ab".repeat(32) }]
  assert.deepEqual(applianceOf(none, verity), {
    verity,
    ...{
      login: "none",
      tpmAccess: "agent",
      ptrace: "off",
      swap: "off",
      coreDumps: "off",
      suspend: "off",
      kexec: "off",
      programs: "verity-root-only",
    },
  })
  assert.equal(applianceOf({ ...none, openAccounts: ["root"] }, verity).login, "possible")
  assert.equal(applianceOf({ ...none, setuidPrograms: ["/usr/bin/su"] }, verity).tpmAccess, "others")
  assert.equal(applianceOf({ ...none, swap: ["/etc/fstab"] }, verity).swap, "on")
})
