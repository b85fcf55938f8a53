import { open, readFile, readdir } from "node:fs/promises"
import { z } from "zod"
import { UnavailableError } from "../bytes/error.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { viewOf } from "../bytes/view.ts"
import { teeSourceForm } from "../evidence/tee/collectors/collect.ts"
import { teeRequirementSchema } from "../policy/tee.ts"
import { keyTextSchema, nameSchema, parseMessage } from "../protocol/wire.ts"
import { AgentError } from "./error.ts"

/**
 * What a host's agent must know: its name and its manager. On a lab machine it comes from a disk that the host's owner writes and nothing measures: a wrong
 * one costs the machine its jobs, and no one a secret, for keys go only to a machine that proves itself to the manager that the stakeholders' policy names.
 */
export const agentConfigSchema = z.strictObject({
  perun: z.literal(1),
  /** Name under which the host enrols. */
  host: nameSchema,
  manager: z.strictObject({
    /** Origin, https. */
    url: z.string().max(2000).startsWith("https://"),
    /** Identity key that the manager must show, `ssh-ed25519 base64`. */
    key: keyTextSchema,
    /** What its TEE must prove, as in the policy; without it only the key counts, and a policy that demands more is refused. */
    accept: z.array(teeRequirementSchema).min(1).max(64).exactOptional(),
  }),
  /** Whether the machine is to show its TPM; true unless told otherwise. */
  tpm: z.boolean().exactOptional(),
  /** Where the machine's TEE is asked for evidence: `tsm`, `gramine`, `azure`, or a guest agent's address. Without it the machine shows none. */
  tee: z.string().regex(teeSourceForm, "tsm, gramine, azure, http://HOST:PORT or unix:PATH").exactOptional(),
  /** Ends the agent after the first run, or the first refusal, instead of asking on. */
  once: z.boolean().optional(),
  /** Folder below which scratch is mounted. */
  scratch: z.string().startsWith("/").max(1000).optional(),
  /** For the machine's init, not for the agent. */
  console: z.record(z.string().max(64), z.json()).optional(),
})

export type AgentConfig = z.output<typeof agentConfigSchema>

/** @throws {UnavailableError} `unavailable`; {MalformedError} */
export async function loadConfigFile(path: string): Promise<AgentConfig> {
  try {
    return parseMessage(agentConfigSchema, new Uint8Array(await readFile(path)), maxConfigBytes)
  } catch (cause) {
    if (!(cause instanceof Error && "syscall" in cause)) throw cause
    throw new UnavailableError("unavailable", `cannot read ${path}`, { cause })
  }
}

/**
 * Reads the configuration from the block device whose virtio serial is `perun-config`: JSON, then NULs.
 * @throws {AgentError} `configuration` where there is no such disk, or several; {MalformedError}
 */
export async function loadConfigDisk(sysBlock = "/sys/block", dev = "/dev"): Promise<AgentConfig> {
  const found: string[] = []
  for (const name of await readdir(sysBlock)) if ((await readSerial(`${sysBlock}/${name}`)) === configSerial) found.push(name)
  const [name, ...others] = found
  if (name === undefined) throw new AgentError("configuration", `no disk has the serial ${configSerial}; use --config FILE`)
  if (others.length > 0) throw new AgentError("configuration", `several disks have the serial ${configSerial}: ${found.join(", ")}`)
  const disk = await open(`${dev}/${name}`, "r")
  try {
    const buffer = new Uint8Array(maxConfigBytes)
    const { bytesRead } = await disk.read(buffer, 0, buffer.length, 0)
    const end = buffer.indexOf(0)
    return parseMessage(agentConfigSchema, viewOf(buffer, 0, end < 0 ? bytesRead : Math.min(end, bytesRead)), maxConfigBytes)
  } finally {
    await disk.close()
  }
}

async function readSerial(folder: string): Promise<string | undefined> {
  try {
    return parseUtf8(new Uint8Array(await readFile(`${folder}/serial`))).trim()
  } catch {
    return undefined // Disks of other drivers show their serial elsewhere.
  }
}

const configSerial = "perun-config"
const maxConfigBytes = 64 * 1024
