import { parseBase64 } from "../../src/bytes/text.ts"
import { LabError } from "../error.ts"

/** Bytes that a probe in the machine showed on the console between marks, in base64 lines. @throws {LabError} `build-failed` where there is no such part */
export function shownBytes(consoleText: string, name: string): Uint8Array {
  const match = new RegExp(`perun-probe: begin ${name}\\n([A-Za-z0-9+/=\\n]*)perun-probe: end ${name}\\n`).exec(consoleText)
  if (match?.[1] === undefined) throw new LabError("build-failed", `the console shows no ${name}`)
  return parseBase64(match[1].replaceAll("\n", ""), `console.${name}`)
}
