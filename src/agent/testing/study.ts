import { generateKeyPairSync, type KeyObject } from "node:crypto"
import { mkdir, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import type { Digest } from "../../bytes/digest.ts"
import { encodeHex } from "../../bytes/text.ts"
import { sshPublicKeyText } from "../../pki/ssh-key.ts"
import { signStatement } from "../../pki/statement.ts"
import { policyDigest, type Artifact, type Job, type Policy } from "../../policy/document.ts"
import { sealMessage } from "../../protocol/hpke.ts"
import type { Challenge, ClaimGrant, ReleasedKeys } from "../../protocol/messages.ts"
import { documentSchema, parseShape } from "../../protocol/wire.ts"
import { generateAgeIdentity, recipientOf } from "../../sealing/keys.ts"
import { manifestSigner, type SignedManifest } from "../../sealing/manifest.ts"
import { sealArtifact } from "../../sealing/seal-artifact.ts"

/** For tests: a small study with two owners, their sealed artifacts in folders, and what its manager would answer. */

export interface Party {
  readonly privateKey: KeyObject
  readonly key: string
}

export function makeParty(): Party {
  const { privateKey } = generateKeyPairSync("ed25519")
  return { privateKey, key: sshPublicKeyText(privateKey) }
}

export interface SealedInput {
  readonly signed: SignedManifest
  readonly digest: Digest
  readonly identity: string
  /** Folder as `sealArtifact` left it. */
  readonly folder: string
}

/** Seals files (path to text) as an artifact of `party`. X25519, which is quicker to make. */
export async function sealInput(
  folder: string,
  party: Party,
  name: string,
  kind: "dataset" | "code",
  files: Readonly<Record<string, string>>,
): Promise<SealedInput> {
  const source = join(folder, `${name}-source`)
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(source, path)), { recursive: true })
    await writeFile(join(source, path), text)
  }
  const identity = await generateAgeIdentity("x25519")
  const output = join(folder, name)
  const recipient = await recipientOf(identity)
  const { signed, digest } = await sealArtifact({ source, output, kind, name, signer: manifestSigner(party.privateKey), key: { recipient } })
  return { signed, digest, identity, folder: output }
}

export interface Study {
  readonly manager: Party
  readonly clinic: Party
  readonly vendor: Party
  readonly policy: Policy
  readonly inputs: Readonly<Record<string, SealedInput>>
  /** The vault's age identity for outputs. */
  readonly outputIdentity: string
}

const table = "x,malignant\n1,0\n2,1\n3,1\n"

/** A study whose job runs `program` (Python) on the clinic's table. */
export async function makeStudy(folder: string, program: string, changes: Partial<Job> = {}, secrets?: Policy["secrets"]): Promise<Study> {
  const [manager, clinic, vendor] = [makeParty(), makeParty(), makeParty()]
  const inputs = {
    records: await sealInput(folder, clinic, "records", "dataset", { "table.csv": table }),
    trainer: await sealInput(folder, vendor, "trainer", "code", { "train.py": program }),
  }
  const artifacts: Record<string, Artifact> = {
    records: { kind: "dataset", owner: "clinic", manifest: inputs.records.digest },
    trainer: { kind: "code", owner: "vendor", manifest: inputs.trainer.digest },
  }
  const job: Job = {
    machine: "host",
    runtime: "measured-root",
    run: ["python3", "train.py"],
    inputs: { records: "/opt/ml/input/data/a", trainer: "/opt/ml/code" },
    outputs: { model: { path: "/opt/ml/model", kind: "model", maxBytes: 10_000, to: ["clinic"], release: { require: "all" } } },
    metrics: { to: ["vendor"], schema: { epoch: "int", loss: { float: 4 } }, maxPerMinute: 600, maxBytes: 1000 },
    logs: "none",
    maxRuns: 10,
    network: "none",
    resources: { gpus: 0, memoryBytes: 500_000_000, wallSeconds: 30 },
    lease: { seconds: 60 },
    ...changes,
  }
  const reference: Digest = `sha256:${"0".repeat(64)}`
  const policy: Policy = {
    perun: 1,
    study: "test",
    purpose: "test",
    stakeholders: {
      clinic: { keys: [clinic.key], recipients: [await recipientOf(await generateAgeIdentity("x25519"))], roles: ["data", "consumer"] },
      vendor: { keys: [vendor.key], roles: ["code"] },
    },
    manager: { insecureUnattested: { key: manager.key } },
    artifacts,
    ...(secrets === undefined ? {} : { secrets }),
    machines: {
      host: {
        level: "administered",
        tpm: { endorsementKeys: [reference], laboratoryRoots: [], startupLocality: "any", clock: "any" },
        boot: { reference },
        ima: { reference, violations: "deny" },
      },
    },
    jobs: { train: job },
    approval: { require: "all" },
    expires: "2100-01-01T00:00:00Z",
    supersedes: "none",
  }
  return { manager, clinic, vendor, policy, inputs, outputIdentity: await generateAgeIdentity("x25519") }
}

export function makeChallenge(policy: Policy, purpose: "claim" | "renew" = "claim"): Challenge {
  return {
    challenge: "1".repeat(32),
    purpose,
    nonce: "2".repeat(64),
    manager: "3".repeat(32),
    policy: policyDigest(policy),
    job: "train",
    run: "4".repeat(32),
    lease: "5".repeat(32),
    expiresAt: "2100-01-01T00:00:00Z",
    pieces: "tpm",
    imaFrom: 0,
  }
}

/** What an honest manager answers to a claim over `session` by `hpkePublicKey`. */
export async function makeGrant(
  study: Study,
  challenge: Challenge,
  session: Uint8Array,
  hpkePublicKey: Uint8Array,
  secrets: ReleasedKeys["secrets"] = {},
): Promise<ClaimGrant> {
  const { policy } = study
  const digest = policyDigest(policy)
  const sessionText: Digest = `sha256:${encodeHex(session)}`
  const identities = Object.fromEntries(Object.entries(study.inputs).map(([name, { identity }]) => [name, identity]))
  const context = { purpose: "release", session: sessionText, policy: digest, run: challenge.run } as const
  const at = "2026-01-01T00:00:00Z"
  return {
    policy: digest,
    document: parseShape(documentSchema, policy),
    approvals: [
      { stakeholder: "clinic", signature: signStatement("policy", digest, study.clinic.privateKey), at },
      { stakeholder: "vendor", signature: signStatement("policy", digest, study.vendor.privateKey), at },
    ],
    job: challenge.job,
    run: challenge.run,
    lease: { id: challenge.lease, seconds: 60 },
    inputs: Object.entries(study.inputs).map(([artifact, { signed }]) => ({ artifact, manifest: parseShape(documentSchema, signed) })),
    session: sessionText,
    sealedKeys: await sealMessage(hpkePublicKey, context, new TextEncoder().encode(JSON.stringify({ identities, secrets }))),
    outputRecipient: await recipientOf(study.outputIdentity),
  }
}
