import type { TdxRequirement } from "./tee.ts"
import { generateKeyPairSync } from "node:crypto"
import type { KeyObject } from "node:crypto"
import type { Digest } from "../bytes/digest.ts"
import { digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import type { BootEvent } from "../evidence/eventlog/claims.ts"
import type { HostClaims } from "../evidence/host/claims.ts"
import type { ImaEntry } from "../evidence/ima/claims.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { Derivation } from "./derivation.ts"
import type { EnclaveMachine, HostMachine, Machine, Policy } from "./document.ts"
import type { BootReference, ImaReference, References } from "./reference.ts"
import { referenceDigest, referencesByDigest } from "./reference.ts"

/** Test material only: a small study in which everything is right, and a machine that fits it. Tests spoil one thing at a time. */

export const keys = {
  "clinic-a": newKey(),
  "clinic-b": newKey(),
  vendor: newKey(),
  consortium: newKey(),
  manager: newKey(),
  stranger: newKey(),
} as const

export type Party = keyof typeof keys

export function keyText(party: Party): string {
  return sshPublicKeyText(keys[party])
}

/** A digest of some text, for whatever needs one. */
export function named(text: string): Digest {
  return digestOf(encodeUtf8(text))
}

export function hexOf(text: string): string {
  return named(text).substring("sha256:".length)
}

export const verityRootHash = hexOf("verity root")
/** What level `sealed` demands of a command line, without root hashes. */
export const sealedParameters =
  "lockdown=confidentiality module.sig_enforce=1 intel_iommu=on amd_iommu=force_isolation iommu.passthrough=0 iommu.strict=1 ima_policy=tcb"
export const commandLine = `root=/dev/dm-0 roothash=${verityRootHash} ${sealedParameters} console=ttyS0`

export const bootReference: BootReference = {
  perun: 1,
  kind: "boot",
  name: "small image",
  created: "2026-11-01T00:00:00Z",
  expires: "2027-06-01T00:00:00Z",
  bank: "sha256",
  startupLocality: 0,
  secureBoot: "disabled",
  quirks: [],
  registers: [
    { pcr: 0, events: [referenceEvent("firmware"), referenceEvent("separator")] },
    { pcr: 1, any: "holds the boot order" },
    ...[2, 3].map((pcr) => ({ pcr, events: [referenceEvent("separator")] })),
    { pcr: 4, events: ["calling", "separator", "kernel"].map(referenceEvent) },
    ...[5, 6, 7].map((pcr) => ({ pcr, events: [referenceEvent("separator")] })),
    { pcr: 8, events: [] },
    { pcr: 9, events: ["command line", "initrd"].map(referenceEvent) },
  ],
  commandLines: [{ pcr: 9, text: commandLine }],
  appliance: {
    verity: [{ parameter: "roothash", rootHash: verityRootHash }],
    login: "none",
    tpmAccess: "agent",
    ptrace: "off",
    swap: "off",
    coreDumps: "off",
    suspend: "off",
    kexec: "off",
    programs: "verity-root-only",
  },
}

const imaFunctions = ["BPRM_CHECK", "MMAP_CHECK", "FILE_CHECK", "MODULE_CHECK", "FIRMWARE_CHECK", "POLICY_CHECK", "KEXEC_KERNEL_CHECK"].concat([
  "KEXEC_INITRAMFS_CHECK",
  "KEXEC_CMDLINE",
  "KEY_CHECK",
  "CRITICAL_DATA",
])
const imaRuleLines = imaFunctions.map((func) => `measure func=${func}`)
/** The shortest policy that lists all that must be. */
export const imaRules = `${imaRuleLines.join("\n")}\n`

export const imaReference: ImaReference = {
  perun: 1,
  kind: "ima",
  name: "small image",
  created: "2026-11-01T00:00:00Z",
  expires: "2027-06-01T00:00:00Z",
  files: { [named("node")]: ["/usr/lib/perun/node"], [named("init")]: ["/init"], [named(imaRules)]: ["/root/etc/ima/policy"] },
  imaPolicy: { path: "/root/etc/ima/policy", rules: imaRules, before: [], replaceable: "no" },
  buffers: { ".ima": [named("key")] },
  violationClasses: { logs: ["/var/log/", "/run/one"] },
}

export const policy: Policy = {
  perun: 1,
  study: "breast-cancer-2026",
  purpose: "Train one classifier on both clinics' records; weights go to the consortium.",
  stakeholders: {
    "clinic-a": { keys: [keyText("clinic-a")], roles: ["data"] },
    "clinic-b": { keys: [keyText("clinic-b")], roles: ["data"] },
    vendor: { keys: [keyText("vendor")], recipients: ["age1vendor"], roles: ["code"] },
    consortium: { keys: [keyText("consortium")], recipients: ["age1pqconsortium"], roles: ["consumer"] },
  },
  manager: { insecureUnattested: { key: keyText("manager") } },
  artifacts: {
    "records-a": { kind: "dataset", owner: "clinic-a", manifest: named("records-a") },
    "records-b": { kind: "dataset", owner: "clinic-b", manifest: named("records-b") },
    trainer: { kind: "code", owner: "vendor", manifest: named("trainer") },
  },
  machines: {
    "gpu-host": {
      level: "sealed",
      tpm: { endorsementKeys: [named("ek")], laboratoryRoots: [], startupLocality: "any", clock: "safe" },
      boot: { reference: referenceDigest(bootReference) },
      ima: { reference: referenceDigest(imaReference), violations: "deny" },
    },
  },
  jobs: {
    train: {
      machine: "gpu-host",
      runtime: "measured-root",
      run: ["python3", "train.py", "--epochs", "40"],
      inputs: { "records-a": "/opt/ml/input/a", "records-b": "/opt/ml/input/b", trainer: "/opt/ml/code" },
      outputs: {
        model: {
          path: "/opt/ml/model",
          kind: "model",
          maxBytes: 50_000_000,
          to: ["consortium"],
          release: { require: "all", of: ["clinic-a", "clinic-b"] },
          waive: ["vendor"],
        },
      },
      metrics: { to: ["vendor"], schema: { epoch: "int", loss: { float: 4 } }, maxPerMinute: 600, maxBytes: 100_000 },
      logs: { to: ["vendor"], release: { require: "all" }, maxBytes: 100_000 },
      environment: { EPOCHS: "40" },
      maxRuns: 3,
      network: "none",
      resources: { gpus: 0, memoryBytes: 2_000_000_000, wallSeconds: 3600 },
      lease: { seconds: 60 },
    },
  },
  approval: { require: "all" },
  expires: "2027-06-01T00:00:00Z",
  supersedes: "none",
}

export const references: References = referencesByDigest([bootReference, imaReference])

/** While everything is valid. */
export const now = new Date("2026-12-01T00:00:00Z")

export const claims: HostClaims = {
  quote: {
    selection: [{ bank: "sha256", pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14] }],
    pcrDigest: hexOf("pcrs"),
    pcrs: new Map(),
    clockInfo: { clock: 1000n, resetCount: 7, restartCount: 0, safe: true },
    firmwareVersion: 1n,
    qualifiedSigner: hexOf("signer"),
    scheme: "rsassa-sha256",
    usesSha1: false,
  },
  boot: {
    bank: "sha256",
    events: bootEvents(),
    pcrs: new Map(),
    startupLocality: 0,
    secureBoot: "disabled",
    commandLines: [{ pcr: 9, text: commandLine }],
    loadOptions: [hexOf("command line")],
    images: [hexOf("kernel")],
    initrds: [hexOf("initrd")],
    quirks: [],
    trailingBytes: 0,
  },
  ima: {
    entries: [imaEntry(0, "boot_aggregate", "aggregate"), imaEntry(1, "/root/etc/ima/policy", imaRules), imaEntry(2, "/init", "init")],
    firstIndex: 0,
    certifiedCount: 3,
    uncertified: [imaEntry(3, "/usr/lib/perun/node", "node")],
    bootAggregate: hexOf("aggregate"),
    extendRule: "per-bank",
    violations: 0,
    state: { count: 3, pcr: hexOf("pcr 10"), prefix: hexOf("prefix"), extendRule: "per-bank" },
  },
  identity: {
    endorsementKey: named("ek"),
    root: named("vendor root"),
    rootKind: "vendor",
    description: "IFX SLB9670",
    attestationKeyName: hexOf("ak"),
  },
}

