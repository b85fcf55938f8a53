import type { ChildProcess } from "node:child_process"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { ManagerConnection } from "../client/connection.ts"
import type { ManagerPin } from "./home.ts"
import { depositArtifact, documentOf } from "../client/deposit.ts"
import { createIdentity, type Identity } from "../client/identity.ts"
import type { AttestedManager, Machine as LaboratoryRequirement, Policy, ReferenceUpdates } from "../policy/document.ts"
import { policyDigest } from "../policy/document.ts"
import { type BootReference, type ImaReference, referenceDigest } from "../policy/reference.ts"
import { initManager } from "../manager/state.ts"
import { signStatement } from "../pki/statement.ts"
import { routes } from "../protocol/routes.ts"
import { manifestSigner } from "../sealing/manifest.ts"
import { sealArtifact } from "../sealing/seal-artifact.ts"
import { end, type Environment, serveFolder } from "./process.testing.ts"

/** A party of a test with a `PERUN_HOME` in which the manager is pinned. */
export interface TestParty {
  readonly identity: Identity
  readonly home: string
  readonly environment: Environment
}

export interface StudyOptions {
  /** Root (DER) of the laboratory TPMs. */
  readonly root: Uint8Array
  readonly endorsementKey: Digest
  readonly references: { readonly boot: BootReference; readonly ima: ImaReference }
  /** Size of the sealed table, for transfers that take their time. */
  readonly recordsBytes?: number
  readonly job?: Partial<Policy["jobs"][string]>
  readonly secrets?: Policy["secrets"]
  /** Who may update the machine's IMA reference alone. */
  readonly imaUpdates?: ReferenceUpdates
  /** A manager that proves itself: words that `manager serve` is given, and what the policy demands. The parties pin its key alone. */
  readonly attested?: { readonly words: readonly string[]; readonly manager: AttestedManager }
}

/**
 * For tests: a manager in a process of its own, two parties with homes and sealed artifacts, and a policy over both. Nothing is submitted yet; `agree` brings
 * everything to where runs can be queued.
 */
export class RealStudy implements AsyncDisposable {
  readonly folder: string
  readonly clinic: TestParty
  readonly vendor: TestParty
  readonly policy: Policy
  readonly policyFile: string
  readonly #options: StudyOptions
  readonly #key: string
  #server: ChildProcess
  #url: string

  private constructor(parts: {
    readonly folder: string
    readonly clinic: TestParty
    readonly vendor: TestParty
    readonly policy: Policy
    readonly options: StudyOptions
    readonly key: string
    readonly server: ChildProcess
    readonly url: string
  }) {
    this.folder = parts.folder
    this.clinic = parts.clinic
    this.vendor = parts.vendor
    this.policy = parts.policy
    this.policyFile = join(parts.folder, "policy.json")
    this.#options = parts.options
    this.#key = parts.key
    this.#server = parts.server
    this.#url = parts.url
  }

  static async start(options: StudyOptions): Promise<RealStudy> {
    const folder = await mkdtemp(join(tmpdir(), "perun-study-"))
    const [clinic, vendor] = [await makeParty(folder, "clinic"), await makeParty(folder, "vendor")]
    const members = [clinic, vendor].map(({ identity }) => ({ key: identity.key, comment: "" }))
    const { key } = await initManager({ folder: join(folder, "manager"), laboratoryRoots: [options.root], members, vault: { kind: "key-file" } })
    const { server, url } = await serveFolder(join(folder, "manager"), undefined, options.attested?.words)
    for (const party of [clinic, vendor]) await pin(party, { url, key })
    await write(join(folder, "records", "table.csv"), `x,y\n${"1,0\n".repeat(Math.ceil((options.recordsBytes ?? 4) / 4))}`)
    await write(join(folder, "trainer", "train.py"), "print('hello')\n")
    const records = await seal(folder, clinic, "records", "dataset")
    const trainer = await seal(folder, vendor, "trainer", "code")
    const policy = policyOf({ clinic, vendor, key, records, trainer, options })
    await writeFile(join(folder, "policy.json"), JSON.stringify(policy))
    return new RealStudy({ folder, clinic, vendor, policy, options, key, server, url })
  }

