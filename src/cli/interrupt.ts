import { InterruptedError } from "./exit.ts"

let interrupted = false

/** Whether Ctrl-C or SIGTERM came while something listened: whatever broke off afterwards broke off because of it. */
export function wasInterrupted(): boolean {
  return interrupted
}

/** A signal that Ctrl-C or SIGTERM aborts, so that long work cleans up after itself; dispose it when the work is done. */
export function interruptSignal(): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController()
  const abort = (): void => {
    interrupted = true
    controller.abort(new InterruptedError())
  }
  process.on("SIGINT", abort)
  process.on("SIGTERM", abort)
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      process.off("SIGINT", abort)
      process.off("SIGTERM", abort)
    },
  }
}
