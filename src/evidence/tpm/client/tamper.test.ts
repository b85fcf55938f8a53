import assert from "node:assert/strict"
import { test } from "node:test"
import { PerunError } from "../../../bytes/error.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { encodeUtf8 } from "../../../bytes/text.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash } from "../../../pki/signatures.ts"
import { seededRandom } from "../../testing/parser-laws.ts"
import { drawCredentialSeed, makeCredential } from "../credential.ts"
import { tpmName } from "../keys.ts"
import { encodePublicArea, parseSizedPublicArea, type KeyedHashPublicArea, type ObjectAttribute } from "../public-area.ts"
import {
  create,
  createPrimary,
  getHandles,
  getPcrBanks,
  getProperties,
  getRandom,
  handleEntity,
  load,
  passwordUse,
  policyDigest,
  policyPcr,
  policySecret,
  quote,
  readNvPublic,
  readPcrs,
  readPublic,
  startSession,
  unseal,
} from "./commands.ts"
import { TpmConnection } from "./connection.ts"
import { commandCodes, permanentHandles, type CommandName } from "./constants.ts"
import { TpmError } from "./errors.ts"
import { HostTpm } from "./host-tpm.ts"
import { endorsementProfiles, openAttestationKey, openStorageKey, storageTemplate } from "./keys.ts"
import type { SessionUse } from "./sessions.ts"
import { pcrPolicy, sealToPcrs, unsealFromPcrs } from "./seal.ts"
import { noSoftwareTpm, startSoftwareTpm } from "./swtpm.testing.ts"
import { openTransport, type TpmLocation, type TpmTransport } from "./transport.ts"

const skip = { skip: noSoftwareTpm }
const secret = encodeUtf8("a secret that the bus must not see")
const selection = { bank: "sha256", pcrs: [0, 10] } as const
const isTpmError = (code: TpmError["code"]) => (error: unknown) => error instanceof TpmError && error.code === code

/** Data that whoever has the TPM may unseal. */
const sealedTemplate: KeyedHashPublicArea = {
  type: "keyedhash",
  nameAlg: "sha256",
  attributes: new Set<ObjectAttribute>(["fixedTPM", "fixedParent", "userWithAuth"]),
  authPolicy: new Uint8Array(0),
  unique: new Uint8Array(0),
}

/** Somebody on the bus: sees every message and may change each. */
class Interposer implements TpmTransport {
  readonly name = "interposer"
  readonly #transport: TpmTransport
  readonly seen: { readonly command: CommandName; readonly request: Uint8Array; readonly response: Uint8Array }[] = []
  changeCommand: (command: CommandName, request: Uint8Array) => Uint8Array = (_command, request) => request
  changeResponse: (command: CommandName, response: Uint8Array) => Uint8Array = (_command, response) => response

  private constructor(transport: TpmTransport) {
    this.#transport = transport
  }

  static async open(location: TpmLocation): Promise<Interposer> {
    return new Interposer(await openTransport(location))
  }

  async transmit(request: Uint8Array, timeout: number): Promise<Uint8Array> {
    const command = commandOf(request)
    const response = await this.#transport.transmit(this.changeCommand(command, request), timeout)
    this.seen.push({ command, request, response })
    return this.changeResponse(command, response)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]()
  }
}

function commandOf(request: Uint8Array): CommandName {
  const reader = new ByteReader("request", request)
  reader.bytes(6, "header")
  const code = reader.u32be("code")
  const name = (Object.keys(commandCodes) as CommandName[]).find((candidate) => commandCodes[candidate] === code)
  assert.ok(name !== undefined)
  return name
}

