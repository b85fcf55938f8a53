import { join } from "node:path"
import { writeFile } from "node:fs/promises"
import type { Digest } from "../../src/bytes/digest.ts"
import { ManagerConnection } from "../../src/client/connection.ts"
import { depositArtifact, documentOf } from "../../src/client/deposit.ts"
import { createIdentity, type Identity } from "../../src/client/identity.ts"
import { signStatement } from "../../src/pki/statement.ts"
import { type Policy, policyDigest } from "../../src/policy/document.ts"
import type { Reference } from "../../src/policy/reference.ts"
import type { OutputView, PolicyStatus, RunView } from "../../src/protocol/messages.ts"
import { routes } from "../../src/protocol/routes.ts"
import { voteDigest } from "../../src/protocol/statements.ts"
import { type ArtifactKind, manifestSigner } from "../../src/sealing/manifest.ts"
import { type SealedArtifact, sealArtifact } from "../../src/sealing/seal-artifact.ts"
import type { ManagerProcess } from "./manager-process.ts"

/** One of the parties of a study: a folder of its own with an identity and artifacts, and the calls of the SDK under that identity. */
export class Party {
  readonly name: string
  readonly folder: string
  readonly identity: Identity
  #connection: ManagerConnection | undefined

  private constructor(name: string, folder: string, identity: Identity) {
    this.name = name
    this.folder = folder
    this.identity = identity
  }

  /** Makes the party's folder, which is a `PERUN_HOME` for the command line too, with a new identity. */
  static async create(name: string, parent: string): Promise<Party> {
    const folder = join(parent, name)
    return new Party(name, folder, await createIdentity(join(folder, "identity"), { name }))
  }

  /** Pins the manager in the party's home and connects to it. */
  async meet(manager: ManagerProcess): Promise<void> {
    this.#connection?.[Symbol.dispose]()
    const { url, key, requirement } = manager
    const pin = { url, key, accept: requirement.accept }
    await writeFile(join(this.folder, "managers.json"), `${JSON.stringify({ perun: 1, default: url, managers: [pin] }, null, 2)}\n`)
    this.#connection = await ManagerConnection.open(pin, this.identity)
  }

  get connection(): ManagerConnection {
    if (this.#connection === undefined) throw new TypeError(`${this.name} has not met a manager`)
    return this.#connection
  }

  leave(): void {
    this.#connection?.[Symbol.dispose]()
    this.#connection = undefined
  }

  /** Folder of a sealed artifact of this party. */
  sealedFolder(artifact: string): string {
    return join(this.folder, "sealed", artifact)
  }

  async seal(artifact: string, kind: ArtifactKind, source: string): Promise<SealedArtifact> {
    const signer = manifestSigner(this.identity.privateKey)
    return await sealArtifact({ source, output: this.sealedFolder(artifact), kind, name: artifact, signer, key: { generate: "hybrid" } })
  }

  async submit(policy: Policy, references: readonly Reference[]): Promise<PolicyStatus> {
    return await this.connection.call(routes.submitPolicy, { body: { policy: documentOf(policy), references: references.map(documentOf) } })
  }

  async sign(policy: Policy): Promise<PolicyStatus> {
    const digest = policyDigest(policy)
    const signature = signStatement("policy", digest, this.identity.privateKey)
    return await this.connection.call(routes.approvePolicy, { params: { digest }, body: { signature } })
  }

  async deposit(policy: Policy, artifact: string): Promise<void> {
    await this.depositFrom(policy, artifact, artifact)
  }

  /** Deposits under a name that the artifact has in the policy what was sealed under another. */
  async depositFrom(policy: Policy, artifact: string, sealedAs: string): Promise<void> {
    await depositArtifact(this.connection, { policy, artifact, folder: this.sealedFolder(sealedAs) })
  }

  async start(policy: Digest, job: string): Promise<string> {
    return (await this.connection.call(routes.queueRun, { params: { digest: policy, job }, body: {} })).run
  }

  async run(run: string): Promise<RunView> {
    return await this.connection.call(routes.getRun, { params: { run } })
  }

  async cancel(run: string): Promise<RunView> {
    return await this.connection.call(routes.cancelRun, { params: { run }, body: {} })
  }

  async outputs(run: string): Promise<readonly OutputView[]> {
    return (await this.connection.call(routes.listOutputs, { query: { run } })).outputs
  }

  async vote(output: OutputView): Promise<OutputView> {
    const signature = signStatement("vote", voteDigest(output), this.identity.privateKey)
    return await this.connection.call(routes.voteOutput, { params: { output: output.output }, body: { signature } })
  }
}
