import { PerunError, UnavailableError } from "../bytes/error.ts"
import { SealingError } from "./errors.ts"

/**
 * What a thread of ChunkPool says: once that it is ready, then for each task in turn that it is done, or why not. Errors lose their class on the way between
 * threads, so they travel as words.
 */
export type ChunkAnswer =
  | { readonly is: "ready" | "done" }
  | { readonly is: "sealing-error"; readonly code: SealingError["code"]; readonly message: string }
  | { readonly is: "unavailable"; readonly code: UnavailableError["code"]; readonly message: string }
  | { readonly is: "broken"; readonly message: string }

/** An error as an answer. */
export function answerOf(error: unknown): ChunkAnswer {
  if (error instanceof SealingError) return { is: "sealing-error", code: error.code, message: error.message }
  if (error instanceof UnavailableError) return { is: "unavailable", code: error.code, message: error.message }
  return { is: "broken", message: error instanceof PerunError ? `${error.code}: ${error.message}` : String(error) }
}

/** The error behind an answer; undefined when there is none. */
export function errorOf(answer: ChunkAnswer): Error | undefined {
  switch (answer.is) {
    case "ready":
    case "done":
      return undefined
    case "sealing-error":
      return new SealingError(answer.code, answer.message)
    case "unavailable":
      return new UnavailableError(answer.code, answer.message)
    case "broken":
      return new Error(`internal: ${answer.message}`)
  }
}
