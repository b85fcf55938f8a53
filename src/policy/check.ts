import type { Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { canonicalJson } from "../bytes/json.ts"
import { parseSshPublicKey } from "../pki/ssh-key.ts"
import type { ReleaseTerms } from "./approval.ts"
import { votingOwners } from "./approval.ts"
import type { Derivations } from "./derivation.ts"
import { foreignLaboratoryRoots, noDerivations, originsOfInputs } from "./derivation.ts"
import type { Approval, ArtifactKind, BootUpdates, HostLevel, HostRequirement, Job, Machine, Policy, ReferenceUpdates, Role } from "./document.ts"
import { artifactOwners, inputOwners, own, referencedDigests } from "./document.ts"
import { imaPolicyReferenceFindings, measuredFindings } from "./appraise-ima-policy.ts"
import { sealedReferenceFindings } from "./appraise-sealed.ts"
import { isDangerousVariable, isGivenVariable } from "./environment.ts"
import { dispensable, isReachable, namesIn } from "./expression.ts"
import type { Finding } from "./findings.ts"
import type { VaultDemand } from "./manager-vault.ts"
import { isWithin, pathFault, secretPathFault } from "./paths.ts"
import type { Problem, ProblemCode } from "./problem.ts"
import type { Reference, References } from "./reference.ts"
import type { Locate } from "./locate.ts"
import { nowhere } from "./locate.ts"
import type { AzureRequirement, SgxRequirement, SnpRequirement, TdxRequirement, TeeRequirement } from "./tee.ts"
import { isOver } from "./time.ts"

/** What a check may rest on besides the policy. */
export interface CheckContext {
  /** Time to judge expiry at; undefined leaves expiry unjudged, as for an old document that is only shown. */
  readonly time?: Date
  /** Reference documents that come with the policy; undefined leaves them unjudged. */
  readonly references?: References
  /** What is known to be derived, so that the parties behind it must be among the signers, and laboratories be accepted. */
  readonly derivations?: Derivations
  /** Places in the text, as `parsePolicy` gives. */
  readonly locate?: Locate
}

/**
 * Judges what a well-formed policy says: names, owners, votes, paths, expiry, references. Every problem found, in the order of the document; a policy with
 * a problem must not be signed, stored or used.
 */
export function checkPolicy(policy: Policy, context: CheckContext = {}): readonly Problem[] {
  return new PolicyCheck(policy, context).run()
}

type Path = readonly (string | number)[]

class PolicyCheck {
  readonly #policy: Policy
  readonly #context: CheckContext
  readonly #problems: Problem[] = []

  constructor(policy: Policy, context: CheckContext) {
    this.#policy = policy
    this.#context = context
  }

  run(): readonly Problem[] {
    this.#stakeholders()
    this.#recoveries()
    this.#artifacts()
    this.#secrets()
    this.#machines()
    this.#jobs()
    this.#approval(["approval"], this.#policy.approval)
    this.#owners()
    this.#laboratories()
    this.#expiry()
    this.#references()
    return this.#problems
  }

  #stakeholders(): void {
    const entries = Object.entries(this.#policy.stakeholders)
    if (entries.length === 0) this.#problem("missing-field", ["stakeholders"], "no stakeholder is named", "name at least one")
    const holders = new Map<string, string>()
    const { manager } = this.#policy
    if ("insecureUnattested" in manager) {
      const { key } = manager.insecureUnattested
      this.#key(["manager", "insecureUnattested", "key"], key)
      if (!key.startsWith("ssh-ed25519 "))
        this.#problem(
          "wrong-value",
          ["manager", "insecureUnattested", "key"],
          "a manager's key is of type ssh-ed25519",
          "give the key that `perun manager status` shows",
        )
      holders.set(key, "the manager")
    } else {
      for (const [index, alternative] of manager.accept.entries()) this.#tee(["manager", "accept", index], alternative)
      this.#distinct(["manager", "time", "roots"], manager.time?.roots ?? [])
      this.#vault(manager.vault ?? [])
    }
    for (const [name, stakeholder] of entries) {
      const path = ["stakeholders", name]
      this.#distinct([...path, "keys"], stakeholder.keys)
      this.#distinct([...path, "roles"], stakeholder.roles)
      if (stakeholder.roles.includes("checker") && stakeholder.roles.length > 1)
        this.#problem(
          "wrong-value",
          [...path, "roles"],
          "a checker is a program and has no other role",
          "give the program a key and an entry of its own",
        )
      this.#distinct([...path, "recipients"], stakeholder.recipients ?? [])
      for (const [index, key] of stakeholder.keys.entries()) {
        this.#key([...path, "keys", index], key)
        const holder = holders.get(key)
        if (holder !== undefined && holder !== name)
          this.#problem("shared-key", [...path, "keys", index], `${holder} states the same key`, "give each party a key of its own")
        holders.set(key, name)
      }
    }
  }

  /** Nobody has a say in the replacement of its own keys: whoever lost them cannot, and whoever has them need not. */
  #recoveries(): void {
    const { stakeholders, recovers = [], supersedes } = this.#policy
    for (const [name, { recovery }] of Object.entries(stakeholders)) {
      if (recovery === undefined) continue
      const path = ["stakeholders", name, "recovery", "by"]
      const others = Object.keys(stakeholders).filter((other) => other !== name)
      this.#approvalNames(path, recovery.by)
      if (namesIn(recovery.by, others).includes(name))
        this.#problem(
          "wrong-value",
          path,
          `${name} cannot replace its own keys so`,
          "name other parties; whoever has its keys signs a successor with new ones",
        )
      else if (others.length === 0 || !isReachable(recovery.by, others))
        this.#problem("never-satisfied", path, "no signatures reach this", "lower the threshold, or name more parties")
    }
    this.#parties(["recovers"], recovers)
    if (recovers.length > 0 && supersedes === "none")
      this.#problem(
        "wrong-value",
        ["recovers"],
        "there is no predecessor whose parties' keys could be replaced",
        "state in supersedes which policy it replaces",
      )
  }

  /** An alternative that pins no measurement would accept whatever program runs in such a TEE. */
  #tee(path: Path, alternative: TeeRequirement): void {
    if ("azure" in alternative) return this.#azure([...path, "azure"], alternative.azure)
    const [kind, requirement] = Object.entries(alternative)[0] as [string, TdxRequirement | SgxRequirement | SnpRequirement]
    const pinned =
      "mrTd" in requirement
        ? [requirement.mrTd, ...Object.values(requirement.rtmrs)]
        : "mrEnclave" in requirement
          ? [requirement.mrEnclave, requirement.mrSigner]
          : [requirement.measurement, requirement.idKeyDigest]
    if (pinned.every((values) => values === "any" || values === "none"))
      this.#problem(
        "wrong-value",
        [...path, kind],
        "no measurement is stated, so any program would do",
        "state what the TEE must have been started with",
      )
    for (const [name, value] of Object.entries(requirement)) if (Array.isArray(value)) this.#distinct([...path, kind, name], value.map(String))
  }

  #vault(demands: readonly VaultDemand[]): void {
    const path = ["manager", "vault"]
    this.#distinct(
      path,
      demands.map((demand) => canonicalJson(demand)),
    )
    for (const [index, demand] of demands.entries()) {
      if (typeof demand === "string") continue
      const { threshold, custodians } = demand.shares
      const at = [...path, index, "shares"]
      this.#distinct([...at, "custodians"], custodians)
      for (const [place, key] of custodians.entries()) this.#key([...at, "custodians", place], key)
      if (threshold > custodians.length)
        this.#problem(
          "wrong-value",
          [...at, "threshold"],
          `${threshold} of ${custodians.length} custodians can never come together`,
          "name more custodians, or ask for fewer",
        )
    }
  }

  /** The paravisor's measurement says nothing of the guest, and registers nothing of who wrote them: both must be stated. */
  #azure(path: Path, { tee, pcrs, attestationKeys, vmUniqueId }: AzureRequirement): void {
    this.#tee([...path, "tee"], tee)
    if (Object.values(pcrs).every((values) => values === "any"))
      this.#problem("wrong-value", [...path, "pcrs"], "no register is stated, so any guest would do", "state what the VM must have booted")
    for (const [name, values] of Object.entries({ ...pcrs, attestationKeys, vmUniqueId }))
      if (values !== "any") this.#distinct([...path, name in pcrs ? "pcrs" : "", name].filter(Boolean), values)
  }

  #key(path: Path, key: string): void {
    try {
      if (parseSshPublicKey(key).text !== key) this.#problem("wrong-value", path, "the key is not in its canonical form", "remove the comment")
    } catch (error) {
      // The reason is told as a problem of the document.
      if (!(error instanceof PerunError)) throw error
      this.#problem("wrong-value", path, "not a key that can be read", "copy the line of the .pub file, type and base64 only")
    }
  }

  #artifacts(): void {
    const entries = Object.entries(this.#policy.artifacts)
    if (entries.length === 0) this.#problem("missing-field", ["artifacts"], "no artifact is named", "name at least one")
    const manifests = new Map<Digest, string>()
    for (const [name, artifact] of entries) {
      const path = ["artifacts", name]
      const owner = own(this.#policy.stakeholders, artifact.owner)
      if (owner === undefined) this.#unknown([...path, "owner"], "stakeholder", artifact.owner)
      else if (!ownerRoles[artifact.kind].some((role) => owner.roles.includes(role)))
        this.#problem(
          "wrong-role",
          [...path, "owner"],
          `${artifact.owner} owns a ${artifact.kind} without a role that may`,
          `give it the role ${ownerRoles[artifact.kind].join(" or ")}`,
        )
      const other = manifests.get(artifact.manifest)
      if (other !== undefined)
        this.#problem("same-artifact-twice", [...path, "manifest"], `${other} states the same manifest`, "name each artifact once")
      manifests.set(artifact.manifest, name)
    }
  }

  #secrets(): void {
    const used = new Set(Object.values(this.#policy.jobs).flatMap(({ secrets }) => Object.keys(secrets ?? {})))
    const commitments = new Map<Digest, string>()
    for (const [name, secret] of Object.entries(this.#policy.secrets ?? {})) {
      const path = ["secrets", name]
      if (!used.has(name)) this.#problem("wrong-value", path, "no job is given it", "remove it, or name it in a job's secrets")
      if (!("owner" in secret)) continue
      if (own(this.#policy.stakeholders, secret.owner) === undefined) this.#unknown([...path, "owner"], "stakeholder", secret.owner)
      const other = commitments.get(secret.commitment)
      if (other !== undefined)
        this.#problem("wrong-value", [...path, "commitment"], `${other} has the same commitment`, "make a commitment of its own: perun secret make")
      commitments.set(secret.commitment, name)
    }
  }

  /** Names that load code are refused here as for `environment`: the value is one party's alone, and the others cannot see what it does. */
  #secretUses(path: Path, job: Job): void {
    const variables = new Set(Object.keys(job.environment ?? {}))
    for (const [name, use] of Object.entries(job.secrets ?? {})) {
      const at = [...path, "secrets", name]
      if (own(this.#policy.secrets ?? {}, name) === undefined) this.#unknown(at, "secret", name)
      if ("environment" in use) {
        if (isDangerousVariable(use.environment) || isGivenVariable(use.environment))
          this.#problem(
            "dangerous-environment",
            [...at, "environment"],
            `${use.environment} can make programs load other code, or read elsewhere`,
            "choose another name, or pass it as a file",
          )
        if (variables.has(use.environment))
          this.#problem("duplicate", [...at, "environment"], `${use.environment} is set already`, "choose another name")
        variables.add(use.environment)
      }
      if ("argument" in use && !job.run.slice(1).includes(use.argument))
        this.#problem("wrong-value", [...at, "argument"], "no argument of run is exactly this text", "put it where the value belongs")
      if ("argument" in use && job.run[0] === use.argument)
        this.#problem("wrong-program", [...at, "argument"], "a secret cannot be the program", "name the program in run")
    }
  }

  #machines(): void {
    const entries = Object.entries(this.#policy.machines)
    if (entries.length === 0) this.#problem("missing-field", ["machines"], "no machine is described", "describe at least one")
    for (const [name, machine] of entries) {
      const host = hostPartOf(["machines", name], machine)
      if (host !== undefined) {
        this.#distinct([...host.path, "tpm", "endorsementKeys"], host.requirement.tpm.endorsementKeys)
        this.#distinct([...host.path, "tpm", "laboratoryRoots"], host.requirement.tpm.laboratoryRoots)
        this.#updates([...host.path, "boot", "updates"], host.requirement.boot.updates)
        this.#updates([...host.path, "ima", "updates"], host.requirement.ima.updates)
      }
      if (machine.level === "enclave")
        for (const [index, alternative] of machine.accept.entries()) this.#tee(["machines", name, "accept", index], alternative)
    }
  }

  /** Who may change a reference alone must be somebody who answers for it, and not a program. */
  #updates(path: Path, updates: ReferenceUpdates | BootUpdates | undefined): void {
    if (updates === undefined) return
    const delegate = own(this.#policy.stakeholders, updates.by)
    if (delegate === undefined) this.#unknown([...path, "by"], "stakeholder", updates.by)
    else if (delegate.roles.includes("checker"))
      this.#problem("wrong-role", [...path, "by"], `${updates.by} is a checker, which votes and does nothing else`, "name a party")
    if ("registers" in updates) this.#distinct([...path, "registers"], updates.registers.map(String))
  }

  #jobs(): void {
    const entries = Object.entries(this.#policy.jobs)
    if (entries.length === 0) this.#problem("missing-field", ["jobs"], "no job is described", "describe at least one")
    for (const [name, job] of entries) this.#job(["jobs", name], job)
  }

  #job(path: Path, job: Job): void {
    if (own(this.#policy.machines, job.machine) === undefined) this.#unknown([...path, "machine"], "machine", job.machine)
    if (Object.keys(job.inputs).length === 0)
      this.#problem("missing-field", [...path, "inputs"], "the job has no input, so nobody would own what it makes", "name at least one artifact")
    for (const artifact of Object.keys(job.inputs))
      if (own(this.#policy.artifacts, artifact) === undefined) this.#unknown([...path, "inputs", artifact], "artifact", artifact)
    this.#program(path, job.run[0] ?? "")
    this.#environment(path, job)
    this.#secretUses(path, job)
    this.#paths(path, job)
    for (const [name, output] of Object.entries(job.outputs)) {
      if (name === "logs") this.#problem("wrong-value", [...path, "outputs", name], "logs is the name of the job's logs", "choose another name")
      this.#release([...path, "outputs", name], job, output)
    }
    if (job.logs !== "none") this.#release([...path, "logs"], job, job.logs)
    if (job.metrics !== "none") {
      this.#parties([...path, "metrics", "to"], job.metrics.to)
      if (Object.keys(job.metrics.schema).length === 0)
        this.#problem("missing-field", [...path, "metrics", "schema"], "no metric is described", "describe at least one, or write metrics: none")
    }
  }

  #program(path: Path, program: string): void {
    const isPlain = /^[A-Za-z0-9_][A-Za-z0-9._+-]*$/.test(program)
    const isAbsolute = /^(?:\/[A-Za-z0-9_][A-Za-z0-9._+-]*)+$/.test(program)
    if (!isPlain && !isAbsolute)
      this.#problem("wrong-program", [...path, "run", 0], `${JSON.stringify(program)} is no program`, "write a plain name or an absolute path")
  }

  #environment(path: Path, job: Job): void {
    for (const name of Object.keys(job.environment ?? {}))
      if (isDangerousVariable(name))
        this.#problem("dangerous-environment", [...path, "environment", name], `${name} can make programs load other code`, "pass it as an argument")
  }

  #paths(path: Path, job: Job): void {
    const places: { at: Path; folder: string; isSecret?: boolean }[] = [
      ...Object.entries(job.inputs).map(([name, folder]) => ({ at: [...path, "inputs", name], folder })),
      ...Object.entries(job.outputs).map(([name, output]) => ({ at: [...path, "outputs", name, "path"], folder: output.path })),
      ...Object.entries(job.secrets ?? {}).flatMap(([name, use]) =>
        "file" in use ? [{ at: [...path, "secrets", name, "file"], folder: use.file, isSecret: true }] : [],
      ),
    ]
    for (const [index, { at, folder, isSecret = false }] of places.entries()) {
      const fault = isSecret ? secretPathFault(folder) : pathFault(folder)
      if (fault !== undefined) this.#problem("wrong-path", at, fault, "use a folder of its own, e.g. below /opt/ml")
      const other = places.find((place, before) => before < index && (isWithin(folder, place.folder) || isWithin(place.folder, folder)))
      if (other !== undefined)
        this.#problem(
          "wrong-path",
          at,
          `${folder} and ${other.folder} (${other.at.join(".")}) lie within each other`,
          "give each a folder of its own",
        )
    }
  }

  #release(path: Path, job: Job, terms: ReleaseTerms): void {
    this.#parties([...path, "to"], terms.to)
    for (const [index, name] of terms.to.entries()) {
      const party = own(this.#policy.stakeholders, name)
      if (party !== undefined && party.recipients === undefined)
        this.#problem("missing-recipient", [...path, "to", index], `${name} states no recipient`, `state recipients of stakeholder ${name}`)
    }
    const owners = inputOwners(this.#policy, job)
    this.#distinct([...path, "waive"], terms.waive ?? [])
    for (const [index, name] of (terms.waive ?? []).entries())
      if (!owners.includes(name))
        this.#problem(
          "wrong-waiver",
          [...path, "waive", index],
          `${name} owns none of the job's inputs`,
          "remove it: only an input's owner has a vote to waive",
        )
    const voting = votingOwners(this.#policy, job, terms)
    if (terms.release === "none") {
      for (const name of voting) this.#releaseWithoutOwner(path, name)
      return
    }
    const at = [...path, "release"]
    this.#approvalNames(at, terms.release)
    if (!isReachable(terms.release, voting)) {
      this.#problem("never-satisfied", at, "no votes reach this", "lower the threshold; where every owner has waived, write release: none")
      return
    }
    for (const name of dispensable(terms.release, voting, voting)) this.#releaseWithoutOwner(path, name)
  }

  #releaseWithoutOwner(path: Path, name: string): void {
    this.#problem(
      "release-without-owner",
      [...path, "release"],
      `it could be released without ${name}, whose input it is derived from`,
      `require the vote of ${name}, or let ${name} waive it in writing: waive: [${name}]`,
    )
  }

  #approval(path: Path, approval: Approval): void {
    this.#approvalNames(path, approval)
    const everyone = Object.keys(this.#policy.stakeholders)
    if (!isReachable(approval, everyone)) {
      this.#problem("never-satisfied", path, "no signatures reach this", "lower the threshold, or name more parties")
      return
    }
    for (const name of dispensable(approval, artifactOwners(this.#policy), everyone))
      this.#problem(
        "approval-without-owner",
        path,
        `it could be reached without ${name}, who owns an artifact`,
        `require ${name}: { require: all, of: [${name}, ...] }; a quorum cannot speak for an owner`,
      )
  }

  #approvalNames(path: Path, approval: Approval): void {
    if ("veto" in approval) {
      this.#parties([...path, "veto"], approval.veto)
      return this.#approvalNames([...path, "of"], approval.of)
    }
    for (const [index, member] of (approval.of ?? []).entries()) {
      const at = [...path, "of", index]
      if (typeof member !== "string") this.#approvalNames(at, member)
      else if (own(this.#policy.stakeholders, member) === undefined) this.#unknown(at, "stakeholder", member)
      else if ((approval.of ?? []).indexOf(member) < index) this.#problem("duplicate", at, `${member} is named twice`, "keep one of them")
    }
  }

  /** What came from a laboratory may be used only where the job's machine accepts that laboratory's root. */
  #laboratories(): void {
    const derivations = this.#context.derivations ?? noDerivations
    for (const [name, job] of Object.entries(this.#policy.jobs))
      for (const artifact of Object.keys(job.inputs))
        for (const root of foreignLaboratoryRoots(this.#policy, job, artifact, derivations))
          this.#problem(
            "laboratory-artifact",
            ["jobs", name, "inputs", artifact],
            `INSECURE LABORATORY: it was made on a machine of the laboratory ${root}, which machine ${job.machine} does not accept`,
            `use what a vendor's machine made; only for trials, list the root in laboratoryRoots of machines.${job.machine}`,
          )
  }

  /** Every party behind a derived input must be able to sign: one of its keys must stand in the policy. */
  #owners(): void {
    const keys = new Set(Object.values(this.#policy.stakeholders).flatMap((stakeholder) => stakeholder.keys))
    for (const [name, job] of Object.entries(this.#policy.jobs))
      for (const origin of originsOfInputs(this.#policy, job, this.#context.derivations ?? noDerivations))
        if (!origin.keys.some((key) => keys.has(key)))
          this.#problem(
            "approval-without-owner",
            ["jobs", name, "inputs"],
            `an input was derived from what ${origin.name} owns, who is no stakeholder here`,
            `add ${origin.name} with its key`,
          )
  }

  #expiry(): void {
    const { time } = this.#context
    if (time !== undefined && isOver(this.#policy.expires, time))
      this.#problem("expired", ["expires"], `expired at ${this.#policy.expires}`, "write a later time")
  }

  #references(): void {
    const { references } = this.#context
    if (references === undefined) return
    for (const [name, machine] of Object.entries(this.#policy.machines)) {
      const host = hostPartOf(["machines", name], machine)
      if (host === undefined) continue
      const { path, requirement, level } = host
      this.#reference([...path, "boot", "reference"], requirement.boot.reference, "boot", references)
      this.#reference([...path, "ima", "reference"], requirement.ima.reference, "ima", references)
      this.#machineReferences(path, requirement, level, references)
    }
    const named = new Set<Digest>(referencedDigests(this.#policy))
    for (const digest of references.keys())
      if (!named.has(digest))
        this.#problem("unused-reference", ["machines"], `reference ${digest} was given, but no machine names it`, "leave it out, or name it")
  }

  #reference(path: Path, digest: Digest, kind: Reference["kind"], references: References): void {
    const reference = references.get(digest)
    if (reference === undefined)
      return this.#problem("missing-reference", path, `reference ${digest} was not given`, "give the document with the policy")
    if (reference.kind !== kind)
      this.#problem("wrong-reference", path, `the document is of kind ${reference.kind}, not ${kind}`, `name a ${kind} reference`)
    const { time } = this.#context
    if (time !== undefined && isOver(reference.expires, time))
      this.#problem("expired", path, `reference ${reference.name} expired at ${reference.expires}`, "build or capture it again")
  }

  #machineReferences(path: Path, machine: HostRequirement, level: HostLevel, references: References): void {
    const boot = references.get(machine.boot.reference)
    if (boot?.kind === "boot") {
      if (level === "sealed") this.#unmeetable([...path, "boot", "reference"], boot, sealedReferenceFindings(boot))
      this.#unmeetable([...path, "boot", "reference"], boot, measuredFindings({ ...boot, loadOptions: [] }))
    }
    const ima = references.get(machine.ima.reference)
    if (ima?.kind === "ima") this.#unmeetable([...path, "ima", "reference"], ima, imaPolicyReferenceFindings(ima.imaPolicy, level))
    if (ima?.kind !== "ima" || machine.ima.violations === "deny") return
    for (const [index, name] of machine.ima.violations.allow.entries())
      if (own(ima.violationClasses, name) === undefined) this.#unknown([...path, "ima", "violations", "allow", index], "path class", name)
  }

  /** What would refuse every machine of a reference is said before anybody signs. */
  #unmeetable(path: Path, reference: Reference, findings: readonly Finding[]): void {
    for (const { code, subject, found, expected, advice } of findings)
      this.#problem("wrong-reference", path, `reference ${reference.name}: ${code}: ${subject}: found ${found}, expected ${expected}`, advice)
  }

  /** A list of stakeholders: each known, each once. */
  #parties(path: Path, names: readonly string[]): void {
    this.#distinct(path, names)
    for (const [index, name] of names.entries())
      if (own(this.#policy.stakeholders, name) === undefined) this.#unknown([...path, index], "stakeholder", name)
  }

  #distinct(path: Path, items: readonly string[]): void {
    for (const [index, item] of items.entries())
      if (items.indexOf(item) < index) this.#problem("duplicate", [...path, index], `${item} is named twice`, "keep one of them")
  }

  #unknown(path: Path, what: string, name: string): void {
    this.#problem("unknown-name", path, `there is no ${what} ${JSON.stringify(name)}`, "correct the name, or add it")
  }

  #problem(code: ProblemCode, path: Path, message: string, fix: string): void {
    const locate = this.#context.locate ?? nowhere
    this.#problems.push({ code, field: path.join("."), ...locate(path), message, fix })
  }
}

/** Where a machine's demands on TPM, boot and IMA stand, and how deep they are judged; undefined for a TEE alone. */
function hostPartOf(path: Path, machine: Machine): { path: Path; requirement: HostRequirement; level: HostLevel } | undefined {
  if (machine.level !== "enclave") return { path, requirement: machine, level: machine.level }
  return machine.guest === "none" ? undefined : { path: [...path, "guest"], requirement: machine.guest, level: "sealed" }
}

/** Which role lets a party own which kind of artifact. */
const ownerRoles: Readonly<Record<ArtifactKind, readonly Role[]>> = {
  dataset: ["data"],
  code: ["code"],
  model: ["model"],
  mock: ["data", "code", "model"],
}
