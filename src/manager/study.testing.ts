import { generateKeyPairSync, randomBytes as nodeRandomBytes, type KeyObject } from "node:crypto"
import { rmSync } from "node:fs"
import { mkdtemp } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { concatBytes } from "../bytes/compare.ts"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeBase64, encodeHex, encodeUtf8, parseBase64, parseUtf8 } from "../bytes/text.ts"
import { type HostBundleDocument, sessionDigest } from "../evidence/bundle.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { signStatement } from "../pki/statement.ts"
import { hostRequirementOf, type Policy } from "../policy/document.ts"
import { type BootReference, type ImaReference, referenceDigest } from "../policy/reference.ts"
import { generateHpkeKeyPair, openMessage, sealMessage, type HpkeKeyPair } from "../protocol/hpke.ts"
import { type Challenge, type ClaimGrant, type Receipt, type ReleasedKeys, releasedKeysSchema } from "../protocol/messages.ts"
import { problemSchema, ProblemError } from "../protocol/problem.ts"
import { type PathValues, type RequestBody, type RequestQuery, type ResponseBody, type Route, routes } from "../protocol/routes.ts"
import { makeSessionHeader, sessionHeader } from "../protocol/session.ts"
import { voteDigest } from "../protocol/statements.ts"
import { parseMessage } from "../protocol/wire.ts"
import { encodeAgeHeader, generateFileKey } from "../sealing/header.ts"
import { generateAgeIdentity, recipientOf } from "../sealing/keys.ts"
import { type ArtifactManifest, manifestDigest, manifestSigner, type SignedManifest } from "../sealing/manifest.ts"
import { BlobFolder } from "./blobs.ts"
import type { Clock } from "./clock.ts"
import { MemoryJournal } from "./journal.testing.ts"
import type { Judgement, JudgeRequest } from "./judge.ts"
import { EvidenceJudge } from "./evidence-judge.ts"
import { type Authority, captureReferences, LaboratoryAuthority, LaboratoryMachine } from "./machine.testing.ts"
import { createManager, keysKey, type Manager } from "./manager.ts"
import { type ManagerObserver, observers, plainObserver, silentObserver } from "./observe.ts"
import type { OwnTee } from "./own-tee.ts"
import { Store } from "./store.ts"
import type { TimeSource } from "./time-check.ts"
import type { WitnessSource } from "./witnesses.ts"

/** A clock that tests move. */
export class TestClock implements Clock {
  wall = Date.parse("2026-11-22T12:00:00Z")
  monotonic = 0

  wallMilliseconds(): number {
    return this.wall
  }
  monotonicMilliseconds(): number {
    return this.monotonic
  }
  advance(seconds: number): void {
    this.wall += seconds * 1000
    this.monotonic += seconds * 1000
  }
}

export function random(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(nodeRandomBytes(length))
}

/** A party with its keys and the TLS key of its present connection. */
export interface Party {
  readonly name: string
  readonly privateKey: KeyObject
  readonly key: string
  readonly tlsKey: Digest
  readonly recipientIdentity: string
  readonly recipient: string
}

export async function makeParty(name: string): Promise<Party> {
  const { privateKey } = generateKeyPairSync("ed25519")
  const recipientIdentity = await generateAgeIdentity("x25519")
  const recipient = await recipientOf(recipientIdentity)
  return { name, privateKey, key: sshPublicKeyText(privateKey), tlsKey: digestOf(random(32)), recipientIdentity, recipient }
}

/** A host's agent: its TLS and HPKE keys, over a machine. */
export interface AgentKeys {
  readonly tlsKey: Digest
  readonly hpke: HpkeKeyPair
}

export async function makeAgent(): Promise<AgentKeys> {
  return { tlsKey: digestOf(random(32)), hpke: await generateHpkeKeyPair() }
}

export interface Caller {
  readonly tlsKey?: Digest
  readonly header?: string
}

/** A sealed artifact as far as the manager sees it. */
export interface TestArtifact {
  readonly identity: string
  readonly signed: SignedManifest
  readonly digest: Digest
}

export async function makeArtifact(name: string, owner: Party): Promise<TestArtifact> {
  const identity = await generateAgeIdentity("x25519")
  const blob = digestOf(encodeUtf8(name))
  const manifest: ArtifactManifest = {
    perun: 1,
    kind: "dataset",
    owner: owner.key,
    name,
    recipient: await recipientOf(identity),
    shards: [],
    index: { digest: blob, sizeBytes: 10, saltedDigest: blob },
    files: { count: 0, bytes: 0 },
  }
  return signManifest(manifest, identity, owner.privateKey)
}

