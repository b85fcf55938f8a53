import { parseUtf8 } from "../bytes/text.ts"
import { own, type Job, type Policy } from "../policy/document.ts"
import { isDangerousVariable, isGivenVariable } from "../policy/environment.ts"
import { isWithin, pathFault, secretPathFault } from "../policy/paths.ts"
import { AgentError } from "./error.ts"
import type { Bind, JobUser, SandboxPlan } from "./sandbox.ts"

/** Where on the machine the things lie that a job gets. */
export interface WorkloadFolders {
  /** Opened artifacts by name. */
  readonly inputs: Readonly<Record<string, string>>
  /** Writable areas by name of the output. */
  readonly outputs: Readonly<Record<string, string>>
  /** Area for /opt/ml/output: the metrics file, and what a program leaves there without the policy naming it. */
  readonly loose: string
  readonly temporary: string
  readonly sharedMemory: string
  /** Files of secrets, by name. */
  readonly secretFiles: Readonly<Record<string, string>>
  /** Files made by `conventionFiles`, by their names there. */
  readonly conventions: string
}

/** Where a job writes its metrics as JSON lines; also in `PERUN_METRICS`. */
export const metricsTarget = "/opt/ml/output/metrics.jsonl"

/** Outside and inside the sandbox; no other program of a lab machine has it, and hosts keep it free. */
export const jobUser: JobUser = { uid: 60700, gid: 60700 }

/**
 * What the policy's job looks like from inside: its inputs and outputs at the policy's paths, and what training programs look for by habit (the environment
 * and folders of SageMaker's training toolkit).
 * @throws {AgentError} `wrong-policy` for an input that the policy lacks, `sandbox-paths` for paths that are not the job's to name
 */
export function planWorkload(policy: Policy, job: Job, folders: WorkloadFolders, secrets: ReadonlyMap<string, Uint8Array> = new Map()): SandboxPlan {
  if (job.resources.gpus > 0) throw new AgentError("sandbox-unavailable", "the job asks for GPUs, which this sandbox does not hand out")
  const inputs = Object.entries(job.inputs).map(([name, target]) => ({ source: folderOf(folders.inputs, name), target: checkTarget(target, name) }))
  const outputs = Object.entries(job.outputs).map(([name, { path }]) => ({
    source: folderOf(folders.outputs, name),
    target: checkTarget(path, name),
  }))
  const given: Bind[] = [
    { source: `${folders.conventions}/passwd`, target: "/etc/passwd" },
    { source: `${folders.conventions}/group`, target: "/etc/group" },
    { source: `${folders.conventions}/hosts`, target: "/etc/hosts" },
    { source: `${folders.conventions}/config`, target: configTarget },
  ]
  const writable: Bind[] = [
    { source: folders.loose, target: looseTarget },
    { source: folders.temporary, target: "/tmp" },
    { source: folders.sharedMemory, target: "/dev/shm" },
  ]
  const uses = Object.entries(job.secrets ?? {})
  const files = uses.flatMap(([name, use]): Bind[] =>
    "file" in use ? [{ source: folderOf(folders.secretFiles, name), target: checkTarget(use.file, name, secretPathFault) }] : [],
  )
  refuseNesting([...inputs, ...outputs, ...given, ...writable, ...files])
  const textOf = (name: string): string => {
    const value = secrets.get(name)
    if (value === undefined) throw new AgentError("wrong-grant", "nothing was given for it", { path: name })
    return parseUtf8(value, name)
  }
  const variables = uses.flatMap(([name, use]) => ("environment" in use ? [[checkVariable(use.environment, name), textOf(name)] as const] : []))
  const stands = new Map(uses.flatMap(([name, use]) => ("argument" in use ? [[use.argument, textOf(name)] as const] : [])))
  const [program = "", ...programArguments] = job.run
  return {
    command: [program, ...programArguments.map((argument) => stands.get(argument) ?? argument)],
    workingDirectory: workingDirectoryOf(policy, job),
    environment: { ...environmentOf(policy, job), ...Object.fromEntries(variables) },
    user: jobUser,
    inputs: [...inputs, ...given, ...files],
    outputs: [...outputs, ...writable],
  }
}

