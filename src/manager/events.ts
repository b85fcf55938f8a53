import type { Policy } from "../policy/document.ts"
import { own } from "../policy/document.ts"
import type { RunEvent } from "../protocol/messages.ts"
import type { ManagerContext } from "./context.ts"
import { pairKey } from "./context.ts"
import type { RunRecord } from "./records.ts"
import type { Transaction } from "./store.ts"

type WithoutPlace<E> = E extends unknown ? Omit<E, "seq" | "at"> : never
export type EventFacts = WithoutPlace<RunEvent>

/** Adds an event to a run and returns the run's record with its next number; the caller puts the record. */
export function appendEvent(context: ManagerContext, tx: Transaction, run: RunRecord, facts: EventFacts): RunRecord {
  tx.put("events", pairKey(run.run, String(run.nextEvent)), { ...facts, seq: run.nextEvent, at: context.time.nowText() })
  return { ...run, nextEvent: run.nextEvent + 1 }
}

/** Time between signs of life on a silent stream, so that both ends notice a dead one. */
const keepAliveMilliseconds = 15_000

/**
 * Events of a run for one stakeholder, from a number on, as they come; ends after the event that ends the run. Metrics go only to those whom the policy
 * names for them.
 */
export async function* watchRun(
  context: ManagerContext,
  runId: string,
  viewer: { readonly policy: Policy; readonly stakeholder: string },
  from: number,
  signal: AbortSignal,
): AsyncGenerator<RunEvent | "keep-alive"> {
  for (let next = from; !signal.aborted;) {
    const event = context.store.get("events", pairKey(runId, String(next)))
    if (event === undefined) {
      const run = context.store.get("runs", runId)
      // Numbers go when their policy ends.
      if (run !== undefined && next < run.nextEvent) {
        next++
        continue
      }
      if (run === undefined || isOver(run)) return
      const before = performance.now()
      await context.watchers.next(keepAliveMilliseconds, signal)
      if (performance.now() - before >= keepAliveMilliseconds) yield "keep-alive"
      continue
    }
    next++
    const run = context.store.get("runs", runId)
    if (event.kind === "metrics" && !(run !== undefined && maySeeMetrics(viewer, run.job))) continue
    yield event
  }
}

function maySeeMetrics({ policy, stakeholder }: { readonly policy: Policy; readonly stakeholder: string }, jobName: string): boolean {
  const metrics = own(policy.jobs, jobName)?.metrics
  return metrics !== undefined && metrics !== "none" && metrics.to.includes(stakeholder)
}

/** States from which a run never comes back. */
export function isOver(run: Pick<RunRecord, "state">): boolean {
  return run.state !== "queued" && run.state !== "running"
}