test("the persistent endorsement key is taken where it is the certificate's, and made anew where it cannot be read", skip, async () => {
  await using software = await startSoftwareTpm({ certified: true })
  const bus = await Interposer.open(software.location)
  await using tpm = HostTpm.over(new TpmConnection(bus))
  const made = (): number => bus.seen.filter(({ command }) => command === "CreatePrimary").length
  await tpm.attestationPublic()
  assert.equal(made(), 1)
  const { ekPublic } = await tpm.collectEndorsement()
  assert.equal(made(), 1)
  // A public area of a type that this client does not know: header 10, size 2, type 2.
  bus.changeResponse = (command, response) => (command === "ReadPublic" ? flipped(response, 13, 5) : response)
  assert.deepEqual((await tpm.collectEndorsement()).ekPublic, ekPublic)
  assert.equal(made(), 2)
  // One whose name does not fit is no other key, but a lie.
  bus.changeResponse = (command, response) => (command === "ReadPublic" ? flipped(response, response.length - 40) : response)
  await assert.rejects(tpm.collectEndorsement(), isTpmError("forged-response"))
})

test("a TPM that fails while the endorsement key is made is not taken for one without", skip, async () => {
  await using software = await startSoftwareTpm({ certified: true })
  const bus = await Interposer.open(software.location)
  await using tpm = HostTpm.over(new TpmConnection(bus))
  const failure = new ByteWriter().u16be(0x8001).u32be(10).u32be(0x101).take()
  bus.changeResponse = (command, response) => (command === "NvRead" ? failure : response)
  await assert.rejects(tpm.collectEndorsement(), isTpmError("failure"))
})

function flippedFromEnd(response: Uint8Array, at: number | undefined): Uint8Array {
  return at === undefined ? response : flipped(response, response.length + at)
}

function flipped(bytes: Uint8Array, at: number, bit = 0): Uint8Array {
  const copy = Uint8Array.from(bytes)
  copy[at] = (copy[at] ?? 0) ^ (1 << bit)
  return copy
}

test("Unseal: no changed byte of the response is believed, and nothing stays loaded", skip, async () => {
  await using software = await startSoftwareTpm()
  const bus = await Interposer.open(software.location)
  await using tpm = new TpmConnection(bus)
  const sealed = await sealToPcrs(tpm, secret, selection)
  assert.deepEqual(await unsealFromPcrs(tpm, sealed), secret)
  const length = bus.seen.findLast(({ command }) => command === "Unseal")?.response.length ?? 0
  assert.ok(length > 100)
  for (let at = 0; at < length; at++) {
    bus.changeResponse = (command, response) => (command === "Unseal" ? flipped(response, at, at % 8) : response)
    await assert.rejects(unsealFromPcrs(tpm, sealed), PerunError, `byte ${at}`)
  }
  bus.changeResponse = (_command, response) => response
  assert.deepEqual(await unsealFromPcrs(tpm, sealed), secret)
  assert.deepEqual([...(await getHandles(tpm, 0x80000000)), ...(await getHandles(tpm, 0x02000000))], [])
})

test("Unseal: a changed HMAC, nonce, parameter and session attribute are each a forged response", skip, async () => {
  await using software = await startSoftwareTpm()
  const bus = await Interposer.open(software.location)
  await using tpm = new TpmConnection(bus)
  const sealed = await sealToPcrs(tpm, secret, selection)
  await unsealFromPcrs(tpm, sealed)
  const length = bus.seen.findLast(({ command }) => command === "Unseal")?.response.length ?? 0
  // header 10, parameterSize 4, size 2, data, then: nonce size 2, nonce 32, attributes 1, hmac size 2, hmac 32
  const places = { parameter: 16, nonce: length - 50, attributes: length - 35, hmac: length - 1 }
  for (const [name, at] of Object.entries(places)) {
    bus.changeResponse = (command, response) => (command === "Unseal" ? flipped(response, at) : response)
    await assert.rejects(unsealFromPcrs(tpm, sealed), isTpmError("forged-response"), name)
  }
})

