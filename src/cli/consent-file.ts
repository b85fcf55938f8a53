import { readFileBounded } from "../bytes/durable.ts"
import { MalformedError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { statementSignatureOfSshSignature, statementSignatureSchema } from "../pki/statement.ts"
import { consentRequestSchema } from "../protocol/messages.ts"
import type { RequestBody, routes } from "../protocol/routes.ts"

/** A signature and, of a checker, what it checked. */
export type Consent = RequestBody<typeof routes.approvePolicy>

const maxConsentBytes = 131_072

/**
 * Reads signatures over a policy: as `perun policy sign` writes them, or as `ssh-keygen -Y sign` does. Nothing of them is verified yet.
 * @throws {MalformedError} for a file of another form; {PkiError} for an SSH signature that cannot be read
 */
export async function loadConsents(paths: readonly string[]): Promise<readonly Consent[]> {
  const consents: Consent[] = []
  for (const path of paths) consents.push(parseConsent(await readFileBounded(path, maxConsentBytes), path))
  return consents
}

function parseConsent(bytes: Uint8Array, path: string): Consent {
  const text = parseUtf8(bytes)
  if (text.startsWith("-----BEGIN SSH SIGNATURE-----")) return { signature: statementSignatureOfSshSignature(text) }
  const value = parseJson(text, { maxBytes: maxConsentBytes })
  const plain = statementSignatureSchema.safeParse(value)
  if (plain.success) return { signature: plain.data }
  const withReport = consentRequestSchema.safeParse(value)
  if (withReport.success) return withReport.data
  throw new MalformedError("malformed", "not a signature as perun policy sign or ssh-keygen -Y sign writes it", { path })
}