export async function signManifest(manifest: ArtifactManifest, identity: string, privateKey: KeyObject): Promise<TestArtifact> {
  const digest = manifestDigest(manifest)
  return { identity, digest, signed: { manifest, signature: await manifestSigner(privateKey).sign(digest) } }
}

export interface StudyParts {
  readonly authority: Authority
  readonly machine: LaboratoryMachine
  readonly references: { readonly boot: BootReference; readonly ima: ImaReference }
  readonly clinic: Party
  readonly vendor: Party
  readonly consortium: Party
  readonly stranger: Party
  readonly records: TestArtifact
  readonly trainer: TestArtifact
}

/** What costs time to make and does not change; each test puts its own manager over it. */
export async function makeParts(): Promise<StudyParts> {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  const [clinic, vendor, consortium, stranger] = await Promise.all(["clinic", "vendor", "consortium", "stranger"].map(makeParty))
  if (clinic === undefined || vendor === undefined || consortium === undefined || stranger === undefined) throw new TypeError("four parties")
  return {
    authority,
    machine,
    references: captureReferences(machine),
    clinic,
    vendor,
    consortium,
    stranger,
    records: await makeArtifact("records", clinic),
    trainer: await makeArtifact("trainer", vendor),
  }
}

/** The real judge, with a moment after each judgement in which a test can change the world. */
class PausingJudge extends EvidenceJudge {
  readonly #pause: () => Promise<void>

  constructor(laboratoryRoots: readonly Uint8Array[], pause: () => Promise<void>) {
    super({ laboratoryRoots, randomBytes: random, vouch: async (evidence) => evidence })
    this.#pause = pause
  }

  override async judge(request: JudgeRequest): Promise<Judgement> {
    const judgement = await super.judge(request)
    await this.#pause()
    return judgement
  }
}

/** One manager in memory with a study of three parties. */
export class TestStudy {
  readonly parts: StudyParts
  readonly clock = new TestClock()
  readonly journal: MemoryJournal
  readonly vaultKey = random(32)
  readonly blobs: BlobFolder
  /** Keys that may propose policies: the three parties'. */
  readonly members: Set<string>
  /** Where calls seem to come from. */
  address = "192.0.2.1"
  /** Runs between a judgement and what follows from it. */
  whileJudging: () => Promise<void> = async () => undefined
  manager: Manager
  store: Store

  private constructor(parts: StudyParts, journal: MemoryJournal, blobs: BlobFolder, start: (study: TestStudy) => { manager: Manager; store: Store }) {
    this.parts = parts
    this.members = new Set([parts.clinic.key, parts.vendor.key, parts.consortium.key])
    this.journal = journal
    this.blobs = blobs
    const { manager, store } = start(this)
    this.manager = manager
    this.store = store
  }

  static async create(parts: StudyParts): Promise<TestStudy> {
    const folder = await mkdtemp(join(tmpdir(), "perun-blobs-"))
    process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
    const blobs = await BlobFolder.create(folder)
    const deposit = await generateHpkeKeyPair()
    const { privateKey } = generateKeyPairSync("ed25519")
    return new TestStudy(parts, new MemoryJournal(), blobs, (study) => {
      using store = Store.create({ journal: study.journal, vaultKey: study.vaultKey, randomBytes: random }, study.clock.wall)
      store.transact(new Date(study.clock.wall), (tx) =>
        tx.put("keys", keysKey, {
          instance: encodeHex(random(16)),
          identityKey: String(privateKey.export({ format: "pem", type: "pkcs8" })),
          tlsKey: "",
          tlsCertificate: "",
          tlsKeyDigest: digestOf(random(32)),
          depositPrivateKey: encodeBase64(deposit.privateKey),
          depositPublicKey: encodeBase64(deposit.publicKey),
          resultKey: String(generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey.export({ format: "pem", type: "pkcs8" })),
        }),
      )
      return study.#open()
    })
  }

  /** The TEE that the manager runs in, from its next start on. */
  ownTee: OwnTee | undefined

  /** Who checks the manager's clock, from its next start on. */
  timeSource: TimeSource | undefined
  /** Who is asked to cosign the manager's log, from its next start on. */
  witnesses: readonly WitnessSource[] = []

  /** What the manager told its operator. */
  readonly warnings: string[] = []

