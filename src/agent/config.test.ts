import assert from "node:assert/strict"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { loadConfigDisk, loadConfigFile } from "./config.ts"

const config = { perun: 1, host: "gpu-host-1", manager: { url: "https://10.0.2.2:7443", key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA" } }

async function withFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "perun-config-"))
  try {
    await action(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function addDisk(folder: string, name: string, serial: string | undefined, content: string): Promise<void> {
  await mkdir(join(folder, "block", name), { recursive: true })
  await mkdir(join(folder, "dev"), { recursive: true })
  if (serial !== undefined) await writeFile(join(folder, "block", name, "serial"), `${serial}\n`)
  await writeFile(join(folder, "dev", name), content)
}

test("loadConfigDisk() reads the disk by its serial, up to the padding", async () => {
  await withFolder(async (folder) => {
    await addDisk(folder, "vda", "perun-root", "\0")
    await addDisk(folder, "vdb", "perun-config", JSON.stringify(config) + "\0".repeat(70_000))
    await addDisk(folder, "nvme0", undefined, "")
    assert.deepEqual(await loadConfigDisk(join(folder, "block"), join(folder, "dev")), config)
  })
})

test("loadConfigDisk() refuses none, several, and a disk of another content", async () => {
  await withFolder(async (folder) => {
    const load = (): Promise<unknown> => loadConfigDisk(join(folder, "block"), join(folder, "dev"))
    await addDisk(folder, "vda", "perun-root", JSON.stringify(config))
    await assert.rejects(load(), { code: "configuration" })
    await addDisk(folder, "vdb", "perun-config", "\0".repeat(100))
    await assert.rejects(load(), { code: "malformed" })
    await addDisk(folder, "vdb", "perun-config", JSON.stringify({ ...config, extra: 1 }))
    await assert.rejects(load(), { code: "unknown-field" })
    await addDisk(folder, "vdc", "perun-config", JSON.stringify(config))
    await assert.rejects(load(), { code: "configuration" })
  })
})

test("loadConfigFile() reads a file, and says when there is none", async () => {
  await withFolder(async (folder) => {
    await writeFile(join(folder, "agent.json"), JSON.stringify({ ...config, once: true, scratch: "/run/perun" }))
    assert.deepEqual(await loadConfigFile(join(folder, "agent.json")), { ...config, once: true, scratch: "/run/perun" })
    await assert.rejects(loadConfigFile(join(folder, "none.json")), { code: "unavailable" })
    await writeFile(join(folder, "plain.json"), JSON.stringify({ ...config, manager: { ...config.manager, url: "http://10.0.2.2" } }))
    await assert.rejects(loadConfigFile(join(folder, "plain.json")), { code: "malformed" })
  })
})
