import { canonicalJson } from "../bytes/json.ts"
import { type ReleaseTerms, votingOwners } from "./approval.ts"
import type { Approval, Policy, Stakeholder } from "./document.ts"
import { artifactOwners, hostRequirementOf, managerText, own } from "./document.ts"
import { type ManagerWitnesses, witnessesWords } from "./manager-witnesses.ts"
import { type Recovery, recoveryWords } from "./recovery.ts"
import { delegations } from "./reference-updates.ts"
import { approvalText, dispensable, namesIn } from "./expression.ts"

/** What a successor gives to whom, and takes from whom, one line each; sights, who sees what, are told apart (diff.ts). */
export function consequencesOf(before: Policy, after: Policy): readonly string[] {
  return [
    ...managerLines(before, after),
    ...identityLines(before, after),
    ...approvalLines(before, after),
    ...machineLines(before, after),
    ...delegationLines(before, after),
    ...runLines(before, after),
    ...releaseLines(before, after),
    ...expiryLines(before, after),
  ]
}

function managerLines(before: Policy, after: Policy): readonly string[] {
  if (canonicalJson(before.manager) === canonicalJson(after.manager)) return []
  const isWeaker = "accept" in before.manager && !("accept" in after.manager)
  const held = `keys are held by ${managerText(after.manager)}, before by ${managerText(before.manager)}${isWeaker ? "; it proves NOTHING any more" : ""}`
  return [held, ...witnessLines(witnessesOf(before), witnessesOf(after))]
}

function witnessesOf({ manager }: Policy): ManagerWitnesses | undefined {
  return "accept" in manager ? manager.witnesses : undefined
}

/** Whether a manager that was set back, or that runs twice, is still found before it gives something out. */
function witnessLines(was: ManagerWitnesses | undefined, is: ManagerWitnesses | undefined): readonly string[] {
  if (canonicalJson(was ?? null) === canonicalJson(is ?? null)) return []
  if (is === undefined) return ["no witness has to see the manager's log any more: one that was set back may give keys out"]
  return [`the manager's log is seen by ${witnessesWords(is)}`]
}

/** Who speaks for a party, and who may decide that somebody else does. */
function identityLines(before: Policy, after: Policy): readonly string[] {
  const names = Object.keys(after.stakeholders)
  return names.flatMap((name) => {
    const [was, is] = [own(before.stakeholders, name), own(after.stakeholders, name)]
    if (was === undefined || is === undefined) return []
    return [...keyLines(name, was, is, after.recovers?.includes(name) === true), ...recoveryLines(name, [before, was.recovery], [after, is.recovery])]
  })
}

function keyLines(name: string, was: Stakeholder, is: Stakeholder, isRecovery: boolean): readonly string[] {
  const gone = was.keys.filter((key) => !is.keys.includes(key))
  const come = is.keys.filter((key) => !was.keys.includes(key))
  if (isRecovery)
    return [
      `the keys of ${name} are LOST and replaced by others' word: from now on ${come.join(", ")} speaks for ${name}; make sure that it is theirs`,
    ]
  return [...come.map((key) => `${key} may now speak for ${name}`), ...gone.map((key) => `${key} no longer speaks for ${name}`)]
}

type Recoverable = readonly [Policy, Recovery | undefined]

function recoveryLines(name: string, [before, was]: Recoverable, [after, is]: Recoverable): readonly string[] {
  const text = (policy: Policy, recovery: Recovery | undefined): string | undefined =>
    recovery === undefined ? undefined : recoveryWords(name, recovery, Object.keys(policy.stakeholders))
  const [old, now] = [text(before, was), text(after, is)]
  if (old === now) return []
  return [now ?? `nobody may replace the keys of ${name} any more: if they are lost, the study ends`]
}

/** Whose signature can be done without, and who may object. Owners can never be done without, whatever the expression says. */
function approvalLines(before: Policy, after: Policy): readonly string[] {
  const needed = (policy: Policy): ReadonlySet<string> => indispensable(policy.approval, Object.keys(policy.stakeholders), artifactOwners(policy))
  return [
    ...needLines("a policy of this study", needed(before), needed(after)),
    ...vetoLines("a policy of this study", before.approval, after.approval),
  ]
}

/** Who must have signed, for there is no way without. */
function indispensable(approval: Approval, everyone: readonly string[], owners: readonly string[]): ReadonlySet<string> {
  const names = namesIn(approval, everyone)
  const spare = new Set(dispensable(approval, names, everyone))
  return new Set([...names.filter((name) => !spare.has(name)), ...owners])
}

function needLines(what: string, was: ReadonlySet<string>, is: ReadonlySet<string>): readonly string[] {
  return [
    ...[...was].filter((name) => !is.has(name)).map((name) => `${what} no longer needs the signature of ${name}`),
    ...[...is].filter((name) => !was.has(name)).map((name) => `${what} now needs the signature of ${name}`),
  ]
}