  /** Hears what the operator would, from the next start on. */
  observer: ManagerObserver = silentObserver
  /** Bytes free on the manager's disk. */
  freeBytes: number | undefined

  /** Whom the operator has named, from the next start on. */
  securityContact: string | undefined

  /** Further laboratory roots (DER) whose machines may enrol, from its next start on. */
  moreRoots: readonly Uint8Array[] = []

  /** As after kill -9 and a new start: only what the journal holds is left. */
  restart(): void {
    const { manager, store } = this.#open()
    this.manager = manager
    this.store = store
  }

  #open(): { manager: Manager; store: Store } {
    const store = Store.open({ journal: this.journal, vaultKey: this.vaultKey, randomBytes: random })
    const judge = new PausingJudge([this.parts.authority.root, ...this.moreRoots], async () => this.whileJudging())
    const { clock, blobs, members, ownTee, timeSource } = this
    const world = { store, blobs, clock, randomBytes: random, judge, members, ...(ownTee === undefined ? {} : { ownTee }) }
    const time = timeSource === undefined ? {} : { timeSource }
    const manager = createManager({
      ...world,
      ...time,
      witnesses: this.witnesses,
      observer: observers(
        plainObserver((line) => this.warnings.push(line)),
        this.observer,
      ),
      freeBytes: () => this.freeBytes,
      ...(this.securityContact === undefined ? {} : { securityContact: this.securityContact }),
      vault: { kind: "key-file" },
      configuration: { test: true },
    })
    return { manager, store }
  }

  policy(change: Partial<Policy> = {}): Policy {
    const { clinic, vendor, consortium, records, trainer, machine, references, authority } = this.parts
    return {
      perun: 1,
      study: "study",
      purpose: "a test",
      stakeholders: {
        clinic: { keys: [clinic.key], roles: ["data"] },
        vendor: { keys: [vendor.key], recipients: [vendor.recipient], roles: ["code"] },
        consortium: { keys: [consortium.key], recipients: [consortium.recipient], roles: ["consumer"] },
      },
      manager: { insecureUnattested: { key: this.manager.description.key } },
      artifacts: {
        records: { kind: "dataset", owner: "clinic", manifest: records.digest },
        trainer: { kind: "code", owner: "vendor", manifest: trainer.digest },
      },
      machines: {
        host: {
          level: "administered",
          tpm: { endorsementKeys: [machine.endorsementKey], laboratoryRoots: [digestOf(authority.root)], startupLocality: "any", clock: "safe" },
          boot: { reference: referenceDigest(references.boot) },
          ima: { reference: referenceDigest(references.ima), violations: "deny" },
        },
      },
      jobs: {
        train: {
          machine: "host",
          runtime: "measured-root",
          run: ["/usr/bin/python3", "train.py"],
          inputs: { records: "/opt/ml/input/data/records", trainer: "/opt/ml/code" },
          outputs: {
            model: {
              path: "/opt/ml/model",
              kind: "model",
              maxBytes: 1_000_000,
              to: ["consortium"],
              release: { require: "all", of: ["clinic"] },
              waive: ["vendor"],
            },
          },
          metrics: { to: ["vendor"], schema: { epoch: "int", loss: { float: 4 } }, maxPerMinute: 5, maxBytes: 200 },
          logs: "none",
          maxRuns: 2,
          network: "none",
          resources: { gpus: 0, memoryBytes: 1_000_000_000, wallSeconds: 600 },
          lease: { seconds: 60 },
        },
      },
      approval: { require: "all" },
      expires: "2027-06-01T00:00:00Z",
      supersedes: "none",
      ...change,
    }
  }

  /** Header and TLS key of a party, as a connection of its own has them. */
  as(party: Party): Caller {
    const notAfter = new Date(this.clock.wall + 3_600_000).toISOString()
    const statement = { perun: 1, manager: this.manager.description.instance, tlsKey: party.tlsKey, notAfter } as const
    return { tlsKey: party.tlsKey, header: makeSessionHeader(statement, party.privateKey) }
  }

  async fetch(
    method: string,
    path: string,
    caller: Caller,
    body?: RequestInit["body"],
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Response> {
    const request = new Request(`https://manager${path}`, {
      method,
      headers: { ...headers, ...(caller.header === undefined ? {} : { [sessionHeader]: caller.header }) },
      ...(body === undefined || body === null ? {} : { body, duplex: "half" }),
    })
    return this.manager.app.fetch(request, { peerTlsKey: caller.tlsKey, peerAddress: this.address })
  }

  /** Calls a route as a function. @throws {ProblemError} */
  async call<R extends Route>(
    route: R,
    caller: Caller,
    options: { readonly params?: PathValues<R["path"]>; readonly query?: string; readonly body?: RequestBody<R> } = {},
  ): Promise<ResponseBody<R>> {
    const params: Readonly<Record<string, string>> = options.params ?? {}
    const path = route.path.replaceAll(/:([a-z]+)/g, (_, name: string) => params[name] ?? "")
    const body = options.body === undefined ? undefined : JSON.stringify(options.body)
    const response = await this.fetch(route.method, `${path}${options.query ?? ""}`, caller, body)
    const bytes = new Uint8Array(await response.arrayBuffer())
    if (response.status === 204) throw new MalformedError("malformed", "no content")
    if (!response.ok) throw new ProblemError(parseMessage(problemSchema, bytes), undefined)
    return parseMessage(route.response, bytes, 33_554_432) as ResponseBody<R>
  }

  /** The whole log, as the store has it. */
  get receipts(): readonly Receipt[] {
    return this.store.logEntries(0, this.store.logHead.size)
  }

  /** A party's connection, as those who read the log need it. */
  connectionOf(party: Party) {
    const call = async <R extends Route>(route: R, options: { readonly params?: PathValues<R["path"]>; readonly query?: RequestQuery<R> } = {}) => {
      const query = options.query === undefined ? "" : `?${new URLSearchParams(options.query as Record<string, string>).toString()}`
      return this.call(route, this.as(party), { ...(options.params === undefined ? {} : { params: options.params }), query })
    }
    return { call, description: this.manager.description }
  }

  /** A sealed output of one small blob, uploaded and reported as an agent does; what it is called at the manager. */
  async makeOutput(agent: AgentKeys, run: string, name = "model"): Promise<string> {
    const recipient = this.store.get("runKeys", run)?.recipient ?? ""
    const blob = new Uint8Array(concatBytes(await encodeAgeHeader(generateFileKey(), [recipient]), random(100)))
    const digest = digestOf(blob)
    const index = { digest, sizeBytes: blob.length, saltedDigest: digest }
    const { clinic } = this.parts
    const manifest: ArtifactManifest = {
      perun: 1,
      kind: "output",
      owner: clinic.key,
      name,
      recipient,
      shards: [],
      index,
      files: { count: 1, bytes: 100 },
    }
    const { signed } = await signManifest(manifest, "", clinic.privateKey)
    const response = await this.fetch("PUT", `/v1/blobs/${digest}`, agent, blob)
    if (response.status !== 204) throw new TypeError(await response.text())
    return (await this.call(routes.reportOutput, agent, { params: { run }, body: { name, manifest: toJson(signed) } })).output
  }

  async vote(output: string, party: Party): Promise<void> {
    const { outputs } = await this.call(routes.listOutputs, this.as(party))
    const view = outputs.find((one) => one.output === output)
    if (view === undefined) throw new TypeError(`no output ${output}`)
    const signature = signStatement("vote", voteDigest(view), party.privateKey)
    await this.call(routes.voteOutput, this.as(party), { params: { output }, body: { signature } })
  }

  async submit(policy: Policy, by = this.parts.clinic): Promise<Digest> {
    const { boot, ima } = this.parts.references
    // A TEE alone has none; with one that no machine names a policy would be refused.
    const references = Object.values(policy.machines).some((machine) => hostRequirementOf(machine) !== undefined) ? [boot, ima] : []
    const body = { policy: toJson(policy), references: references.map(toJson) }
    return (await this.call(routes.submitPolicy, this.as(by), { body })).digest
  }

  async sign(digest: Digest, party: Party): Promise<ResponseBody<typeof routes.approvePolicy>> {
    const signature = signStatement("policy", digest, party.privateKey)
    return this.call(routes.approvePolicy, this.as(party), { params: { digest }, body: { signature } })
  }

  async withdraw(digest: Digest, party: Party): Promise<ResponseBody<typeof routes.withdrawPolicy>> {
    const signature = signStatement("withdraw", digest, party.privateKey)
    return this.call(routes.withdrawPolicy, this.as(party), { params: { digest }, body: { signature } })
  }

  async deposit(digest: Digest, artifact: string, owner: Party, made: TestArtifact): Promise<ResponseBody<typeof routes.depositArtifact>> {
    const { depositKey, instance } = this.manager.description
    const context = { purpose: "deposit", policy: digest, artifact, manifest: made.digest, manager: instance } as const
    const sealedIdentity = await sealMessage(parseBase64(depositKey), context, encodeUtf8(made.identity))
    return this.call(routes.depositArtifact, this.as(owner), {
      params: { digest },
      body: { artifact, manifest: toJson(made.signed), sealedIdentity },
    })
  }

  /** A policy that all signed, with both keys deposited. */
  async agree(policy = this.policy()): Promise<Digest> {
    const { clinic, vendor, consortium, records, trainer } = this.parts
    const digest = await this.submit(policy)
    for (const party of [clinic, vendor, consortium]) await this.sign(digest, party)
    await this.deposit(digest, "records", clinic, records)
    await this.deposit(digest, "trainer", vendor, trainer)
    return digest
  }

  async queue(digest: Digest, party = this.parts.vendor): Promise<string> {
    return (await this.call(routes.queueRun, this.as(party), { params: { digest, job: "train" }, body: {} })).run
  }

  async enrol(agent: AgentKeys, host = "host-1", machine = this.parts.machine): Promise<void> {
    const begun = await this.call(routes.beginEnrolment, agent, { body: machine.enrolmentRequest(host) })
    const secret = machine.activate(begun)
    await this.call(routes.answerEnrolment, agent, { params: { enrolment: begun.enrolment }, body: { secret } })
  }

  async challenge(agent: AgentKeys, host = "host-1", lease?: string): Promise<Challenge> {
    const body = lease === undefined ? ({ purpose: "claim", host } as const) : ({ purpose: "renew", host, lease } as const)
    return this.call(routes.requestChallenge, agent, { body })
  }

  /** Session digest as the agent computes it, from the challenge and its own keys. */
  sessionOf(challenge: Challenge, agent: AgentKeys, akName = this.parts.machine.akName): Uint8Array {
    const { purpose, nonce, manager, policy, job, run, lease } = challenge
    const hpkeKey = encodeBase64(agent.hpke.publicKey)
    return sessionDigest({
      purpose,
      version: 1,
      manager,
      nonce,
      hpkeKey,
      tlsKey: agent.tlsKey,
      akName,
      deviceEvidence: [],
      policy,
      job,
      run,
      lease,
    })
  }

  evidence(
    challenge: Challenge,
    agent: AgentKeys,
    machine = this.parts.machine,
    withBootLog = challenge.imaFrom === 0,
  ): { challenge: string; hpkeKey: string; bundle: HostBundleDocument } {
    const bundle = machine.bundle(this.sessionOf(challenge, agent, machine.akName), { from: challenge.imaFrom, withBootLog })
    return { challenge: challenge.challenge, hpkeKey: encodeBase64(agent.hpke.publicKey), bundle }
  }

  async claim(agent: AgentKeys, host = "host-1", machine = this.parts.machine): Promise<ClaimGrant> {
    return this.call(routes.claimRun, agent, { body: this.evidence(await this.challenge(agent, host), agent, machine) })
  }

  async renew(agent: AgentKeys, lease: string, machine = this.parts.machine): Promise<{ seconds: number }> {
    const challenge = await this.challenge(agent, "host-1", lease)
    return this.call(routes.renewLease, agent, { params: { lease }, body: this.evidence(challenge, agent, machine) })
  }

  async openGrant(agent: AgentKeys, grant: ClaimGrant): Promise<Readonly<Record<string, string>>> {
    return (await this.openReleased(agent, grant)).identities
  }

  async openReleased(agent: AgentKeys, grant: ClaimGrant): Promise<ReleasedKeys> {
    const context = { purpose: "release", session: grant.session, policy: grant.policy, run: grant.run } as const
    const plaintext = await openMessage(agent.hpke.privateKey, context, grant.sealedKeys)
    return parseMessage(releasedKeysSchema, parseUtf8(plaintext))
  }

  /** From nothing to a running job. */
  async running(policy = this.policy()): Promise<{ digest: Digest; run: string; agent: AgentKeys; grant: ClaimGrant }> {
    const digest = await this.agree(policy)
    const agent = await makeAgent()
    await this.enrol(agent)
    const run = await this.queue(digest)
    return { digest, run, agent, grant: await this.claim(agent) }
  }
}

/** A document as it travels. */
export function toJson(value: object): RequestBody<typeof routes.submitPolicy>["policy"] {
  return parseMessage(routes.submitPolicy.body.shape.policy, JSON.stringify(value), 33_554_432)
}
