import type { Problem } from "./problem.ts"
import type { Locate } from "./locate.ts"

/** Stands in a draft where something is still to be stated; a document that holds it anywhere is refused. */
export const placeholder = "FILL-IN"

/**
 * Every place of a document where a draft's mark still stands, as a value or as a name, with what belongs there and which command prints it. In the order of
 * the document.
 */
export function problemsOfMarks(value: unknown, locate: Locate): readonly Problem[] {
  return marksIn(value, []).map((path) => {
    const { what, how } = adviceFor(path)
    return { code: "not-filled-in", field: path.join("."), ...locate(path), message: `still to be filled in: ${what}`, fix: how }
  })
}

type Path = readonly string[]

function marksIn(value: unknown, path: Path): readonly Path[] {
  if (value === placeholder) return [path]
  if (typeof value !== "object" || value === null) return []
  return Object.entries(value).flatMap(([name, member]) => {
    const inner = [...path, name]
    return name === placeholder ? [inner, ...marksIn(member, inner)] : marksIn(member, inner)
  })
}

interface Advice {
  /** What belongs in the place. */
  readonly what: string
  /** Where to get it: the command that prints it, or who knows it. */
  readonly how: string
}

function adviceFor(path: Path): Advice {
  const fitting = advice.find(([pattern]) => {
    const steps = pattern.split(".")
    const isBelow = steps.at(-1) === "**" && path.length >= steps.length
    return (isBelow || steps.length === path.length) && steps.every((step, index) => step.startsWith("*") || step === path[index])
  })
  return fitting?.[1] ?? { what: "something that only the parties know", how: "agree on it and write it" }
}

/** The first pattern that fits counts; `*` is any one name or place in a list. */
const advice: readonly (readonly [pattern: string, advice: Advice])[] = [
  ["study", { what: "the study's name", how: "choose one: lower-case letters, digits and hyphens" }],
  ["purpose", { what: "what the study is for, and what leaves", how: "write one sentence that every party can sign" }],
  [
    `stakeholders.${placeholder}`,
    { what: "a party's name", how: "perun identity show prints it (name); policy init --party CARD.json:ROLES writes the whole line" },
  ],
  ["stakeholders.*.keys.*", { what: "the party's signing key", how: "perun identity show prints it (key); the party's card identity.json has it" }],
  [
    "stakeholders.*.recipients.*",
    {
      what: "the age recipient that the party's results are sealed to",
      how: "perun identity show --json prints it (recipient); the party's card identity.json has it",
    },
  ],
  ["stakeholders.*.roles.*", { what: "what the party is in the study", how: "write data, code, model, consumer or auditor" }],
  [
    "manager.insecureUnattested.key",
    { what: "the manager's key", how: "perun manager status prints it (key); its operator has it from perun manager init" },
  ],
  [
    `artifacts.${placeholder}`,
    { what: "an artifact's name", how: "choose one; policy init --artifact NAME=KIND:OWNER:FOLDER writes the whole line" },
  ],
  ["artifacts.*.kind", { what: "what the artifact is", how: "write dataset, code, model or mock, as its owner sealed it" }],
  ["artifacts.*.owner", { what: "whose artifact it is", how: "write the name of a stakeholder" }],
  [
    "artifacts.*.manifest",
    { what: "the digest of the sealed artifact", how: "perun seal prints it (manifest); perun open FOLDER --verify-only prints it again" },
  ],
  [
    "machines.*.level",
    { what: "the protection level", how: "write sealed, administered or enclave; perun policy explain says what each protects from" },
  ],
  [
    "machines.*.accept.**",
    {
      what: "what the machine's TEE must measure or say",
      how: "on the machine: perun host show --tee … --out FILE, then perun evidence verify FILE shows it; docs/manager-proof.md has the fields",
    },
  ],
  [
    "machines.*.tpm.endorsementKeys.*",
    {
      what: "the digest of a machine's endorsement key",
      how: "perun host show prints it on the machine, perun host list at the manager; for a laboratory machine perun lab tpm",
    },
  ],
  [
    "machines.*.tpm.laboratoryRoots.*",
    { what: "the digest of a laboratory's root certificate", how: "perun lab tpm prints it (laboratory root); for real machines write []" },
  ],
  [
    "machines.*.boot.reference",
    { what: "the digest of the boot reference", how: "perun reference build prints it (boot); perun reference show FILE prints it again" },
  ],
  [
    "machines.*.ima.reference",
    { what: "the digest of the IMA reference", how: "perun reference build prints it (ima); perun reference show FILE prints it again" },
  ],
  [
    "machines.*.guest.tpm.endorsementKeys.*",
    {
      what: "the digest of a machine's endorsement key",
      how: "perun host show prints it on the machine, perun host list at the manager; for a laboratory machine perun lab tpm",
    },
  ],
  [
    "machines.*.guest.tpm.laboratoryRoots.*",
    { what: "the digest of a laboratory's root certificate", how: "perun lab tpm prints it (laboratory root); for real machines write []" },
  ],
  [
    "machines.*.guest.boot.reference",
    { what: "the digest of the boot reference", how: "perun reference build prints it (boot); perun reference show FILE prints it again" },
  ],
  [
    "machines.*.guest.ima.reference",
    { what: "the digest of the IMA reference", how: "perun reference build prints it (ima); perun reference show FILE prints it again" },
  ],
  [
    "jobs.*.run.*",
    {
      what: "the program and its arguments",
      how: "ask the owner of the code, e.g. [/usr/bin/python3, /opt/ml/code/trainer/train.py]; inputs says where each artifact lies",
    },
  ],
  [`jobs.*.inputs.${placeholder}`, { what: "an artifact that the job reads", how: "write its name, as artifacts has it, and an absolute folder" }],
  ["jobs.*.outputs.*.to.*", { what: "who gets the output", how: "write names of stakeholders whose roles hold consumer" }],
  ["jobs.*.outputs.*.release.of.*", { what: "whose votes release the output", how: "write names of the owners of the job's inputs" }],
  [
    "expires",
    { what: "the time from which nothing is released any more", how: "write UTC, e.g. what date -u -d '+1 year' +%Y-%m-%dT00:00:00Z prints" },
  ],
  ["supersedes", { what: "the digest of the predecessor", how: "perun policy status prints it; for the first policy write none" }],
]