test("ActivateCredential: a changed answer of the TPM is a forged response", skip, async () => {
  await using software = await startSoftwareTpm()
  const bus = await Interposer.open(software.location)
  await using tpm = HostTpm.over(new TpmConnection(bus))
  const { ekPublic, akPublic } = await tpm.collectEndorsement()
  const ek = parseSizedPublicArea(ekPublic)
  const credential = makeCredential(ek, tpmName(parseSizedPublicArea(akPublic)), hash("sha256", secret), drawCredentialSeed(ek))
  const activate = (): Promise<Uint8Array> => tpm.activate(credential.credentialBlob, credential.secret)
  assert.deepEqual(await activate(), hash("sha256", secret))
  const { request, response } = bus.seen.findLast(({ command }) => command === "ActivateCredential") ?? assert.fail()
  for (const message of [request, response]) assert.ok(!Buffer.from(message).includes(Buffer.from(hash("sha256", secret))))
  // Two authorizations of 69 bytes each: nonce size 2, nonce 32, attributes 1, hmac size 2, hmac 32.
  const second = response.length - 69
  const places = { parameter: 20, firstNonce: second - 60, firstAttributes: second - 35, firstHmac: second - 1 }
  const morePlaces = { secondNonce: second + 10, secondAttributes: second + 34, secondHmac: response.length - 1 }
  for (const [name, at] of Object.entries({ ...places, ...morePlaces })) {
    bus.changeResponse = (command, original) => (command === "ActivateCredential" ? flipped(original, at) : original)
    await assert.rejects(activate(), isTpmError("forged-response"), name)
  }
})

test("Unseal: an answer is refused that was given before", skip, async () => {
  await using software = await startSoftwareTpm()
  const bus = await Interposer.open(software.location)
  await using tpm = new TpmConnection(bus)
  const sealed = await sealToPcrs(tpm, secret, selection)
  await unsealFromPcrs(tpm, sealed)
  const old = bus.seen.findLast(({ command }) => command === "Unseal")?.response
  assert.ok(old !== undefined)
  bus.changeResponse = (command, response) => (command === "Unseal" ? old : response)
  await assert.rejects(unsealFromPcrs(tpm, sealed), isTpmError("forged-response"))
})

test("Create and Unseal: the secret never crosses the bus in the clear", skip, async () => {
  await using software = await startSoftwareTpm()
  const bus = await Interposer.open(software.location)
  await using tpm = new TpmConnection(bus)
  assert.deepEqual(await unsealFromPcrs(tpm, await sealToPcrs(tpm, secret, selection)), secret)
  for (const { command, request, response } of bus.seen)
    for (const message of [request, response]) assert.ok(!Buffer.from(message).includes(Buffer.from(secret)), command)
})

test("activate(), sealing and unsealing use sessions that are salted to a key of the TPM only", skip, async () => {
  await using software = await startSoftwareTpm()
  const bus = await Interposer.open(software.location)
  const connection = new TpmConnection(bus)
  await using tpm = HostTpm.over(connection)
  const { ekPublic, akPublic } = await tpm.collectEndorsement()
  const ek = parseSizedPublicArea(ekPublic)
  const credential = makeCredential(ek, tpmName(parseSizedPublicArea(akPublic)), hash("sha256", secret), drawCredentialSeed(ek))
  await tpm.activate(credential.credentialBlob, credential.secret)
  await tpm.unseal(await tpm.sealToPcrs(secret, selection))
  const kinds = bus.seen.flatMap(({ command, request }) => (command === "StartAuthSession" ? [saltedKindOf(request)] : []))
  // One to answer and one for the endorsement key's policy; one to seal; one to load and one to unseal.
  assert.deepEqual(kinds, ["salted hmac", "salted policy", "salted hmac", "salted hmac", "salted policy"])
})

/** header 10, two handles of 4, nonceCaller and encryptedSalt behind their sizes, then the kind. */
function saltedKindOf(request: Uint8Array): string {
  const reader = new ByteReader("request", request)
  reader.bytes(18, "header and handles")
  reader.bytes(reader.u16be("nonceCaller"), "nonceCaller")
  const salt = reader.bytes(reader.u16be("encryptedSalt"), "encryptedSalt")
  return `${salt.length > 0 ? "salted" : "open"} ${reader.u8("kind") === 0 ? "hmac" : "policy"}`
}

