import { InterruptedError } from "./exit.ts"

/** A signal that Ctrl-C or SIGTERM aborts, so that long work cleans up after itself; dispose it when the work is done. */
export function interruptSignal(): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController()
  const abort = (): void => controller.abort(new InterruptedError())
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
