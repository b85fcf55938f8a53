import { concatBytes } from "./compare.ts"
import { UnavailableError } from "./error.ts"

/** Body of an answer, read no farther than its bound. @throws {UnavailableError} it is larger; and what reading throws */
export async function readBodyBounded(response: Pick<Response, "body">, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of response.body ?? []) {
    size += part.length
    if (size > maxBytes) throw new UnavailableError("unavailable", `the answer is larger than ${maxBytes} bytes`)
    parts.push(part)
  }
  return concatBytes(...parts)
}
