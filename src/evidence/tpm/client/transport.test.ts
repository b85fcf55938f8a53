import assert from "node:assert/strict"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { UnavailableError } from "../../../bytes/error.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { TpmConnection } from "./connection.ts"
import { TpmError } from "./errors.ts"
import { HostTpm } from "./host-tpm.ts"
import { noSoftwareTpm, startSoftwareTpm } from "./swtpm.testing.ts"
import { openTransport } from "./transport.ts"

const command = new ByteWriter().u16be(0x8001).u32be(12).u32be(0x17b).u16be(8).take()
const goodResponse = new ByteWriter().u16be(0x8001).u32be(14).u32be(0).u16be(2).u16be(7).take()

function isUnavailable(code: UnavailableError["code"]): (error: unknown) => boolean {
  return (error) => error instanceof UnavailableError && error.code === code && !error.message.includes("\n")
}

/** A TPM that does with each connection what the test says. */
async function fakeTpm(serve: (socket: Socket) => void): Promise<{ readonly unix: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "perun-faketpm-"))
  const unix = join(folder, "tpm")
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on("error", () => undefined)
    serve(socket)
  })
  await new Promise<void>((resolve) => server.listen(unix, resolve))
  return {
    unix,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
      await rm(folder, { recursive: true })
    },
  }
}

test("openTransport() says which TPM is not there", async () => {
  await assert.rejects(openTransport({ device: "/nonexistent/tpmrm0" }), isUnavailable("unavailable"))
  await assert.rejects(openTransport({ unix: "/nonexistent/tpm" }), isUnavailable("unavailable"))
  await assert.rejects(openTransport({ host: "127.0.0.1", port: 1 }), isUnavailable("unavailable"))
  await assert.rejects(HostTpm.open({ device: "/nonexistent/tpmrm0" }), isUnavailable("unavailable"))
})

test(
  "openTransport() says when it may not open the device",
  { skip: process.getuid?.() === 0 ? "skipped: root may open everything" : false },
  async () => {
    await assert.rejects(openTransport({ device: "/dev/mem" }), isUnavailable("permission-denied"))
  },
)

test("transmit() to a device without response is unavailable, and stays so", async () => {
  await using transport = await openTransport({ device: "/dev/null" })
  await assert.rejects(transport.transmit(command, 1000), isUnavailable("unavailable"))
  await assert.rejects(transport.transmit(command, 1000), isUnavailable("unavailable"))
})

test("transmit() to a device reads at most 4096 bytes in one read", async () => {
  await using transport = await openTransport({ device: "/dev/zero" })
  assert.equal((await transport.transmit(command, 1000)).length, 4096)
})

test("transmit() to a file that is no device is unavailable", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-notpm-"))
  await writeFile(join(folder, "file"), "")
  {
    await using transport = await openTransport({ device: join(folder, "file") })
    await assert.rejects(transport.transmit(command, 1000), isUnavailable("unavailable"))
  }
  await rm(folder, { recursive: true })
})

test("transmit() joins a response that comes in pieces", async () => {
  await using fake = await fakeTpm((socket) =>
    socket.on("data", async () => {
      for (const byte of goodResponse) {
        socket.write(Uint8Array.of(byte))
        await sleep(1)
      }
    }),
  )
  await using transport = await openTransport(fake)
  assert.deepEqual(await transport.transmit(command, 5000), goodResponse)
  assert.deepEqual(await transport.transmit(command, 5000), goodResponse)
})

const brokenServers: readonly (readonly [name: string, serve: (socket: Socket) => void])[] = [
  ["closes at once", (socket) => socket.end()],
  ["closes in the middle of a command", (socket) => socket.on("data", () => socket.destroy())],
  ["closes in the middle of a response", (socket) => socket.on("data", () => socket.end(goodResponse.slice(0, 9)))],
  ["announces 4 GiB", (socket) => socket.on("data", () => socket.write(new ByteWriter().u16be(0x8001).u32be(0xffffffff).u32be(0).take()))],
]
for (const [name, serve] of brokenServers) {
  test(`transmit() to a TPM that ${name} is unavailable`, async () => {
    await using fake = await fakeTpm(serve)
    await using transport = await openTransport(fake)
    await assert.rejects(transport.transmit(command, 5000), isUnavailable("unavailable"))
    await assert.rejects(transport.transmit(command, 5000), isUnavailable("unavailable"))
  })
}

test("transmit() gives up a silent TPM for good: a late response is never taken for another command's", async () => {
  await using fake = await fakeTpm((socket) => socket.on("data", () => setTimeout(() => socket.write(goodResponse), 150)))
  await using transport = await openTransport(fake)
  await assert.rejects(transport.transmit(command, 50), isUnavailable("timeout"))
  await sleep(150)
  await assert.rejects(transport.transmit(command, 1000), isUnavailable("timeout"))
})