test("Create: the TPM refuses a command that was changed on its way", skip, async () => {
  await using software = await startSoftwareTpm()
  const bus = await Interposer.open(software.location)
  await using tpm = new TpmConnection(bus)
  bus.changeCommand = (command, request) => (command === "Create" ? flipped(request, request.length - 20) : request)
  await assert.rejects(sealToPcrs(tpm, secret, selection), TpmError)
})

test("StartAuthSession: a session salted to a key that the bus put in place of the TPM's does not work", skip, async () => {
  await using software = await startSoftwareTpm()
  await using other = await startSoftwareTpm()
  await using tpm = await TpmConnection.open(software.location)
  await using otherTpm = await TpmConnection.open(other.location)
  await using parent = await openStorageKey(tpm)
  await using foreign = await openStorageKey(otherTpm)
  await assert.rejects(async () => {
    await using session = await startSession(tpm, { kind: "hmac", saltKey: { ...parent, publicArea: foreign.publicArea } })
    await getRandom(tpm, 8, { session, authValue: new Uint8Array(0), encrypt: true })
  }, TpmError)
})

test("CreatePrimary, Load, ReadPublic, NV_ReadPublic: a public area that does not fit its name is refused and not kept", skip, async () => {
  await using software = await startSoftwareTpm({ certified: true })
  const bus = await Interposer.open(software.location)
  await using tpm = new TpmConnection(bus)
  const at: Partial<Record<CommandName, number>> = { CreatePrimary: -6, ReadPublic: -40, NvReadPublic: -1 }
  bus.changeResponse = (command, response) => flippedFromEnd(response, at[command])
  await assert.rejects(openStorageKey(tpm), isTpmError("forged-response"))
  await assert.rejects(readPublic(tpm, 0x81010001), isTpmError("forged-response"))
  await assert.rejects(readNvPublic(tpm, 0x01c00002), isTpmError("forged-response"))
  bus.changeResponse = (command, response) => (command === "CreatePrimary" ? flipped(response, response.length - 1) : response)
  await assert.rejects(openStorageKey(tpm), PerunError)
  assert.deepEqual(await getHandles(tpm, 0x80000000), [])
})

for (const name of ["L-1", "L-2", "H-3"]) {
  test(`startSession() salts to an endorsement key of profile ${name}, with encryption both ways`, skip, async () => {
    const template = endorsementProfiles.find((profile) => profile.name === name)?.template
    assert.ok(template !== undefined)
    await using software = await startSoftwareTpm()
    await using tpm = await TpmConnection.open(software.location)
    await using saltKey = await createPrimary(tpm, permanentHandles.endorsement, encodePublicArea(template))
    await using session = await startSession(tpm, { kind: "hmac", saltKey })
    const use = { session, authValue: new Uint8Array(0), encrypt: true }
    assert.notDeepEqual(await getRandom(tpm, 32, use), await getRandom(tpm, 32, use))
  })
}

test("sessions authorize with an authValue, bound and unbound, salted and not, and with trailing zeros", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await TpmConnection.open(software.location)
  await using saltKey = await openStorageKey(tpm)
  const owner = handleEntity(permanentHandles.owner)
  const authValue = Uint8Array.of(...encodeUtf8("password"), 0, 0)
  const change = new ByteWriter().sized16be(authValue).take()
  await tpm.execute({ command: "HierarchyChangeAuth", handles: [owner], sessions: [passwordUse()], parameters: change })
  const makePrimary = async (session: Awaited<ReturnType<typeof startSession>>, given: Uint8Array): Promise<void> => {
    const template = encodePublicArea(storageTemplate)
    const parameters = new ByteWriter().sized16be(new Uint8Array(4)).sized16be(template).u16be(0).u32be(0).take()
    const use = { session, authValue: given, entityName: owner.name, decrypt: true, encrypt: true }
    await tpm.flush((await tpm.execute({ command: "CreatePrimary", handles: [owner], sessions: [use], parameters })).handle)
  }
  for (const bind of [undefined, { ...owner, authValue }]) {
    for (const salt of [undefined, saltKey]) {
      await using session = await startSession(tpm, {
        kind: "hmac",
        ...(bind === undefined ? {} : { bind }),
        ...(salt === undefined ? {} : { saltKey: salt }),
      })
      await makePrimary(session, authValue)
      await makePrimary(session, authValue)
    }
  }
  await using session = await startSession(tpm, { kind: "hmac", saltKey })
  await assert.rejects(makePrimary(session, encodeUtf8("wrong")), isTpmError("auth-failed"))
})