/** Something that a job made, of which only `change` is known. */
export function derivation(change: Partial<Derivation>): Derivation {
  return { origins: [], policies: [], laboratoryRoots: [], ...change }
}

export function imaEntry(index: number, name: string, content: string): ImaEntry {
  return { index, pcr: 10, template: "ima-ng", hashAlgorithm: "sha256", digest: hexOf(content), name: encodeUtf8(name), violation: false }
}

/** Events that fit `bootReference`, in the order in which firmware measures: registers interleaved, records without extend between. */
function bootEvents(): readonly BootEvent[] {
  const separators = [2, 3, 5, 6, 7].map((pcr) => bootEvent(pcr, "separator"))
  const events = [
    bootEvent(0, "firmware"),
    bootEvent(1, "boot order of this machine"),
    bootEvent(4, "calling"),
    bootEvent(0, "separator"),
    ...separators,
    bootEvent(4, "separator"),
    bootEvent(4, "kernel"),
    bootEvent(9, "command line"),
    bootEvent(9, "initrd"),
  ]
  return events.map((event, index) => ({ ...event, index: index + 1 }))
}

export function bootEvent(pcr: number, content: string): BootEvent {
  return { index: 99, pcr, type: "EV_TEST", digest: hexOf(content), description: content, certified: true }
}

function referenceEvent(content: string): { readonly type: string; readonly digests: readonly string[]; readonly description: string } {
  return { type: "EV_TEST", digests: [hexOf(content)], description: content }
}

function newKey(): KeyObject {
  return generateKeyPairSync("ed25519").privateKey
}

/** A demand on a TD that pins its firmware and nothing else. */
export const tdxDemand: TdxRequirement = {
  mrTd: ["aa".repeat(48)],
  rtmrs: { "0": "any", "1": "any", "2": "any", "3": "any" },
  ...{ mrConfigId: "any", mrOwner: "any", mrOwnerConfig: "any", mrSeam: "any", septVeDisable: true, migration: false, eventLog: "none" },
  ...{ debug: false, tcb: { status: ["UpToDate"], advisories: [], evaluationDataNumber: 0 }, platforms: "any", laboratoryRoots: [] },
}

/** A machine of a policy that is attested by its TPM. */
export function hostMachine(of: Policy = policy, name = "gpu-host"): HostMachine {
  const machine = of.machines[name]
  if (machine === undefined || machine.level === "enclave") throw new TypeError(`${name} is no host`)
  return machine
}

/** A TD alone, without a guest that proves itself. */
export const enclaveMachine: EnclaveMachine = { level: "enclave", accept: [{ tdx: tdxDemand }], guest: "none" }

/** The policy with another machine in the place of its host. */
export function onMachine(machine: Machine): Policy {
  return { ...policy, machines: { "gpu-host": machine } }
}

/** The policy's host as the guest inside a TD. */
export function guestedMachine(accept: EnclaveMachine["accept"] = enclaveMachine.accept): EnclaveMachine {
  const { level: _level, ...guest } = hostMachine()
  return { level: "enclave", accept, guest }
}
