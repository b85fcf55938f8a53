import { teeSourceForm, type TeeSource } from "../evidence/tee/collectors/collect.ts"
import { UsageError } from "./exit.ts"

/** @throws {UsageError} */
export function parseTeeSource(text: string): TeeSource {
  if (!teeSourceForm.test(text)) throw new UsageError(`--tee knows tsm, gramine, azure, http://HOST:PORT and unix:PATH, found ${text}`)
  return text as TeeSource
}
