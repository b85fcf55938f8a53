import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../../bytes/compare.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash } from "../../../pki/signatures.ts"
import { encodePcrSelections } from "../format.ts"
import { extendPcr, getHandles, getPcrBanks, getProperties, getRandom, policyPcr, readNv, readNvPublic, readPcrs, startSession } from "./commands.ts"
import { TpmConnection } from "./connection.ts"
import { commandCodes } from "./constants.ts"
import { TpmError } from "./errors.ts"
import { TpmSession } from "./sessions.ts"

const isTpmError = (code: TpmError["code"]) => (error: unknown) => error instanceof TpmError && error.code === code

/** A TPM that answers the n-th command with the n-th body (tag: no sessions), the last one for ever; and what was asked. */
function scripted(...bodies: readonly Uint8Array[]): {
  readonly tpm: TpmConnection
  readonly asked: readonly { readonly code: number; readonly parameters: Uint8Array }[]
} {
  const asked: { readonly code: number; readonly parameters: Uint8Array }[] = []
  const transport = {
    name: "scripted",
    transmit: async (request: Uint8Array) => {
      const body = bodies[Math.min(asked.length, bodies.length - 1)] ?? new Uint8Array(0)
      const reader = new ByteReader("request", request)
      const tag = reader.u16be("tag")
      reader.u32be("size")
      asked.push({ code: reader.u32be("code"), parameters: reader.rest("parameters") })
      const response = tag === 0x8001 ? body : new ByteWriter().u32be(body.length).bytes(body).u16be(0).u8(1).u16be(0).take()
      return new ByteWriter()
        .u16be(tag)
        .u32be(10 + response.length)
        .u32be(0)
        .bytes(response)
        .take()
    },
    [Symbol.asyncDispose]: async () => undefined,
  }
  return { tpm: new TpmConnection(transport), asked }
}

function handlesAnswer(moreData: number, ...handles: readonly number[]): Uint8Array {
  const writer = new ByteWriter().u8(moreData).u32be(1).u32be(handles.length)
  for (const handle of handles) writer.u32be(handle)
  return writer.take()
}

test("getHandles() goes on where the TPM has more", async () => {
  const { tpm, asked } = scripted(handlesAnswer(1, 0x81000000, 0x81000004), handlesAnswer(0, 0x81000009))
  assert.deepEqual(await getHandles(tpm, 0x81000000), [0x81000000, 0x81000004, 0x81000009])
  assert.deepEqual(
    asked.map(({ parameters }) => parameters),
    [0x81000000, 0x81000005].map((first) => new ByteWriter().u32be(1).u32be(first).u32be(127).take()),
  )
})

test("getHandles() refuses a list that does not go on, and one of another capability, and one that is too long", async () => {
  await assert.rejects(getHandles(scripted(handlesAnswer(1, 0x81000005)).tpm, 0x81000006), isTpmError("forged-response"))
  await assert.rejects(getHandles(scripted(new ByteWriter().u8(0).u32be(2).u32be(0).take()).tpm, 0x81000000), { code: "malformed" })
  await assert.rejects(getHandles(scripted(handlesAnswer(0, ...Array.from({ length: 128 }, () => 0x81000000))).tpm, 0x81000000), {
    code: "too-large",
  })
  assert.deepEqual(await getHandles(scripted(handlesAnswer(1)).tpm, 0x81000000), [])
})

test("getProperties() stops at the variable ones", async () => {
  const answer = (moreData: number, ...pairs: readonly (readonly [number, number])[]): Uint8Array => {
    const writer = new ByteWriter().u8(moreData).u32be(6).u32be(pairs.length)
    for (const [property, value] of pairs) writer.u32be(property).u32be(value)
    return writer.take()
  }
  const { tpm, asked } = scripted(answer(1, [0x100, 1], [0x200, 2]))
  assert.deepEqual(await getProperties(tpm), new Map([[0x100, 1]]))
  assert.equal(asked.length, 1)
})

