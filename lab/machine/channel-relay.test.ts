import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { smallLaunch } from "../devices/launch.testing.ts"
import { TdxProcessor } from "../devices/tdx-processor.ts"
import { collectTee } from "../../src/evidence/tee/collectors/collect.ts"

test("channel-relay.ts joins each connection that it is started for to the device's socket", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-relay-"))
  const socket = join(folder, "device")
  const relay = fileURLToPath(new URL("channel-relay.ts", import.meta.url))
  // As QEMU does: one program for each connection, with that as all three standard streams.
  const server = createServer({ pauseOnConnect: true }, (connection) => {
    spawn(process.execPath, ["--no-warnings", relay, socket], { stdio: [connection, connection, connection] }).on("exit", () => connection.destroy())
  })
  try {
    await using _device = await new TdxProcessor().start(smallLaunch(), socket)
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}` as const
    for (const byte of [1, 2]) {
      const evidence = await collectTee(url, new Uint8Array(64).fill(byte))
      assert.ok(evidence.kind === "tdx" && evidence.eventLog !== undefined)
    }
  } finally {
    server.close()
    await rm(folder, { recursive: true, force: true })
  }
})
