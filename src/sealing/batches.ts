import type { BatchSlot, ChunkPool } from "./chunk-pool.ts"

/**
 * Takes `count` batches through a pool, several at once: `begin` fills a slot and has it worked on, in any order; `finish` sees the slots in order, one after
 * the other. Memory is bounded by the pool's depth. On an error it waits for what is under way before it throws, so that nobody still writes into a slot.
 */
export async function runBatches(
  pool: ChunkPool,
  count: number,
  begin: (slot: BatchSlot, index: number) => Promise<void>,
  finish: (slot: BatchSlot, index: number) => Promise<void>,
): Promise<void> {
  const under: { readonly slot: BatchSlot; readonly done: Promise<void> }[] = []
  let before: Promise<void> = Promise.resolve()
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
    await Promise.all(under.map(({ done }) => done.catch(() => undefined)))
    for (const { slot } of under.splice(0)) pool.giveBack(slot)
  }
}

/** Waits for the oldest batch; it stays in the list when it failed. */
async function retire(pool: ChunkPool, under: { readonly slot: BatchSlot; readonly done: Promise<void> }[]): Promise<void> {
  const oldest = under[0]
  if (oldest === undefined) return
  await oldest.done
  under.shift()
  pool.giveBack(oldest.slot)
}

function inTurn(before: Promise<void>, work: Promise<void>, finish: () => Promise<void>): Promise<void> {
  const done = (async () => {
    // Both are awaited even when one fails: a slot is free only when its work is over.
    const [previous, own] = await Promise.allSettled([before, work])
    if (previous.status === "rejected") throw previous.reason
    if (own.status === "rejected") throw own.reason
    await finish()
  })()
  // The caller awaits it later, maybe after another one failed.
  done.catch(() => undefined)
  return done
}
