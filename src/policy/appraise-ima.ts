import { encodeUtf8 } from "../bytes/text.ts"
import type { ImaClaims, ImaEntry } from "../evidence/ima/claims.ts"
import { own } from "./document.ts"
import type { HostRequirement } from "./document.ts"
import type { Finding } from "./findings.ts"
import { finding, printable, printableBytes } from "./findings.ts"
import { entryDigest } from "./ima-entry.ts"
import type { ImaReference } from "./reference.ts"

/** What earlier evidence of the same boot has settled. */
export interface ImaProgress {
  /** Entries certified and judged so far. */
  readonly certifiedCount: number
  /** Entries that had been logged by then; the next quote must certify at least these. */
  readonly mustCertify: number
}

/** Judges every entry that was given, certified or not. Whether the list holds what it should is for `imaPolicyFindings`. */
export function imaFindings(
  claims: ImaClaims,
  reference: ImaReference,
  violations: HostRequirement["ima"]["violations"],
  progress: ImaProgress | undefined,
): readonly Finding[] {
  const entries = [...claims.entries, ...claims.uncertified]
  return [
    ...coverageFindings(claims, progress),
    ...(claims.extendRule === "per-bank" ? [] : [finding("ima-weak-extend", "measurement list", claims.extendRule, "per-bank")]),
    ...entries.flatMap((entry) => entryFindings(entry, claims, reference, violations)),
  ]
}

/** What the next evidence of this boot will be held against. */
export function imaProgress(claims: ImaClaims): ImaProgress {
  return { certifiedCount: claims.certifiedCount, mustCertify: claims.certifiedCount + claims.uncertified.length }
}

function coverageFindings(claims: ImaClaims, progress: ImaProgress | undefined): readonly Finding[] {
  const judged = progress?.certifiedCount ?? 0
  const findings: Finding[] = []
  if (claims.firstIndex > judged || claims.firstIndex + claims.entries.length !== claims.certifiedCount)
    findings.push(
      finding(
        "ima-list-incomplete",
        "measurement list",
        `${claims.entries.length} entries from entry ${claims.firstIndex}`,
        `every entry from ${judged}`,
      ),
    )
  // An incremental verification has recomputed boot_aggregate at its first one, which `progress` stands for.
  if (claims.bootAggregate === undefined && (progress === undefined || claims.firstIndex === 0))
    findings.push(finding("ima-boot-aggregate-missing", "entry 0", "none", "boot_aggregate of this boot's registers"))
  if (progress !== undefined && claims.certifiedCount < progress.mustCertify)
    findings.push(finding("ima-tail-not-certified", "measurement list", `${claims.certifiedCount} entries`, `at least ${progress.mustCertify}`))
  return findings
}

function entryFindings(
  entry: ImaEntry,
  claims: ImaClaims,
  reference: ImaReference,
  violations: HostRequirement["ima"]["violations"],
): readonly Finding[] {
  const subject = `entry ${entry.index}, ${printableBytes(entry.name)}`
  const wrongRegister = entry.pcr === 10 ? [] : [finding("ima-wrong-register", subject, String(entry.pcr), "10")]
  // The verifier has recomputed the first entry from the quoted registers; any later entry of this name is a file like others.
  if (entry.index === 0 && claims.bootAggregate !== undefined) return wrongRegister
  return [...wrongRegister, ...contentFindings(entry, subject, reference, violations)]
}

function contentFindings(
  entry: ImaEntry,
  subject: string,
  reference: ImaReference,
  violations: HostRequirement["ima"]["violations"],
): readonly Finding[] {
  if (entry.violation) {
    const classes = violations === "deny" ? [] : violations.allow
    if (classes.some((name) => isInClass(entry.name, own(reference.violationClasses, name) ?? []))) return []
    return [finding("ima-violation", subject, "violation", classes.length === 0 ? "none" : `only in ${classes.join(", ")}`)]
  }
  if (!strongHashes.has(entry.hashAlgorithm))
    return [finding("ima-weak-hash", subject, printable(entry.hashAlgorithm), [...strongHashes].join(" or "))]
  if (entry.buffer !== undefined) {
    const good = own(reference.buffers, printableBytes(entry.name)) ?? []
    if (good.includes(entryDigest(entry))) return []
    return [finding("ima-unknown-buffer", subject, entryDigest(entry), good.length === 0 ? "no such buffer" : good.join(" or "))]
  }
  if (Object.hasOwn(reference.files, entryDigest(entry))) return []
  return [finding("ima-unknown-file", subject, entryDigest(entry), expectedContent(entry.name, reference))]
}

/** What the reference has at the entry's path, for the reader: a name is a claim, so nothing is judged by it. */
function expectedContent(name: Uint8Array, reference: ImaReference): string {
  const digests = digestsByPath(reference).get(printableBytes(name))
  return digests === undefined ? "a file of the reference" : digests.join(" or ")
}

/** Kept per reference, because a machine of another image has thousands of unknown files. */
const pathIndexes = new WeakMap<ImaReference, ReadonlyMap<string, readonly string[]>>()

function digestsByPath(reference: ImaReference): ReadonlyMap<string, readonly string[]> {
  const known = pathIndexes.get(reference)
  if (known !== undefined) return known
  const index = new Map<string, string[]>()
  for (const [digest, paths] of Object.entries(reference.files))
    for (const path of paths) {
      const digests = index.get(printable(path))
      if (digests === undefined) index.set(printable(path), [digest])
      else digests.push(digest)
    }
  pathIndexes.set(reference, index)
  return index
}

/** Bytes are compared, for a name need not be text. A prefix that ends in `/` takes everything below, any other only itself. */
function isInClass(name: Uint8Array, prefixes: readonly string[]): boolean {
  return prefixes.some((prefix) => {
    const bytes = encodeUtf8(prefix)
    const isFolder = prefix.endsWith("/")
    if (!isFolder && bytes.length !== name.length) return false
    return bytes.every((byte, index) => byte === name[index]) && !(isFolder && holdsDotDot(name))
  })
}

/** `/var/log/../../usr/bin/x` lies elsewhere. */
function holdsDotDot(name: Uint8Array): boolean {
  return /(?:^|\/)\.\.(?:\/|$)/.test(printableBytes(name))
}

const strongHashes: ReadonlySet<string> = new Set(["sha256", "sha384", "sha512"])