test("sessions that encrypt, besides the one that authorizes, are tied to it", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await TpmConnection.open(software.location)
  await using parent = await openStorageKey(tpm)
  const sealed = await create(tpm, parent, passwordUse(), encodePublicArea(sealedTemplate), secret)
  const parameters = new ByteWriter().sized16be(sealed.privateBytes).sized16be(sealed.publicBytes).take()
  const layouts: readonly (readonly Pick<SessionUse, "decrypt" | "encrypt">[])[] = [
    [{ decrypt: true, encrypt: true }],
    [{}, { decrypt: true, encrypt: true }],
    [{}, { decrypt: true }, { encrypt: true }],
    [{}, { encrypt: true }, { decrypt: true }],
    [{ decrypt: true }, { encrypt: true }],
    [{ encrypt: true }, { decrypt: true }],
  ]
  for (const layout of layouts) {
    await using sessions = new AsyncDisposableStack()
    const uses: SessionUse[] = []
    for (const attributes of layout) {
      const session = sessions.use(await startSession(tpm, { kind: "hmac", saltKey: parent }))
      uses.push({ session, authValue: new Uint8Array(0), entityName: uses.length === 0 ? parent.name : undefined, ...attributes })
    }
    const answer = await tpm.execute({ command: "Load", handles: [parent], sessions: uses, parameters })
    await using loaded = { handle: answer.handle, [Symbol.asyncDispose]: () => tpm.flush(answer.handle) }
    assert.deepEqual(answer.parameters, new ByteWriter().sized16be((await readPublic(tpm, loaded.handle)).name).take())
  }
  const both = { session: await startSession(tpm, { kind: "hmac" }), authValue: new Uint8Array(0), encrypt: true }
  await assert.rejects(tpm.execute({ command: "Load", handles: [parent], sessions: [both, both], parameters }), TypeError)
})

test("a session without key cannot be told to stop encrypting", skip, async () => {
  await using software = await startSoftwareTpm()
  const bus = await Interposer.open(software.location)
  await using tpm = new TpmConnection(bus)
  const sealed = await sealToPcrs(tpm, secret, selection)
  await using parent = await openStorageKey(tpm)
  await using object = await load(tpm, parent, passwordUse(), sealed)
  const open = async (): Promise<Uint8Array> => {
    await using session = await startSession(tpm, { kind: "policy" })
    await policyPcr(tpm, session, [selection])
    return await unseal(tpm, object, { session, authValue: new Uint8Array(0), entityName: object.name, encrypt: true })
  }
  assert.deepEqual(await open(), secret)
  // attributes 1, hmac size 2, no hmac
  bus.changeResponse = (command, response) => (command === "Unseal" ? flipped(response, response.length - 3, 6) : response)
  await assert.rejects(open(), isTpmError("forged-response"))
})

test("pcrPolicy() is what PolicyPCR leaves in a session, and PolicySecret is the endorsement keys' policy", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await TpmConnection.open(software.location)
  const values = await readPcrs(tpm, selection)
  await using byPcr = await startSession(tpm, { kind: "policy" })
  await policyPcr(tpm, byPcr, [selection])
  assert.deepEqual(await policyDigest(tpm, byPcr), pcrPolicy(selection, values))
  await using bySecret = await startSession(tpm, { kind: "policy" })
  await policySecret(tpm, bySecret, permanentHandles.endorsement)
  assert.deepEqual(await policyDigest(tpm, bySecret), endorsementProfiles[0]?.template.authPolicy)
})

