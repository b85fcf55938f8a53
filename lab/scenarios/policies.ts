import type { Digest } from "../../src/bytes/digest.ts"
import type { HostLevel, HostMachine, Machine, Policy, Stakeholder } from "../../src/policy/document.ts"
import { type BootReference, type ImaReference, referenceDigest } from "../../src/policy/reference.ts"
import type { LabTpm } from "../machine/tpm.ts"
import type { ManagerProcess } from "./manager-process.ts"
import type { Party } from "./party.ts"

/** What a machine of an image must show. */
export interface ImageReferences {
  readonly boot: BootReference
  readonly ima: ImaReference
}

/** Requirement for laboratory machines of one image, with these TPMs only. INSECURE LABORATORY by its root. */
export function labMachine(level: HostLevel, references: ImageReferences, tpms: readonly LabTpm[], laboratoryRoot: Digest): HostMachine {
  return {
    level,
    tpm: {
      endorsementKeys: tpms.map(({ endorsementKey }) => endorsementKey),
      laboratoryRoots: [laboratoryRoot],
      startupLocality: "any",
      clock: "any",
    },
    boot: { reference: referenceDigest(references.boot) },
    ima: { reference: referenceDigest(references.ima), violations: "deny" },
  }
}

export interface StudyParts {
  readonly manager: ManagerProcess
  readonly clinicA: Party
  readonly clinicB: Party
  readonly vendor: Party
  readonly consortium: Party
  readonly manifests: { readonly recordsA: Digest; readonly recordsB: Digest; readonly trainer: Digest }
  readonly machine: Machine
  readonly expires: string
}

/** The policy of the main job: two clinics' records, the vendor's PyTorch program, one model for the consortium after both clinics' and the vendor's votes. */
export function trainingPolicy(parts: StudyParts): Policy {
  const { manager, clinicA, clinicB, vendor, consortium, manifests } = parts
  return {
    perun: 1,
    study: "breast-cancer-2026",
    purpose: "Train one classifier on both clinics' records; the model goes to the consortium, nothing else leaves.",
    stakeholders: {
      "clinic-a": stakeholder(clinicA, ["data"]),
      "clinic-b": stakeholder(clinicB, ["data"]),
      vendor: stakeholder(vendor, ["code"]),
      consortium: stakeholder(consortium, ["consumer"]),
    },
    manager: manager.requirement,
    artifacts: {
      "records-a": { kind: "dataset", owner: "clinic-a", manifest: manifests.recordsA },
      "records-b": { kind: "dataset", owner: "clinic-b", manifest: manifests.recordsB },
      trainer: { kind: "code", owner: "vendor", manifest: manifests.trainer },
    },
    machines: { "gpu-host": parts.machine },
    jobs: {
      train: {
        machine: "gpu-host",
        runtime: "measured-root",
        run: [
          ...["python3", "/opt/ml/code/train.py", "--data", "/opt/ml/input/data", "--model", "/opt/ml/model"],
          ...["--metrics", "/opt/ml/output/metrics.jsonl", "--epochs", "20"],
        ],
        inputs: { "records-a": "/opt/ml/input/data/clinic-a", "records-b": "/opt/ml/input/data/clinic-b", trainer: "/opt/ml/code" },
        outputs: {
          model: {
            path: "/opt/ml/model",
            kind: "model",
            maxBytes: 1_000_000,
            to: ["consortium"],
            // The vendor's program goes into the model too; by signing, the vendor gives up its vote and leaves the release to the clinics.
            release: { require: "all", of: ["clinic-a", "clinic-b"] },
            waive: ["vendor"],
          },
        },
        metrics: {
          to: ["vendor", "clinic-a", "clinic-b", "consortium"],
          schema: { epoch: "int", loss: { float: 4 }, accuracy: { float: 4 } },
          maxPerMinute: 6000,
          maxBytes: 100_000,
        },
        logs: "none",
        environment: { OPENBLAS_NUM_THREADS: "1", OMP_NUM_THREADS: "1" },
        maxRuns: 3,
        network: "none",
        resources: { gpus: 0, memoryBytes: 1_500_000_000, wallSeconds: 1800 },
        lease: { seconds: 60 },
      },
    },
    approval: { require: "all" },
    expires: parts.expires,
    supersedes: "none",
  }
}

export interface SmallStudyParts {
  readonly study: string
  readonly manager: ManagerProcess
  /** Owner of the records and consumer of the model. */
  readonly clinic: Party
  readonly vendor: Party
  readonly manifests: { readonly records: Digest; readonly trainer: Digest }
  /** Machine requirements by name; each gets one job of its own, `train-NAME`. */
  readonly machines: Readonly<Record<string, Machine>>
  readonly expires: string
}

/** A small study for machines without PyTorch: the same network in plain JavaScript, run by the image's Node. One job per machine requirement. */
export function smallPolicy(parts: SmallStudyParts): Policy {
  const { manager, clinic, vendor, manifests, machines } = parts
  const job = (machine: string): Policy["jobs"][string] => ({
    machine,
    runtime: "measured-root",
    run: [
      ...["/usr/lib/perun/node", "/opt/ml/code/train.mjs", "--data", "/opt/ml/input/data", "--model", "/opt/ml/model"],
      ...["--metrics", "/opt/ml/output/metrics.jsonl", "--epochs", "20"],
    ],
    inputs: { records: "/opt/ml/input/data/clinic", trainer: "/opt/ml/code" },
    outputs: {
      model: { path: "/opt/ml/model", kind: "model", maxBytes: 1_000_000, to: [clinic.name], release: { require: "all" } },
    },
    metrics: {
      to: [clinic.name, vendor.name],
      schema: { epoch: "int", loss: { float: 4 }, accuracy: { float: 4 } },
      maxPerMinute: 6000,
      maxBytes: 100_000,
    },
    logs: "none",
    maxRuns: 8,
    network: "none",
    resources: { gpus: 0, memoryBytes: 300_000_000, wallSeconds: 600 },
    lease: { seconds: 60 },
  })
  return {
    perun: 1,
    study: parts.study,
    purpose: "A small training that shows which machines get keys and which are refused.",
    stakeholders: { [clinic.name]: stakeholder(clinic, ["data", "consumer"]), [vendor.name]: stakeholder(vendor, ["code"]) },
    manager: manager.requirement,
    artifacts: {
      records: { kind: "dataset", owner: clinic.name, manifest: manifests.records },
      trainer: { kind: "code", owner: vendor.name, manifest: manifests.trainer },
    },
    machines,
    jobs: Object.fromEntries(Object.keys(machines).map((machine) => [`train-${machine}`, job(machine)])),
    approval: { require: "all" },
    expires: parts.expires,
    supersedes: "none",
  }
}

function stakeholder({ identity }: Party, roles: Stakeholder["roles"]): Stakeholder {
  return { keys: [identity.key], recipients: [identity.recipient], roles }
}
