import type { Command } from "commander"
import type { Output } from "./output.ts"

/** Adds a group's sub-commands, options and actions to its command. */
export type Register = (command: Command, output: Output) => void

export interface Group {
  readonly name: string
  readonly summary: string
  /** Loads the group's file; kept lazy so that a command starts fast. */
  load(): Promise<Register>
}

/** Every command of the program, in the order of `--help`. */
export const groups: readonly Group[] = [
  {
    name: "identity",
    summary: "create and show the identity that signs for you",
    load: async () => (await import("./commands/identity.ts")).register,
  },
  {
    name: "seal",
    summary: "seal a folder as an artifact: a dataset, code or model",
    load: async () => (await import("./commands/seal.ts")).register,
  },
  { name: "open", summary: "open or verify a sealed artifact with its key", load: async () => (await import("./commands/open.ts")).register },
  {
    name: "policy",
    summary: "write, check, explain, compare, sign and follow policies",
    load: async () => (await import("./commands/policy.ts")).register,
  },
  {
    name: "artifact",
    summary: "deposit the keys of artifacts under a policy; give one a new key",
    load: async () => (await import("./commands/artifact.ts")).register,
  },
  {
    name: "secret",
    summary: "bring values that jobs are given: tokens, passwords",
    load: async () => (await import("./commands/secret.ts")).register,
  },
  {
    name: "evidence",
    summary: "verify evidence of machines, and recorded evidence of real ones",
    load: async () => (await import("./commands/evidence.ts")).register,
  },
  {
    name: "collateral",
    summary: "what processors' makers say of their platforms: fetch, keep, check",
    load: async () => (await import("./commands/collateral.ts")).register,
  },
  { name: "manager", summary: "run a policy manager; pin the one that you use", load: async () => (await import("./commands/manager.ts")).register },
  { name: "host", summary: "machines that proved themselves", load: async () => (await import("./commands/host.ts")).register },
  { name: "agent", summary: "on a compute host: prove it and do runs", load: async () => (await import("./commands/agent.ts")).register },
  { name: "job", summary: "start, follow and cancel runs", load: async () => (await import("./commands/job.ts")).register },
  {
    name: "output",
    summary: "vote on sealed outputs and fetch those that are for you",
    load: async () => (await import("./commands/output.ts")).register,
  },
  { name: "audit", summary: "what the manager has done, from its signed receipts", load: async () => (await import("./commands/audit.ts")).register },
  {
    name: "witness",
    summary: "cosign managers' logs, so that a manager that was set back gives nothing out",
    load: async () => (await import("./commands/witness.ts")).register,
  },
  {
    name: "certificate",
    summary: "run certificates: what a model came from, proved to anybody",
    load: async () => (await import("./commands/certificate.ts")).register,
  },
  {
    name: "reference",
    summary: "reference values: what a good machine measures",
    load: async () => (await import("./commands/reference.ts")).register,
  },
  { name: "lab", summary: "machines in QEMU with measured boot and a software TPM", load: async () => (await import("./commands/lab.ts")).register },
  {
    name: "demo",
    summary: "the main job, end to end, with four parties and real machines in QEMU",
    load: async () => (await import("./commands/demo.ts")).register,
  },
  {
    name: "completion",
    summary: "print a completion script for bash, zsh or fish",
    load: async () => (await import("./commands/completion.ts")).register,
  },
]
