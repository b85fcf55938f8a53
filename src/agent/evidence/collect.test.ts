import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { ByteReader } from "../../bytes/reader.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { decodeHostBundle, hostBundleSchema } from "../../evidence/bundle.ts"
import { hostPcrs, previousHost, verifyHost, type HostExpectation } from "../../evidence/host/verify.ts"
import { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import { startSoftwareTpm } from "../../evidence/tpm/client/swtpm.testing.ts"
import { openTransport, type TpmLocation } from "../../evidence/tpm/client/transport.ts"
import { hash } from "../../pki/signatures.ts"
import { noReplayedMachine, registerDigest, replayMachine } from "../testing/replayed-machine.testing.ts"
import { EvidenceCollector, quotedRegisters } from "./collect.ts"

const skip = { skip: noReplayedMachine }

test("quotedRegisters are those that the verifier demands", () => {
  assert.deepEqual(quotedRegisters, [hostPcrs])
})

function expecting(extraData: Uint8Array, previous: HostExpectation["previous"] = "none"): HostExpectation {
  return { extraData, requiredPcrs: hostPcrs, quirks: [], identity: "unproved", previous }
}

test("collectBundle() gives what verifyHost() accepts, first whole and then with the new entries only", skip, async () => {
  await using machine = await replayMachine()
  await machine.measure(0, 30)
  await using tpm = await HostTpm.open(machine.location)
  const collector = new EvidenceCollector(tpm, machine.paths)
  await machine.show(30)
  const session = hash("sha256", encodeUtf8("claim"))
  const claim = await collector.collectBundle({ extraData: session, imaFrom: 0, withBootLog: true })
  hostBundleSchema.parse(claim)
  const first = verifyHost(decodeHostBundle(claim), expecting(session)).claims
  assert.equal(first.ima.certifiedCount, 30)
  assert.throws(() => verifyHost(decodeHostBundle(claim), expecting(hash("sha256"))), { code: "wrong-nonce" })

  await machine.measure(30, machine.records.length, tpm)
  await machine.show(machine.records.length)
  const later = hash("sha256", encodeUtf8("renew"))
  const renewal = await collector.collectBundle({ extraData: later, imaFrom: 30, withBootLog: false })
  hostBundleSchema.parse(renewal)
  assert.equal(renewal.tpm.eventLog, undefined)
  const second = verifyHost(decodeHostBundle(renewal), expecting(later, previousHost(first))).claims
  assert.equal(second.ima.certifiedCount, machine.records.length)
  assert.equal(second.ima.entries.length, machine.records.length - 30)
})

/** TPM2_PCR_Extend of register 10, as bytes. */
function extendCommand(digest: Uint8Array): Uint8Array {
  const session = new ByteWriter().u32be(0x40000009).u16be(0).u8(0).u16be(0).take()
  const body = new ByteWriter().u32be(10).u32be(session.length).bytes(session).u32be(1).u16be(0x000b).bytes(digest).take()
  return new ByteWriter()
    .u16be(0x8002)
    .u32be(10 + body.length)
    .u32be(0x182)
    .bytes(body)
    .take()
}

/** TPM_CC_Quote. */
function isQuote(command: Uint8Array): boolean {
  const reader = new ByteReader("command", command)
  reader.bytes(6, "header")
  return reader.u32be("code") === 0x158
}

/** A socket in front of a software TPM that may do things around each quote. */
async function startFront(
  location: TpmLocation,
  answer: (command: Uint8Array, transmit: (command: Uint8Array) => Promise<Uint8Array>) => Promise<Uint8Array>,
): Promise<{ readonly location: TpmLocation; readonly drop: () => void } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "perun-front-"))
  const unix = join(folder, "tpm")
  const sockets = new Set<Socket>()
  const server = createServer(async (socket) => {
    sockets.add(socket)
    const inner = await openTransport(location)
    socket.on("error", () => undefined)
    socket.on("close", () => void inner[Symbol.asyncDispose]())
    socket.on("data", async (command: Uint8Array) => socket.write(await answer(command, (request) => inner.transmit(request, 10_000))))
  })
  await new Promise<void>((resolve) => server.listen(unix, resolve))
  const drop = (): void => sockets.forEach((socket) => socket.destroy())
  return {
    location: { unix },
    drop,
    [Symbol.asyncDispose]: async () => {
      drop()
      await new Promise((resolve) => server.close(resolve))
      await rm(folder, { recursive: true })
    },
  }
}

test("collectBundle() reads the list after the quote: what is measured around it never makes the list too short", skip, async () => {
  await using machine = await replayMachine()
  await machine.measure(0, 20)
  await machine.show(20)
  const [, next] = machine.records.slice(19)
  assert.ok(next !== undefined)
  // One entry is listed and extended just before the quote, another one is listed just after it.
  await using front = await startFront(machine.location, async (command, transmit) => {
    if (!isQuote(command)) return await transmit(command)
    await machine.show(21)
    await transmit(extendCommand(registerDigest(next)))
    const response = await transmit(command)
    await machine.show(22)
    return response
  })
  await using tpm = await HostTpm.open(front.location)
  const collector = new EvidenceCollector(tpm, machine.paths)
  const session = hash("sha256", encodeUtf8("claim"))
  const bundle = await collector.collectBundle({ extraData: session, imaFrom: 0, withBootLog: true })
  const { ima } = verifyHost(decodeHostBundle(bundle), expecting(session)).claims
  assert.equal(ima.certifiedCount, 21)
  assert.equal(ima.uncertified.length, 1)
})

test("collectBundle() says when the TPM was gone, and goes on when it is back", skip, async () => {
  await using machine = await replayMachine()
  await machine.show(0)
  await using front = await startFront(machine.location, (command, transmit) => transmit(command))
  await using tpm = await HostTpm.open(front.location)
  const collector = new EvidenceCollector(tpm, machine.paths)
  const request = { extraData: new Uint8Array(32), imaFrom: 0, withBootLog: true }
  const { akPublic } = (await collector.collectBundle(request)).tpm
  front.drop()
  await assert.rejects(collector.collectBundle(request), { name: "UnavailableError", code: "unavailable" })
  assert.equal((await collector.collectBundle(request)).tpm.akPublic, akPublic)
})

test("collectBundle() on a machine without logs says what is missing", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const nowhere = "/nonexistent/file"
  const collector = new EvidenceCollector(tpm, { bootLog: nowhere, imaList: nowhere, imaCount: nowhere })
  const request = { extraData: new Uint8Array(32), imaFrom: 0, withBootLog: true }
  await assert.rejects(collector.collectBundle(request), { name: "UnavailableError", code: "unsupported" })
})
