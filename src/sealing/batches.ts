import type { BatchSlot, ChunkPool } from "./chunk-pool.ts"

/**
 * Takes `count` batches through a pool, several at once: `begin` fills a slot and has it worked on, in any order; `finish` sees the slots in order, one after
 * the other, and may give a promise for the time until which it still needs the slot. Memory is bounded by the pool's depth. On an error it waits for what is
 * under way before it throws, so that nobody still uses a slot.
 */
export async function runBatches(
  pool: ChunkPool,
  count: number,
  begin: (slot: BatchSlot, index: number) => Promise<void>,
  finish: (slot: BatchSlot, index: number) => Promise<SlotUse>,
): Promise<void> {
  const under: Batch[] = []
  let before: Promise<unknown> = Promise.resolve()
  try {
    for (let index = 0; index < count; index++) {
      if (under.length >= pool.depth) await retire(pool, under)
      const slot = pool.takeSlot()
      const done = inTurn(before, begin(slot, index), () => finish(slot, index))
      under.push({ slot, done })
      before = done
    }
    while (under.length > 0) await retire(pool, under)
  } finally {
    for (const batch of under.splice(0)) {
      // Its error, or that of an earlier one, is on its way to the caller already.
      await wholly(batch).catch(() => undefined)
      pool.giveBack(batch.slot)
    }
  }
}

/** Resolves when a slot is not needed any more by what `finish` started. Wrapped, because promises in promises melt. */
export interface SlotUse {
  readonly until?: Promise<void> | undefined
}

interface Batch {
  readonly slot: BatchSlot
  readonly done: Promise<SlotUse>
}

/** Waits for the oldest batch; it stays in the list when it failed. */
async function retire(pool: ChunkPool, under: Batch[]): Promise<void> {
  const oldest = under[0]
  if (oldest === undefined) return
  await wholly(oldest)
  under.shift()
  pool.giveBack(oldest.slot)
}

async function wholly(batch: Batch): Promise<void> {
  await (
    await batch.done
  ).until
}

function inTurn(before: Promise<unknown>, work: Promise<void>, finish: () => Promise<SlotUse>): Promise<SlotUse> {
  const done = (async () => {
    // Both are awaited even when one fails: a slot is free only when its work is over.
    const [previous, own] = await Promise.allSettled([before, work])
    if (previous.status === "rejected") throw previous.reason
    if (own.status === "rejected") throw own.reason
    const use = await finish()
    // Awaited later, maybe after another one failed.
    use.until?.catch(() => undefined)
    return use
  })()
  done.catch(() => undefined)
  return done
}