test("transmit() refuses a response that came before the command", async () => {
  await using fake = await fakeTpm((socket) => socket.write(goodResponse))
  await using transport = await openTransport(fake)
  await sleep(50)
  await assert.rejects(transport.transmit(command, 1000), isUnavailable("unavailable"))
})

test("a software TPM that is killed in the middle of the work is unavailable, in one line", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  await tpm.getRandom(8)
  software.process.kill("SIGSTOP")
  const pending = assert.rejects(tpm.sealToPcrs(new Uint8Array(8), { bank: "sha256", pcrs: [0] }), isUnavailable("unavailable"))
  software.process.kill("SIGKILL")
  await pending
  await assert.rejects(tpm.getRandom(8), isUnavailable("unavailable"))
})

interface ScriptedResponse {
  readonly code: number
  readonly body?: Uint8Array
  readonly tag?: number
  readonly sizeBytes?: number
}

/** A TPM that answers every command with the given bodies, the last one for ever. */
function scriptedTpm(
  ...bodies: readonly { readonly code: number; readonly body?: Uint8Array; readonly tag?: number; readonly sizeBytes?: number }[]
): {
  readonly tpm: TpmConnection
  readonly count: () => number
} {
  let sent = 0
  const transport = {
    name: "scripted",
    transmit: async () => {
      const {
        code,
        body = new Uint8Array(0),
        tag = 0x8001,
        sizeBytes = 10 + body.length,
      } = bodies[Math.min(sent++, bodies.length - 1)] ?? { code: 0 }
      return new ByteWriter().u16be(tag).u32be(sizeBytes).u32be(code).bytes(body).take()
    },
    [Symbol.asyncDispose]: async () => undefined,
  }
  return { tpm: new TpmConnection(transport), count: () => sent }
}

const isTpmError = (code: TpmError["code"]) => (error: unknown) => error instanceof TpmError && error.code === code

test("execute() tries again while the TPM is busy, and gives up after a while", { timeout: 60_000 }, async () => {
  const passing = scriptedTpm({ code: 0x922 }, { code: 0x908 }, { code: 0x90a }, { code: 0, body: Uint8Array.of(1) })
  assert.deepEqual((await passing.tpm.execute({ command: "GetRandom" })).parameters, Uint8Array.of(1))
  assert.equal(passing.count(), 4)
  const lockedOut = scriptedTpm({ code: 0x921 })
  await assert.rejects(lockedOut.tpm.execute({ command: "GetRandom" }), isTpmError("lockout"))
  assert.equal(lockedOut.count(), 1)
})

test("execute() refuses responses of wrong form", async () => {
  const execute = (response: ScriptedResponse): Promise<unknown> => scriptedTpm(response).tpm.execute({ command: "GetRandom" })
  await assert.rejects(execute({ code: 0, tag: 0x8002 }), isTpmError("forged-response"))
  await assert.rejects(execute({ code: 0, sizeBytes: 11 }), { code: "malformed" })
  await assert.rejects(execute({ code: 0, sizeBytes: 9 }), { code: "malformed" })
  await assert.rejects(execute({ code: 0x921, body: Uint8Array.of(1) }), { code: "trailing-bytes" })
  await assert.rejects(execute({ code: 0x100 }), isTpmError("not-started"))
})

test("execute() sends one command at a time, in order", async () => {
  const order: string[] = []
  const transport = {
    name: "slow",
    transmit: async (message: Uint8Array) => {
      order.push(`in ${message.length}`)
      await sleep(5)
      order.push(`out ${message.length}`)
      return new ByteWriter()
        .u16be(0x8001)
        .u32be(10)
        .u32be(message.length === 12 ? 0x921 : 0)
        .take()
    },
    [Symbol.asyncDispose]: async () => undefined,
  }
  const tpm = new TpmConnection(transport)
  const sent = [11, 12, 13].map((sizeBytes) => tpm.execute({ command: "GetRandom", parameters: new Uint8Array(sizeBytes - 10) }))
  await Promise.allSettled(sent)
  assert.deepEqual(order, ["in 11", "out 11", "in 12", "out 12", "in 13", "out 13"])
})

test("getRandom() of a TPM without entropy is unavailable", async () => {
  const { tpm } = scriptedTpm({ code: 0, body: new ByteWriter().u16be(0).take() })
  await assert.rejects(HostTpm.over(tpm).getRandom(32), isUnavailable("unavailable"))
})