function vetoLines(what: string, before: Approval, after: Approval): readonly string[] {
  const was = new Set(vetoesIn(before))
  const is = new Set(vetoesIn(after))
  return [
    ...[...was].filter((name) => !is.has(name)).map((name) => `${name} can no longer object to ${what}`),
    ...[...is].filter((name) => !was.has(name)).map((name) => `${name} can now object to ${what}`),
  ]
}

function vetoesIn(approval: Approval): readonly string[] {
  if ("veto" in approval) return [...approval.veto, ...vetoesIn(approval.of)]
  return (approval.of ?? []).flatMap((member) => (typeof member === "string" ? [] : vetoesIn(member)))
}

/** Which physical machine may run which job. */
function machineLines(before: Policy, after: Policy): readonly string[] {
  const was = placesOf(before)
  const is = placesOf(after)
  return [
    ...[...is].filter(([key]) => !was.has(key)).map(([, words]) => `${words[0]} may now run ${words[1]}`),
    ...[...was].filter(([key]) => !is.has(key)).map(([, words]) => `${words[0]} may no longer run ${words[1]}`),
  ]
}

function placesOf(policy: Policy): ReadonlyMap<string, readonly [machine: string, job: string]> {
  const places = Object.entries(policy.jobs).flatMap(([job, { machine: name }]) => {
    const machine = own(policy.machines, name)
    const keys = machine === undefined ? [] : (hostRequirementOf(machine)?.tpm.endorsementKeys ?? [])
    return keys.map((key) => [canonicalJson([key, job]), [`the machine with the endorsement key ${key}, as ${name},`, job]] as const)
  })
  return new Map(places)
}

/** Who alone may change what a machine must be. */
function delegationLines(before: Policy, after: Policy): readonly string[] {
  const was = delegationsOf(before)
  const is = delegationsOf(after)
  const changed = [...is].filter(([place, text]) => was.get(place) !== text)
  return [
    ...changed.map(([place, text]) => `${text}${was.has(place) ? `; before ${was.get(place)}` : ", without a new signature of anybody else"}`),
    ...[...was].filter(([place]) => !is.has(place)).map(([, text]) => `no longer: ${text}`),
  ]
}

function delegationsOf(policy: Policy): ReadonlyMap<string, string> {
  return new Map(delegations(policy).map(({ machine, piece, words }) => [`${machine} ${piece}`, words]))
}

function runLines(before: Policy, after: Policy): readonly string[] {
  return Object.entries(after.jobs).flatMap(([name, job]) => {
    const was = own(before.jobs, name)
    if (was === undefined) return [`job ${name} may run, at most ${job.maxRuns} times`]
    return was.maxRuns === job.maxRuns ? [] : [`job ${name} may run ${job.maxRuns} times, before ${was.maxRuns}`]
  })
}

/** Whose vote an output or logs needs, of those who own an input. */
function releaseLines(before: Policy, after: Policy): readonly string[] {
  const was = releasesOf(before)
  const is = releasesOf(after)
  return [...is].flatMap(([thing, { voters, text }]) => {
    const old = was.get(thing)
    if (old === undefined) return []
    return [
      ...[...old.voters].filter((name) => !voters.has(name)).map((name) => `${thing} now leaves without the vote of ${name}`),
      ...[...voters].filter((name) => !old.voters.has(name)).map((name) => `${thing} no longer leaves without the vote of ${name}`),
      ...(old.text === text ? [] : [`${thing} leaves after ${text}, before after ${old.text}`]),
    ]
  })
}

function releasesOf(policy: Policy): ReadonlyMap<string, { readonly voters: ReadonlySet<string>; readonly text: string }> {
  const rows = Object.entries(policy.jobs).flatMap(([name, job]) => {
    const things: readonly (readonly [string, ReleaseTerms])[] = [
      ...Object.entries(job.outputs).map(([output, terms]) => [`output ${name}.${output}`, terms] as const),
      ...(job.logs === "none" ? [] : [[`logs of ${name}`, job.logs] as const]),
    ]
    return things.map(([thing, terms]) => {
      const owners = votingOwners(policy, job, terms)
      const voters = terms.release === "none" ? new Set(owners) : indispensable(terms.release, owners, owners)
      return [thing, { voters, text: terms.release === "none" ? "no vote" : `the vote of ${approvalText(terms.release, owners)}` }] as const
    })
  })
  return new Map(rows)
}

function expiryLines(before: Policy, after: Policy): readonly string[] {
  if (before.expires === after.expires) return []
  const effect = Date.parse(after.expires) > Date.parse(before.expires) ? "longer" : "shorter"
  return [`keys are released ${effect}: until ${after.expires}, before until ${before.expires}`]
}