  get digest(): Digest {
    return policyDigest(this.policy)
  }
  get pin(): ManagerPin {
    return { url: this.#url, key: this.#key }
  }
  get managerFolder(): string {
    return join(this.folder, "manager")
  }
  sealedFolder(artifact: "records" | "trainer"): string {
    return join(this.folder, `${artifact}-sealed`)
  }

  async connect(party: TestParty): Promise<ManagerConnection> {
    return ManagerConnection.open(this.pin, party.identity)
  }

  async submit(): Promise<void> {
    using connection = await this.connect(this.clinic)
    const { boot, ima } = this.#options.references
    await connection.call(routes.submitPolicy, { body: { policy: documentOf(this.policy), references: [documentOf(boot), documentOf(ima)] } })
  }

  async sign(party: TestParty): Promise<void> {
    using connection = await this.connect(party)
    const signature = signStatement("policy", this.digest, party.identity.privateKey)
    await connection.call(routes.approvePolicy, { params: { digest: this.digest }, body: { signature } })
  }

  async deposit(party: TestParty, artifact: "records" | "trainer"): Promise<void> {
    using connection = await this.connect(party)
    await depositArtifact(connection, { policy: this.policy, artifact, folder: this.sealedFolder(artifact) })
  }

  async agree(): Promise<void> {
    await this.submit()
    for (const party of [this.clinic, this.vendor]) await this.sign(party)
    await this.deposit(this.clinic, "records")
    await this.deposit(this.vendor, "trainer")
  }

  async queue(): Promise<string> {
    using connection = await this.connect(this.vendor)
    return (await connection.call(routes.queueRun, { params: { digest: this.digest, job: "train" }, body: {} })).run
  }

  async stopManager(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await end(this.#server, signal)
  }

  /** At the address that it had, where nobody else took it meanwhile. */
  async startManager(words: readonly string[] = []): Promise<void> {
    const all = [...(this.#options.attested?.words ?? []), ...words]
    ;({ server: this.#server, url: this.#url } = await serveFolder(this.managerFolder, new URL(this.#url).host, all))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopManager()
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** Waits for something that another process brings about. */
export async function until(what: string, isSo: () => boolean | Promise<boolean>, seconds = 60): Promise<void> {
  const deadline = performance.now() + seconds * 1000
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${seconds} s`)
    await sleep(20)
  }
}

async function makeParty(folder: string, name: string): Promise<TestParty> {
  const home = join(folder, `home-${name}`)
  return { identity: await createIdentity(join(home, "identity"), { name, recipient: "x25519" }), home, environment: { PERUN_HOME: home } }
}

/** Pins a manager in the home of a party, in the place of any before. */
export async function pin({ home }: TestParty, manager: ManagerPin): Promise<void> {
  await writeFile(join(home, "managers.json"), JSON.stringify({ perun: 1, default: manager.url, managers: [manager] }))
}

async function seal(folder: string, owner: TestParty, name: string, kind: "dataset" | "code"): Promise<Digest> {
  const { digest } = await sealArtifact({
    source: join(folder, name),
    output: join(folder, `${name}-sealed`),
    kind,
    name,
    signer: manifestSigner(owner.identity.privateKey),
    key: { generate: "x25519" },
  })
  return digest
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(join(path, ".."), { recursive: true })
  await writeFile(path, text)
}

interface PolicyParts {
  readonly clinic: TestParty
  readonly vendor: TestParty
  readonly key: string
  readonly records: Digest
  readonly trainer: Digest
  readonly options: StudyOptions
}

function policyOf({ clinic, vendor, key, records, trainer, options }: PolicyParts): Policy {
  const { references, endorsementKey, root } = options
  const machine: LaboratoryRequirement = {
    level: "administered",
    tpm: { endorsementKeys: [endorsementKey], laboratoryRoots: [digestOf(root)], startupLocality: "any", clock: "any" },
    boot: { reference: referenceDigest(references.boot) },
    ima: {
      reference: referenceDigest(references.ima),
      violations: "deny",
      ...(options.imaUpdates === undefined ? {} : { updates: options.imaUpdates }),
    },
  }
  return {
    perun: 1,
    study: "real-study",
    purpose: "Train on the table; the model goes to the clinic.",
    ...(options.secrets === undefined ? {} : { secrets: options.secrets }),
    stakeholders: {
      clinic: { keys: [clinic.identity.key], recipients: [clinic.identity.recipient], roles: ["data", "consumer"] },
      vendor: { keys: [vendor.identity.key], recipients: [vendor.identity.recipient], roles: ["code"] },
    },
    manager: options.attested?.manager ?? { insecureUnattested: { key } },
    artifacts: {
      records: { kind: "dataset", owner: "clinic", manifest: records },
      trainer: { kind: "code", owner: "vendor", manifest: trainer },
    },
    machines: { host: machine },
    jobs: {
      train: {
        machine: "host",
        runtime: "measured-root",
        run: ["/bin/sleep", "60"],
        inputs: { records: "/opt/ml/input/data/records", trainer: "/opt/ml/code" },
        outputs: { model: { path: "/opt/ml/model", kind: "model", maxBytes: 20_000_000, to: ["clinic"], release: { require: "all" } } },
        metrics: "none",
        logs: "none",
        maxRuns: 5,
        network: "none",
        resources: { gpus: 0, memoryBytes: 300_000_000, wallSeconds: 600 },
        lease: { seconds: 60 },
        ...options.job,
      },
    },
    approval: { require: "all" },
    expires: new Date(Date.now() + 86_400_000).toISOString().replace(/\.\d+Z$/, "Z"),
    supersedes: "none",
  }
}
