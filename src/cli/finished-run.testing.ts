import { makeRunCertificate } from "../client/run-certificate.ts"
import { type StudyParts, TestStudy } from "../manager/study.testing.ts"
import type { MetricValues } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import type { RunCertificate } from "../protocol/run-certificate.ts"

/** For tests: a whole run in this process, and its certificate. */

export const reported: readonly MetricValues[] = [
  { epoch: 1, loss: 0.5 },
  { epoch: 2, loss: 0.25 },
]

export interface Finished {
  readonly study: TestStudy
  readonly run: string
  readonly certificate: RunCertificate
  readonly pins: { readonly managers: readonly string[] }
}

/** A run from the first signature to the model in the consortium's hands. */
export async function finishedRun(parts: StudyParts, metrics?: readonly MetricValues[]): Promise<Finished> {
  const { clinic, consortium } = parts
  const study = await TestStudy.create(parts)
  const { run, agent } = await study.running()
  for (const values of reported) await study.call(routes.reportMetrics, agent, { params: { run }, body: { values } })
  const output = await study.makeOutput(agent, run)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  await study.vote(output, clinic)
  await study.call(routes.getOutputPackage, study.as(consortium), { params: { output } })
  const bare = await makeRunCertificate(study.connectionOf(clinic), run)
  const certificate = metrics === undefined ? bare : { ...bare, metrics: metrics.map((values) => ({ ...values })) }
  return { study, run, certificate, pins: { managers: [study.manager.description.key] } }
}

export type Path = readonly (string | number)[]

/** Every place of a JSON value. */
export function places(value: unknown, path: Path = []): readonly Path[] {
  if (typeof value !== "object" || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([name, member]) => places(member, [...path, Array.isArray(value) ? Number(name) : name]))]
}

export function at(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((inner, step) => (inner as Record<string | number, unknown>)[step], value)
}

export function changedAt(value: unknown, [step, ...rest]: Path, change: (leaf: unknown) => unknown): unknown {
  if (step === undefined) return change(value)
  if (Array.isArray(value)) return value.map((member: unknown, index) => (index === step ? changedAt(member, rest, change) : member))
  return Object.fromEntries(
    Object.entries(value as object).map(([name, member]) => [name, name === step ? changedAt(member, rest, change) : (member as unknown)]),
  )
}

/** A value of the same form that is another one. */
export function otherThan(leaf: unknown): unknown {
  if (typeof leaf === "number") return leaf + 1
  if (typeof leaf === "boolean") return !leaf
  if (typeof leaf !== "string") return leaf
  const middle = Math.floor(leaf.length / 2)
  const letter = leaf[middle] ?? ""
  return `${leaf.slice(0, middle)}${letter === "a" ? "b" : letter === "1" ? "2" : /[0-9]/.test(letter) ? "1" : "a"}${leaf.slice(middle + 1)}`
}
