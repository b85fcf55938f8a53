import type { BootClaims, BootEvent } from "../evidence/eventlog/claims.ts"
import type { Finding } from "./findings.ts"
import { finding, printable } from "./findings.ts"
import type { BootReference, ReferenceEvent } from "./reference.ts"

/** Compares a measured boot with its reference, register by register and event by event. */
export function bootFindings(claims: BootClaims, reference: BootReference): readonly Finding[] {
  return [
    ...bankFindings(claims, reference),
    ...localityFindings("reference", claims.startupLocality, reference.startupLocality),
    ...secureBootFindings(claims, reference),
    ...quirkFindings(claims, reference),
    ...eventFindings(claims, reference),
    ...commandLineFindings(claims, reference),
  ]
}

/** `source` says who demands it: the policy and the reference both may. */
export function localityFindings(source: string, found: number, expected: "any" | 0 | 3 | 4): readonly Finding[] {
  if (expected === "any" || found === expected) return []
  return [finding("startup-locality-differs", `startup locality by ${source}`, String(found), String(expected))]
}

function bankFindings(claims: BootClaims, reference: BootReference): readonly Finding[] {
  return claims.bank === reference.bank ? [] : [finding("wrong-bank", "boot log", printable(claims.bank), reference.bank)]
}

function secureBootFindings(claims: BootClaims, reference: BootReference): readonly Finding[] {
  if (reference.secureBoot === "any" || claims.secureBoot === reference.secureBoot) return []
  return [finding("secure-boot-differs", "Secure Boot", claims.secureBoot, reference.secureBoot)]
}

function quirkFindings(claims: BootClaims, reference: BootReference): readonly Finding[] {
  const expected = reference.quirks.length === 0 ? "none" : reference.quirks.join(", ")
  return claims.quirks.map((quirk) =>
    finding(reference.quirks.includes(quirk) ? "boot-quirk-accepted" : "boot-quirk-not-accepted", "firmware", printable(quirk), expected),
  )
}

function eventFindings(claims: BootClaims, reference: BootReference): readonly Finding[] {
  const stated = new Map(reference.registers.map((register) => [register.pcr, register]))
  const unstated = claims.events
    .filter(({ pcr }) => !stated.has(pcr))
    .map((event) => finding("boot-register-unexpected", eventName(event), event.digest, `no event in register ${event.pcr}`))
  const compared = reference.registers.flatMap((register) => {
    if ("any" in register) return []
    const found = claims.events.filter(({ pcr }) => pcr === register.pcr)
    return compareRegister(register.pcr, found, register.events)
  })
  return [...unstated, ...compared]
}

/**
 * Walks both lists side by side. At a difference it looks for the nearest place where they meet again, so that one event added or left out is one
 * finding, and says `differs` where there is none. However it pairs them, lists that are not equal give at least one finding.
 */
function compareRegister(pcr: number, found: readonly BootEvent[], expected: readonly ReferenceEvent[]): readonly Finding[] {
  const findings: Finding[] = []
  let at = 0
  let want = 0
  for (;;) {
    const event = found[at]
    const reference = expected[want]
    if (event === undefined && reference === undefined) return findings
    if (event !== undefined && reference !== undefined && fits(event, reference)) {
      at++
      want++
      continue
    }
    const skipped = event === undefined ? -1 : expected.findIndex((candidate, index) => index > want && fits(event, candidate))
    const inserted = reference === undefined ? -1 : found.findIndex((candidate, index) => index > at && fits(candidate, reference))
    if (event === undefined || (skipped >= 0 && (inserted < 0 || skipped - want <= inserted - at))) {
      if (reference !== undefined) findings.push(missing(pcr, reference, want))
      want++
    } else if (reference === undefined || inserted >= 0) {
      findings.push(finding("boot-event-unexpected", eventName(event), event.digest, "no event here"))
      at++
    } else {
      findings.push(finding("boot-event-differs", eventName(event), event.digest, expectedText(reference)))
      at++
      want++
    }
  }
}

function fits(event: BootEvent, reference: ReferenceEvent): boolean {
  return reference.digests.includes(event.digest)
}

function missing(pcr: number, reference: ReferenceEvent, place: number): Finding {
  const subject = `register ${pcr}, event ${place} of the reference, ${printable(reference.type)}${described(reference.description)}`
  return finding("boot-event-missing", subject, "no such event", reference.digests.join(" or "))
}

function commandLineFindings(claims: BootClaims, reference: BootReference): readonly Finding[] {
  const count = Math.max(claims.commandLines.length, reference.commandLines.length)
  return Array.from({ length: count }, (_, index) => index).flatMap((index) => {
    const found = claims.commandLines[index]
    const expected = reference.commandLines[index]
    if (found !== undefined && expected !== undefined && found.pcr === expected.pcr && found.text === expected.text) return []
    return [
      finding(
        "command-line-differs",
        `kernel command line ${index}`,
        found === undefined ? unexplained(claims) : commandLineText(found),
        commandLineText(expected),
      ),
    ]
  })
}

/** The EFI stub logs no text, only a digest, so another command line can be told apart but not read. */
function unexplained(claims: BootClaims): string {
  return claims.loadOptions.length === 0 ? "none" : `text that the log does not hold, digest ${claims.loadOptions.join(", ")}`
}

function commandLineText(line: { readonly pcr: number; readonly text: string } | undefined): string {
  return line === undefined ? "none" : `"${printable(line.text)}" in register ${line.pcr}`
}

function eventName(event: BootEvent): string {
  return `register ${event.pcr}, log record ${event.index}, ${printable(event.type)}${described(event.description)}`
}

function expectedText(reference: ReferenceEvent): string {
  return `${reference.digests.join(" or ")}, ${printable(reference.type)}${described(reference.description)}`
}

function described(description: string): string {
  return description === "" ? "" : ` (${printable(description)})`
}
