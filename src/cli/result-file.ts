import { createPublicKey, randomBytes, type KeyObject } from "node:crypto"
import { readFileBounded } from "../bytes/durable.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeBase64Url, parseBase64, parseUtf8 } from "../bytes/text.ts"
import { tierOf } from "../policy/ar4si.ts"
import type { AttestationResult } from "../protocol/attestation-result.ts"
import { maxResultBytes } from "../protocol/messages.ts"
import { insecureLaboratory } from "./connect.ts"
import { isFolder } from "./evidence-file.ts"
import { RefusedError } from "./exit.ts"
import type { Cell, Output, Tone } from "./output.ts"

/** The token in a file, where the file holds one: a JWS in compact form, perhaps with a line end. */
export async function loadResultToken(path: string): Promise<string | undefined> {
  if (!path.endsWith(".jwt") || (await isFolder(path))) return undefined
  return parseUtf8(await readFileBounded(path, maxResultBytes + 2), path).trim()
}

/** Result key of a manager's description. @throws {MalformedError} */
export function resultKeyOf(base64: string): KeyObject {
  try {
    return createPublicKey({ key: Buffer.from(parseBase64(base64, "resultKey")), format: "der", type: "spki" })
  } catch (cause) {
    throw new MalformedError("malformed", "not a public key", { path: "resultKey", cause })
  }
}

/** Result key from a PEM file. @throws {MalformedError}, {UnavailableError} */
export async function loadResultKey(path: string): Promise<KeyObject> {
  const text = parseUtf8(await readFileBounded(path, 65_536), path)
  if (!/^-----BEGIN PUBLIC KEY-----$/m.test(text)) throw new MalformedError("malformed", "not a public key in PEM", { path })
  try {
    return createPublicKey(text)
  } catch (cause) {
    throw new MalformedError("malformed", "not a public key in PEM", { path, cause })
  }
}

/** Freshness for a reader of our own. */
export function drawResultNonce(): string {
  return encodeBase64Url(new Uint8Array(randomBytes(32)))
}

/**
 * Shows a verified result as a table or JSON.
 * @throws {RefusedError} for one that affirms or warns of nothing: the machine is contraindicated, or nothing is claimed
 */
export function showResult(result: AttestationResult, more: Readonly<Record<string, unknown>>, output: Output): void {
  const isGood = result.status === "affirming" || result.status === "warning"
  output.event({ ...(isGood ? { ok: true } : { event: "result" }), ...result, ...more })
  if (result.laboratory) output.line(`${insecureLaboratory}: the machine, or what it works on, rests on a laboratory root`, "warn")
  output.line(`run        ${result.run}, job ${result.job}`)
  output.line(`policy     ${result.policy}`)
  output.line(`evidence   ${result.evidence}, appraised ${timeText(result.appraisedAt)}`)
  output.line(`for        ${result.audience}, issued ${timeText(result.issuedAt)}, until ${timeText(result.expiresAt)}`)
  output.line(`status     ${result.status}`, tones[result.status])
  output.line()
  output.table(
    ["piece", "claim", "value", "tier"],
    Object.entries(result.submodules).flatMap(([piece, { status, vector }]): readonly (readonly Cell[])[] => [
      ...Object.entries(vector).map(([claim, value]): readonly Cell[] => [piece, claim, value, tierCell(value)]),
      [piece, "status", "", { text: status, tone: tones[status] }],
    ]),
  )
  for (const [piece, { findings }] of Object.entries(result.submodules))
    if (findings.length > 0) output.line(`${piece}: ${findings.join(", ")}`, tones[result.status])
  if (!isGood) throw new RefusedError(`the machine's status is ${result.status}`)
}

function tierCell(value: number): Cell {
  const tier = tierOf(value)
  return { text: tier, tone: tones[tier] }
}

const tones = { none: "dim", affirming: "good", warning: "warn", contraindicated: "bad" } as const satisfies Record<AttestationResult["status"], Tone>

function timeText(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(".000Z", "Z")
}