/** Files that a job finds besides its inputs, by their path below `WorkloadFolders.conventions`. */
export function conventionFiles(): Readonly<Record<string, string>> {
  const { uid, gid } = jobUser
  return {
    passwd: `job:x:${uid}:${gid}:job:/tmp:/usr/sbin/nologin\n`,
    group: `job:x:${gid}:\n`,
    hosts: "127.0.0.1 localhost perun-job\n::1 localhost\n",
    "config/hyperparameters.json": "{}\n",
    "config/resourceconfig.json": '{"current_host":"perun-job","hosts":["perun-job"],"network_interface_name":"lo"}\n',
  }
}

/** The program starts in its code; a job without a code artifact, or with several, starts in /tmp. */
function workingDirectoryOf(policy: Policy, job: Job): string {
  const [code, ...others] = targetsOfKind(policy, job, "code")
  return code !== undefined && others.length === 0 ? code[1] : "/tmp"
}

function environmentOf(policy: Policy, job: Job): Record<string, string> {
  const channels = [...targetsOfKind(policy, job, "dataset"), ...targetsOfKind(policy, job, "mock")]
  const model = Object.values(job.outputs).find(({ kind }) => kind === "model")
  return {
    PATH: "/usr/local/bin:/usr/bin:/bin",
    HOME: "/tmp",
    TMPDIR: "/tmp",
    USER: "job",
    LOGNAME: "job",
    LANG: "C.UTF-8",
    // The code lies on a read-only mount.
    PYTHONDONTWRITEBYTECODE: "1",
    SM_HOSTS: '["perun-job"]',
    SM_CURRENT_HOST: "perun-job",
    SM_NUM_GPUS: String(job.resources.gpus),
    SM_CHANNELS: JSON.stringify(channels.map(([name]) => name)),
    ...Object.fromEntries(channels.map(([name, target]) => [`SM_CHANNEL_${name.toUpperCase().replaceAll("-", "_")}`, target])),
    ...(model === undefined ? {} : { SM_MODEL_DIR: model.path }),
    SM_INPUT_CONFIG_DIR: configTarget,
    SM_OUTPUT_DIR: looseTarget,
    PERUN_METRICS: metricsTarget,
    ...job.environment,
  }
}

/** Name and target of each input of a kind. */
function targetsOfKind(policy: Policy, job: Job, kind: string): [string, string][] {
  return Object.entries(job.inputs).filter(([name]) => {
    const artifact = own(policy.artifacts, name)
    if (artifact === undefined) throw new AgentError("wrong-policy", "the policy has no such artifact", { path: name })
    return artifact.kind === kind
  })
}

function folderOf(folders: Readonly<Record<string, string>>, name: string): string {
  const folder = own(folders, name)
  if (folder === undefined) throw new AgentError("wrong-grant", "nothing was opened or made for it", { path: name })
  return folder
}

/** Paths of the policy lie in places of their own, never over the machine's programs or the agent's files. */
function checkTarget(target: string, name: string, faultOf: typeof pathFault = pathFault): string {
  const fault = faultOf(target)
  if (fault !== undefined) throw new AgentError("sandbox-paths", `${target}: ${fault}`, { path: name })
  return target
}

/** The policy was checked before anybody signed it; this machine does not take that on trust. */
function checkVariable(variable: string, name: string): string {
  if (isDangerousVariable(variable)) throw new AgentError("wrong-policy", `${variable} can make programs load other code`, { path: name })
  if (isGivenVariable(variable)) throw new AgentError("wrong-policy", `${variable} tells programs where their files lie`, { path: name })
  return variable
}

/** No mount lies over or inside another: what a job reads must not depend on their order. */
function refuseNesting(binds: readonly Bind[]): void {
  for (const [index, { target }] of binds.entries()) {
    for (const other of binds.slice(index + 1)) {
      if (isWithin(target, other.target) || isWithin(other.target, target)) {
        throw new AgentError("sandbox-paths", `${target} and ${other.target} lie over each other`)
      }
    }
  }
}

const looseTarget = "/opt/ml/output"
const configTarget = "/opt/ml/input/config"
