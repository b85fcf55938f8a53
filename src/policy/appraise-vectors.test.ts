import assert from "node:assert/strict"
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { parseHex } from "../bytes/text.ts"
import type { HostClaims } from "../evidence/host/claims.ts"
import { hostPcrs, verifyHost } from "../evidence/host/verify.ts"
import { Genuine } from "../evidence/genuine.ts"
import type { ImaEntry } from "../evidence/ima/claims.ts"
import type { TpmIdentity } from "../evidence/tpm/claims.ts"
import { appraise } from "./appraise.ts"
import type { Decision } from "./appraise.ts"
import { captureBootReference, captureImaReference } from "./capture.ts"
import type { Machine, Policy } from "./document.ts"
import { printableBytes } from "./findings.ts"
import { hexOf, imaReference, named, now, policy } from "./fixtures.testing.ts"
import type { ImaReference, Reference } from "./reference.ts"
import { parseReferenceValue, referenceDigest, referencesByDigest } from "./reference.ts"

/** Machines that were really booted: from their bytes to a decision. */

const vectors = join(process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../shared/vectors"), "host")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

const times = { name: "captured", created: "2026-11-01T00:00:00Z", expires: "2027-06-01T00:00:00Z" }

function verified(folder: string): Genuine<HostClaims> {
  const file = (name: string): Uint8Array => new Uint8Array(readFileSync(join(vectors, folder, name)))
  const { nonce } = JSON.parse(new TextDecoder().decode(file("expected.json"))) as { readonly nonce: string }
  const bundle = {
    quote: file("quote.msg"),
    signature: file("quote.sig"),
    akPublic: file("ak.tpm2b-public"),
    eventLog: file("eventlog.bin"),
    ima: { from: 0, list: file("ima.bin") },
  }
  const expectation = { extraData: parseHex(nonce), requiredPcrs: hostPcrs, quirks: [], previous: "none" } as const
  const { keyName } = verifyHost(bundle, { ...expectation, identity: "unproved" }).claims.quote
  assert.ok(keyName !== undefined)
  const identity: TpmIdentity = {
    endorsementKey: named("ek"),
    root: named("root"),
    rootKind: "vendor",
    description: "swtpm",
    attestationKeyName: keyName,
  }
  return verifyHost(bundle, { ...expectation, identity })
}

function digestOfEntry({ hashAlgorithm, digest }: ImaEntry): string {
  return `${hashAlgorithm}:${digest}`
}

/** An IMA reference of the machine's own list, without the entries whose name is left out. */
function captured({ ima }: HostClaims, without: string): ImaReference {
  const entries = ima.entries.filter(({ index, violation }) => index > 0 && !violation)
  const files = entries
    .filter(({ buffer }) => buffer === undefined)
    .map((entry) => ({ path: printableBytes(entry.name), digest: digestOfEntry(entry) }))
  const buffers = entries.filter(({ buffer }) => buffer !== undefined).map((entry) => [printableBytes(entry.name), [digestOfEntry(entry)]])
  return captureImaReference({
    ...times,
    files: files.filter(({ path }) => path !== without),
    imaPolicy: imaReference.imaPolicy,
    buffers: Object.fromEntries(buffers) as ImaReference["buffers"],
  })
}

function judge(evidence: Genuine<HostClaims>, documents: readonly Reference[]): Decision {
  const [boot, ima] = documents.map((document) => referenceDigest(parseReferenceValue(document)))
  assert.ok(boot !== undefined && ima !== undefined)
  const machine: Machine = {
    level: "administered",
    tpm: { endorsementKeys: [named("ek")], laboratoryRoots: [], startupLocality: "any", clock: "safe" },
    boot: { reference: boot },
    ima: { reference: ima, violations: "deny" },
  }
  const study: Policy = { ...policy, machines: { "gpu-host": machine } }
  return appraise(Genuine.afterVerification({ session: named("session"), host: evidence.claims }), {
    policy: study,
    job: "train",
    references: referencesByDigest(documents),
    time: now,
  })
}

/** These images loaded no IMA policy by path, and the text of their command lines is not known. */
const withoutPolicy = ["ima-policy-missing", "ima-policy-unmeasured"]

test("appraise() finds nothing on a booted machine against its own references, but that it shows no IMA policy", { skip }, () => {
  const evidence = verified("ng")
  const documents = [captureBootReference(evidence.claims.boot, { ...times, appliance: "none" }), captured(evidence.claims, "")]
  const decision = judge(evidence, documents)
  assert.equal(decision.outcome, "refused")
  assert.deepEqual(
    decision.findings.map(({ code }) => code),
    withoutPolicy,
  )
})

test("appraise() names the file of a booted machine that the reference does not have", { skip }, () => {
  const evidence = verified("ng")
  const documents = [captureBootReference(evidence.claims.boot, { ...times, appliance: "none" }), captured(evidence.claims, "/usr/bin/dash")]
  const decision = judge(evidence, documents)
  assert.equal(decision.outcome, "refused")
  const files = decision.findings.filter(({ code }) => !withoutPolicy.includes(code))
  assert.ok(files.length > 0)
  for (const { code, subject } of files) {
    assert.equal(code, "ima-unknown-file")
    assert.match(subject, /^entry \d+, \/usr\/bin\/dash$/)
  }
})

test("appraise() refuses a booted machine with violations, and one that booted otherwise", { skip }, () => {
  const evidence = verified("violation-sig")
  const boot = captureBootReference(evidence.claims.boot, { ...times, appliance: "none" })
  const violating = judge(evidence, [boot, captured(evidence.claims, "")])
  assert.equal(violating.outcome, "refused")
  const { violations, uncertified } = evidence.claims.ima
  assert.equal(
    violating.findings.filter(({ code }) => code === "ima-violation").length,
    violations + uncertified.filter(({ violation }) => violation).length,
  )
  const kernel = boot.registers.map((register) =>
    register.pcr !== 4 || "any" in register
      ? register
      : { pcr: 4, events: register.events.map((event) => ({ ...event, digests: [hexOf("other")] })) },
  )
  const other = verified("ng")
  const decision = judge(other, [{ ...boot, registers: kernel }, captured(other.claims, "")])
  assert.equal(decision.outcome, "refused")
  assert.ok(decision.findings.some(({ code, subject }) => code === "boot-event-differs" && subject.startsWith("register 4, ")))
})