test("getProperties() goes on behind the last property", async () => {
  const answer = (moreData: number, property: number): Uint8Array => new ByteWriter().u8(moreData).u32be(6).u32be(1).u32be(property).u32be(9).take()
  const { tpm, asked } = scripted(answer(1, 0x105), answer(0, 0x106))
  assert.deepEqual([...(await getProperties(tpm)).keys()], [0x105, 0x106])
  assert.equal(new ByteReader("asked", asked[1]?.parameters ?? new Uint8Array(0)).u64be("capability and property") & 0xffffffffn, 0x106n)
})

test("getPcrBanks() gives the banks that have registers", async () => {
  const banks = [{ bank: "sha1", pcrs: [] }, { bank: "sha256", pcrs: [0, 1] }] as const // prettier-ignore
  const answer = (capability: number): Uint8Array => new ByteWriter().u8(0).u32be(capability).bytes(encodePcrSelections(banks)).take()
  assert.deepEqual(await getPcrBanks(scripted(answer(5)).tpm), [banks[1]])
  await assert.rejects(getPcrBanks(scripted(answer(6)).tpm), { code: "malformed" })
})

test("getHandles() takes as many items as it asked for", async () => {
  const handles = Array.from({ length: 127 }, (_, index) => 0x81000000 + index)
  assert.equal((await getHandles(scripted(handlesAnswer(0, ...handles)).tpm, 0x81000000)).length, 127)
})

test("getRandom() takes no more bytes than it asked for, and asks again for what is missing", async () => {
  const bytes = (count: number): Uint8Array => new ByteWriter().sized16be(new Uint8Array(count).fill(count)).take()
  assert.equal((await getRandom(scripted(bytes(32), bytes(8)).tpm, 40)).length, 40)
  await assert.rejects(getRandom(scripted(bytes(33)).tpm, 40), { code: "too-large" })
  await assert.rejects(getRandom(scripted(bytes(9)).tpm, 8), { code: "too-large" })
  await assert.rejects(getRandom(scripted(bytes(0)).tpm, 8), { code: "unavailable" })
})

test("extendPcr() and policyPcr() refuse an answer with more in it", async () => {
  const more = Uint8Array.of(0)
  await extendPcr(scripted(new Uint8Array(0)).tpm, 14, "sha256", new Uint8Array(32))
  await assert.rejects(extendPcr(scripted(more).tpm, 14, "sha256", new Uint8Array(32)), { code: "trailing-bytes" })
  const session = new TpmSession({ handle: 0x03000000, kind: "policy", salt: more, nonceCaller: more, nonceTpm: more })
  await policyPcr(scripted(new Uint8Array(0)).tpm, session, [])
  await assert.rejects(policyPcr(scripted(more).tpm, session, []), { code: "trailing-bytes" })
})

function pcrsAnswer(counter: number, pcrs: readonly number[], fill: number): Uint8Array {
  const writer = new ByteWriter()
    .u32be(counter)
    .bytes(encodePcrSelections([{ bank: "sha256", pcrs }]))
    .u32be(pcrs.length)
  for (const pcr of pcrs) writer.sized16be(new Uint8Array(32).fill(fill + pcr))
  return writer.take()
}

test("readPcrs() takes values from between two changes only", async () => {
  const selection = { bank: "sha256", pcrs: [0, 1] } as const
  const changing = scripted(pcrsAnswer(1, [0], 0), pcrsAnswer(2, [1], 0), pcrsAnswer(2, [0], 7), pcrsAnswer(2, [1], 7))
  const values = await readPcrs(changing.tpm, selection)
  assert.deepEqual(
    [...values].map(([pcr, value]) => [pcr, value[0]]),
    [
      [0, 7],
      [1, 8],
    ],
  )
  const restless = scripted(...Array.from({ length: 20 }, (_, counter) => pcrsAnswer(counter, [counter % 2], 0)))
  await assert.rejects(readPcrs(restless.tpm, selection), isTpmError("busy"))
  // Five tries of two answers each; the second answer of a try shows the change.
  assert.equal(restless.asked.length, 10)
})

