import { readFileSync, readdirSync } from "node:fs"

/** Memory of a process and all its descendants in bytes: shared pages counted by their share (Pss), swap included. Processes that end while we look count as 0. */
export function treeMemoryBytes(pid: number): number {
  let total = 0
  const waiting = [pid]
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    total += memoryOf(next)
    waiting.push(...childrenOf(next))
  }
  return total
}

function memoryOf(pid: number): number {
  const rollup = readOrEmpty(`/proc/${pid}/smaps_rollup`)
  let kibibytes = 0
  for (const [, amount] of rollup.matchAll(/^(?:Pss|SwapPss):\s+([0-9]+) kB$/gm)) kibibytes += Number(amount)
  return kibibytes * 1024
}

function childrenOf(pid: number): number[] {
  return tasksOf(pid).flatMap((task) =>
    readOrEmpty(`/proc/${pid}/task/${task}/children`)
      .split(" ")
      .filter((word) => word !== "")
      .map(Number),
  )
}

function tasksOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    // The process ended.
    return []
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch {
    // The process ended, or has no memory of its own any more.
    return ""
  }
}
