import { readFileBounded } from "../bytes/durable.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { openTimeSource } from "../manager/time-source.ts"
import type { TimeSource } from "../manager/time-check.ts"
import { parsePemCertificates } from "../pki/certificate.ts"
import { UsageError } from "./exit.ts"

/** Who checks a manager's clock, as words of a command line. */
export interface TimeWords {
  readonly timeSource?: string
  readonly timeRoot?: string
}

/** Undefined where the words name nobody. @throws {UsageError}; {MalformedError}; {UnavailableError} */
export async function timeSourceOf({ timeSource: url, timeRoot: file }: TimeWords): Promise<TimeSource | undefined> {
  if (url === undefined && file === undefined) return undefined
  if (url === undefined || file === undefined) throw new UsageError("--time-source and --time-root go together")
  return openTimeSource(url, parsePemCertificates(parseUtf8(await readFileBounded(file, 1_048_576), file)))
}
