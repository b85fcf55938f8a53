import { PerunError } from "../src/bytes/error.ts"
import { parseSshPublicKey } from "../src/pki/ssh-key.ts"
import { notProved, parseRunCertificate, type ProofLine, proofLines, verifyRunCertificate } from "../src/protocol/run-certificate.ts"

/** What the page shows of a certificate: the same judgement as `perun certificate verify`, by the same code. */
export type Verdict =
  | { readonly ok: true; readonly lines: readonly ProofLine[]; readonly notProved: readonly string[]; readonly laboratory: boolean }
  | { readonly ok: false; readonly code: string; readonly message: string }

/**
 * Judges a certificate's text.
 * @param managerKeys keys that the reader trusts, one a line
 * @param parties `name=key`, one a line: who must have signed the policy with it
 */
export function judge(text: string, managerKeys: string, parties = ""): Verdict {
  try {
    const managers = linesOf(managerKeys).map((line) => parseSshPublicKey(line).text)
    if (managers.length === 0) return { ok: false, code: "usage", message: "give the key of the manager that you trust" }
    const pinned = linesOf(parties).map((line) => {
      const at = line.indexOf("=")
      return [line.slice(0, Math.max(at, 0)), parseSshPublicKey(line.slice(at + 1)).text] as const
    })
    if (new Set(pinned.map(([name]) => name)).size < pinned.length) return { ok: false, code: "usage", message: "a party is named twice" }
    const proof = verifyRunCertificate(parseRunCertificate(text), { managers, parties: Object.fromEntries(pinned) })
    return { ok: true, lines: proofLines(proof), notProved: notProved(proof), laboratory: proof.laboratory }
  } catch (error) {
    if (error instanceof PerunError) return { ok: false, code: String(error.code), message: error.message }
    throw error
  }
}

function linesOf(text: string): readonly string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "")
}
