import { PerunError } from "../bytes/error.ts"

/** What goes wrong on a host while it asks for, opens, runs and seals a job. The meaning of each code stands here once. */
export const agentCodes = {
  configuration: "the agent's configuration is missing or contradicts itself",
  "wrong-manager": "the manager is not the one whose key the configuration pins",
  "wrong-policy": "the policy in the grant is not the one the challenge named, or does not hold the job",
  "wrong-approval": "the approvals do not satisfy the policy",
  "wrong-manifest": "an input's manifest is not the one that the policy names, or its owner did not sign it",
  "wrong-grant": "the grant lacks a part, doubles one, or belongs to another session",
  refused: "the manager refused the evidence",
  "sandbox-unavailable": "the sandbox program is missing or cannot do what is required here",
  "sandbox-paths": "a path of the policy is not one that the sandbox gives out",
  "scratch-unavailable": "memory-backed scratch cannot be set up",
  "output-missing": "the job did not write a declared output",
  "output-too-large": "an output is larger than the policy allows",
  "output-format": "an output is not in a format that the policy allows",
  "output-kind": "an output holds a link, a device or another thing that is not a plain file",
  "lease-lost": "the lease was not renewed in time, or its renewal was refused",
} as const satisfies Record<string, string>

export type AgentCode = keyof typeof agentCodes

/** Why the agent does not go on. Malformed documents throw MalformedError, a silent world UnavailableError. */
export class AgentError extends PerunError<AgentCode> {}
