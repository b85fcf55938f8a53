import assert from "node:assert/strict"
import { test } from "node:test"
import { ByteWriter } from "../../../bytes/writer.ts"
import { handleEntity, passwordUse, readNvPublic } from "./commands.ts"
import { TpmConnection } from "./connection.ts"
import { permanentHandles } from "./constants.ts"
import { TpmError } from "./errors.ts"
import { HostTpm } from "./host-tpm.ts"
import { defineCounter, incrementCounter, readCounter } from "./nv-counter.ts"
import { noSoftwareTpm, startSoftwareTpm } from "./swtpm.testing.ts"
import { openTransport } from "./transport.ts"

const index = 0x01a00001
const secret = new Uint8Array(32).fill(9)
const code = (expected: string) => (error: unknown) => error instanceof TpmError && error.code === expected

async function undefine(connection: TpmConnection): Promise<void> {
  const handles = [handleEntity(permanentHandles.owner), await readNvPublic(connection, index)]
  await connection.execute({ command: "NvUndefineSpace", handles, sessions: [passwordUse()] })
}

test("a counter only goes up, and a new one under its index starts no lower", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  const connection = await TpmConnection.open(software.location)
  await using tpm = HostTpm.over(connection)
  const binding = await tpm.defineCounter(index, secret)
  const first = await tpm.readCounter(binding)
  for (let count = 1; count <= 3; count++) {
    await tpm.incrementCounter(binding)
    assert.equal(await tpm.readCounter(binding), first + count)
  }
  await assert.rejects(tpm.defineCounter(index, secret), TpmError)
  await undefine(connection)
  await assert.rejects(tpm.readCounter(binding), TpmError)
  const again = await defineCounter(connection, index, new Uint8Array(32).fill(1))
  assert.ok((await readCounter(connection, again)) > first + 3)
  // The same kind of index under the same number has the same name; only who knows its value is answered.
  await assert.rejects(readCounter(connection, binding), code("auth-failed"))
  await assert.rejects(incrementCounter(connection, binding), code("auth-failed"))
})

test("another index under the counter's number is found by its name", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  await using connection = await TpmConnection.open(software.location)
  const binding = await defineCounter(connection, index, secret)
  await undefine(connection)
  // Ordinary memory, which can be written back.
  const publicArea = new ByteWriter()
    .u32be(index)
    .u16be(0x000b)
    .u32be(2 ** 2 + 2 ** 18 + 2 ** 25)
    .u16be(0)
    .u16be(8)
    .take()
  const parameters = new ByteWriter().sized16be(secret).sized16be(publicArea).take()
  await connection.execute({ command: "NvDefineSpace", handles: [handleEntity(permanentHandles.owner)], sessions: [passwordUse()], parameters })
  await assert.rejects(readCounter(connection, binding), code("forged-response"))
})

test("whoever stands between the counter and its reader cannot make it say another value", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  const transport = await openTransport(software.location)
  let kept: Uint8Array | undefined
  let change: (response: Uint8Array) => Uint8Array = (response) => response
  await using connection = new TpmConnection({
    name: transport.name,
    async transmit(request, timeout) {
      const response = await transport.transmit(request, timeout)
      // TPM_CC_NV_Read
      return new DataView(request.buffer, request.byteOffset).getUint32(6) === 0x14e ? change(response) : response
    },
    [Symbol.asyncDispose]: async () => transport[Symbol.asyncDispose](),
  })
  const binding = await defineCounter(connection, index, secret)
  change = (response) => (kept = response)
  const value = await readCounter(connection, binding)
  await incrementCounter(connection, binding)
  const older = kept
  assert.ok(older)
  // The whole answer of before, and the new one with the old value in it: header, parameter size, size of the data, then the counter.
  change = () => older
  await assert.rejects(readCounter(connection, binding), code("forged-response"))
  change = (response) => Uint8Array.from(response, (byte, place) => (place >= 16 && place < 24 ? (older[place] ?? 0) : byte))
  await assert.rejects(readCounter(connection, binding), code("forged-response"))
  change = (response) => response
  assert.equal(await readCounter(connection, binding), value + 1)
})
