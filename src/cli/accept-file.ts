import { z } from "zod"
import { readFileBounded } from "../bytes/durable.ts"
import { MalformedError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import { teeRequirementSchema, type TeeRequirement } from "../policy/tee.ts"

const maxAcceptBytes = 1_048_576
const schema = z.union([teeRequirementSchema.transform((one) => [one]), z.array(teeRequirementSchema).min(1).max(64)])

/**
 * Demands on a TEE from a file: JSON with one alternative of a policy's `accept`, or a list of them.
 * @throws {UnavailableError} no such file; {MalformedError}
 */
export async function loadAccept(path: string): Promise<readonly TeeRequirement[]> {
  const result = schema.safeParse(parseJsonOf(path, await readFileBounded(path, maxAcceptBytes)))
  if (result.success) return result.data
  throw new MalformedError("malformed", 'no demands on a TEE: {"tdx": …}, {"sgx": …}, {"snp": …}, {"azure": …} or a list of such', {
    path,
    cause: result.error,
  })
}

/** The reader of JSON does not know of files. */
function parseJsonOf(path: string, text: Uint8Array): unknown {
  try {
    return parseJson(text, { maxBytes: maxAcceptBytes })
  } catch (cause) {
    if (!(cause instanceof MalformedError)) throw cause
    throw new MalformedError(cause.code, cause.message, { path, cause })
  }
}