test("readPcrs() refuses values of registers that were not asked for, and too few", async () => {
  const selection = { bank: "sha256", pcrs: [0, 1] } as const
  await assert.rejects(readPcrs(scripted(pcrsAnswer(1, [0, 2], 0)).tpm, selection), { code: "malformed" })
  const tooFew = new ByteWriter()
    .u32be(1)
    .bytes(encodePcrSelections([selection]))
    .u32be(1)
    .sized16be(new Uint8Array(32))
    .take()
  await assert.rejects(readPcrs(scripted(tooFew).tpm, selection), { code: "malformed" })
  const otherBank = new ByteWriter()
    .u32be(1)
    .bytes(encodePcrSelections([{ bank: "sha1", pcrs: [0, 1] }]))
    .u32be(2)
  const values = otherBank.sized16be(new Uint8Array(20)).sized16be(new Uint8Array(20)).take()
  await assert.rejects(readPcrs(scripted(values).tpm, selection), { code: "malformed" })
  await assert.rejects(readPcrs(scripted(pcrsAnswer(1, [], 0)).tpm, selection), isTpmError("unsupported"))
})

test("startSession() refuses a TPM that gives a short nonce, and frees the session", async () => {
  const { tpm, asked } = scripted(new ByteWriter().u32be(0x02000000).sized16be(new Uint8Array(15)).take(), new Uint8Array(0))
  await assert.rejects(startSession(tpm, { kind: "hmac" }), isTpmError("forged-response"))
  assert.deepEqual(asked[1], { code: commandCodes.FlushContext, parameters: new ByteWriter().u32be(0x02000000).take() })
  const longEnough = scripted(new ByteWriter().u32be(0x02000000).sized16be(new Uint8Array(16)).take())
  assert.equal((await startSession(longEnough.tpm, { kind: "hmac" })).handle, 0x02000000)
})

test("readNv() reads in parts, as the index or as the owner, and refuses less than it asked for", async () => {
  const part = (length: number): Uint8Array => new ByteWriter().sized16be(new Uint8Array(length).fill(length % 251)).take()
  const index = { handle: 0x01c00002, name: new Uint8Array(34), sizeBytes: 600 }
  for (const [attributes, authority] of [
    [2 ** 18 + 2 ** 17, 0x01c00002],
    [2 ** 17, 0x40000001],
  ] as const) {
    const { tpm, asked } = scripted(part(512), part(88))
    assert.equal((await readNv(tpm, { ...index, attributes })).length, 600)
    for (const { parameters } of asked) assert.equal(new ByteReader("asked", parameters).u32be("authority"), authority)
  }
  await assert.rejects(readNv(scripted(part(511)).tpm, { ...index, attributes: 2 ** 18 }), isTpmError("forged-response"))
  await assert.rejects(readNv(scripted(part(513)).tpm, { ...index, attributes: 2 ** 18 }), { code: "too-large" })
})

test("readNvPublic() refuses another index than it asked for", async () => {
  const nvPublic = new ByteWriter().u32be(0x01c00003).u16be(0x000b).u32be(0).u16be(0).u16be(9).take()
  const name = concatBytes(Uint8Array.of(0, 0x0b), hash("sha256", nvPublic))
  const answer = (nameGiven: Uint8Array): Uint8Array => new ByteWriter().sized16be(nvPublic).sized16be(nameGiven).take()
  assert.equal((await readNvPublic(scripted(answer(name)).tpm, 0x01c00003)).sizeBytes, 9)
  await assert.rejects(readNvPublic(scripted(answer(name)).tpm, 0x01c00002), isTpmError("forged-response"))
  await assert.rejects(readNvPublic(scripted(answer(new Uint8Array(34))).tpm, 0x01c00003), isTpmError("forged-response"))
})