test("getProperties() and getPcrBanks() say what the TPM is", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await TpmConnection.open(software.location)
  // TPM_PT_FAMILY_INDICATOR "2.0\0", TPM_PT_MANUFACTURER "IBM\0"
  const properties = await getProperties(tpm)
  assert.equal(properties.get(0x100), 0x322e3000)
  assert.equal(properties.get(0x105), 0x49424d00)
  assert.ok((await getPcrBanks(tpm)).some(({ bank, pcrs }) => bank === "sha256" && pcrs.length === 24))
})

test("readPcrs() reads more registers than one answer holds, and says which bank is missing", skip, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await TpmConnection.open(software.location)
  const pcrs = Array.from({ length: 24 }, (_, pcr) => pcr)
  assert.equal((await readPcrs(tpm, { bank: "sha256", pcrs })).size, 24)
  await assert.rejects(readPcrs(tpm, { bank: "sm3_256", pcrs }), isTpmError("unsupported"))
})

test("whatever a TPM answers, only our own errors come out", skip, async () => {
  await using software = await startSoftwareTpm({ certified: true })
  const bus = await Interposer.open(software.location)
  {
    await using connection = new TpmConnection(bus)
    await exercise(connection)
  }
  const random = seededRandom(7)
  for (let round = 0; round < 150; round++) {
    const remaining = new Map<CommandName, Uint8Array[]>()
    for (const { command, response } of bus.seen) remaining.set(command, [...(remaining.get(command) ?? []), response])
    const replay: TpmTransport = {
      name: "replay",
      transmit: async (request) => mutated(remaining.get(commandOf(request))?.shift() ?? new Uint8Array(0), random),
      [Symbol.asyncDispose]: async () => undefined,
    }
    await using connection = new TpmConnection(replay)
    await assert.doesNotReject(
      exercise(connection).catch((error: unknown) => {
        if (!(error instanceof PerunError)) throw error
      }),
      `round ${round}`,
    )
  }
})

/** One of each command of this client. */
async function exercise(tpm: TpmConnection): Promise<void> {
  const attempts: readonly (() => Promise<unknown>)[] = [
    () => getHandles(tpm, 0x01000000),
    () => getProperties(tpm),
    () => getPcrBanks(tpm),
    () => readPcrs(tpm, selection),
    () => HostTpm.over(tpm).getRandom(40),
    async () => {
      await using key = await openAttestationKey(tpm)
      await quote(tpm, key, hash("sha256"), [selection])
    },
    () => HostTpm.over(tpm).collectEndorsement(),
    () => readPublic(tpm, 0x81010001),
    async () => {
      await using parent = await openStorageKey(tpm)
      const object = await create(tpm, parent, passwordUse(), encodePublicArea(sealedTemplate), secret)
      await using loaded = await load(tpm, parent, passwordUse(), object)
      await using session = await startSession(tpm, { kind: "policy" })
      await policySecret(tpm, session, permanentHandles.endorsement)
      await policyDigest(tpm, session)
      await unseal(tpm, loaded, passwordUse())
    },
  ]
  for (const attempt of attempts) {
    try {
      await attempt()
    } catch (error) {
      if (!(error instanceof PerunError)) throw error
    }
  }
}

function mutated(response: Uint8Array, random: (bound: number) => number): Uint8Array {
  if (random(4) !== 0 || response.length === 0) return response
  const copy = Uint8Array.from(response)
  for (let wound = 0; wound <= random(3); wound++) copy[random(copy.length)] = [0, 1, 0x7f, 0x80, 0xff][random(5)] ?? 0
  return random(5) === 0 ? copy.slice(0, random(copy.length)) : copy
}
