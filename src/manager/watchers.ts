/** Wakes those who wait for something new in the store. Waking without need does no harm: whoever wakes looks again. */
export class Watchers {
  readonly #waiting = new Set<() => void>()

  get count(): number {
    return this.#waiting.size
  }

  wake(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const resolve of waiting) resolve()
  }

  /** Resolves at the next wake, or after a time, or when the signal aborts. */
  async next(milliseconds: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener("abort", done)
        this.#waiting.delete(done)
        resolve()
      }
      const timer = setTimeout(done, milliseconds)
      timer.unref()
      signal.addEventListener("abort", done)
      this.#waiting.add(done)
    })
  }
}
