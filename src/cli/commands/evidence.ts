import type { Command } from "commander"
import type { KeyObject } from "node:crypto"
import { PerunError } from "../../bytes/error.ts"
import { parseHex } from "../../bytes/text.ts"
import { type CcelQuirk, ccelQuirks } from "../../evidence/ccel/verify.ts"
import { evidenceKinds } from "../../evidence/kinds.ts"
import { reportDataBytes, sessionReportData } from "../../evidence/report-data.ts"
import type { TeeEvidence } from "../../evidence/tee/format.ts"
import { withCachedCollateral } from "../../evidence/collateral/cache.ts"
import { teeRootsFor, type TeeRoots } from "../../evidence/tee/roots.ts"
import { verifyTee } from "../../evidence/tee/verify.ts"
import { appraiseTee } from "../../policy/appraise-tee.ts"
import { laboratoryRootsOf, type TeeRequirement } from "../../policy/tee.ts"
import { chosenManager } from "../home.ts"
import { loadPolicyFile, policyNamed } from "../policy-file.ts"
import { loadResultKey, loadResultToken, resultKeyOf, showResult } from "../result-file.ts"
import { type Fact, factLists, plainClaims, showFacts } from "../facts.ts"
import { demandAcceptable, isCurrent, isLaboratory, outdatedWords, plainFaults, showAcceptable, teeFacts, validUntil } from "../tee-facts.ts"
import { loadAzureEvidence } from "../azure-file.ts"
import { verifyOfAzure } from "../evidence-azure.ts"
import { type EvidenceForm, recogniseEvidence, unknownEvidence } from "../evidence-form.ts"
import { fingerprintsOf, loadTeeEvidence } from "../tee-file.ts"
import { collateralFolder } from "./collateral.ts"
import { allAgree, runConformance, type ConformanceRow } from "../../evidence/conformance/run.ts"
import { type FirmwareQuirk, firmwareQuirks } from "../../evidence/eventlog/verify.ts"
import type { HostClaims } from "../../evidence/host/claims.ts"
import { hostPcrs, verifyHost } from "../../evidence/host/verify.ts"
import type { EndorsementClaims, TpmIdentity } from "../../evidence/tpm/claims.ts"
import { harmlessQuirks } from "../../evidence/tpm/endorsements.ts"
import { parseAttest } from "../../evidence/tpm/format.ts"
import { tpmNameText } from "../../evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../../evidence/tpm/public-area.ts"
import { verifyEndorsementCertificate } from "../../evidence/tpm/verify.ts"
import { printableBytes } from "../../policy/findings.ts"
import { insecureLaboratory } from "../connect.ts"
import { type HostEvidenceFiles, loadEnrolments, loadHostEvidence, rootsWith } from "../evidence-file.ts"
import { RefusedError, UsageError } from "../exit.ts"
import type { Cell, Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  command
    .command("verify")
    .argument(
      "<path>",
      "a host's bundle (JSON) or folder (quote.msg, quote.sig, ak.tpm2b-public, eventlog.bin, ima.bin); or of a TEE: a quote or report as the device gave it, our JSON, or a folder with it and its certificates; or of an Azure confidential VM: our JSON, or a folder (hcl-report.bin, quote.msg, quote.sig, pcrs.json, and certificates or td-quote.bin); or a manager's attestation result (.jwt)",
    )
    .option("--nonce <hex>", "challenge that the evidence must answer: a quote's extraData, or 64 bytes of report data (32 are filled with zeros)")
    .option("--collateral <file>", "what the processor's maker says of the platform, as perun collateral fetch --out writes it")
    .option(
      "--policy <file>",
      "hold the TEE against what this policy demands of its manager; of a result, the policy (file or digest) that it must be of",
    )
    .option("--audience <name>", "of a result: whom it must be for")
    .option("--result-key <file>", "of a result: the manager's result key (PEM; default: that of the manager pinned last)")
    .option("--insecure-any-nonce", "accept whatever challenge the quote answers: says nothing about its age")
    .option("--laboratory-root <file>", "PEM of a laboratory root to accept: INSECURE LABORATORY; again for each", collect, [])
    .option("--enrolled <file>", "what perun host list --json printed: the enrolments that proved which key lives in which TPM")
    .option("--at <time>", "judge certificates at this time (default: now)")
    .option("--quirk <name>", `firmware fault to accept: ${Object.keys(firmwareQuirks).join(", ")}; again for each`, collect, [])
    .description(
      "verify the evidence of a host or TEE; exit 0 only if it is genuine, and a host's key is proved to live in the TPM that a vendor vouches for, a TEE is no debug one and its collateral is all there",
    )
    .action(async (path: string, options: VerifyOptions) => {
      const token = await loadResultToken(path)
      if (token !== undefined) return verifyResult(token, options, output)
      if (options.audience !== undefined || options.resultKey !== undefined)
        throw new UsageError("--audience and --result-key are for attestation results, files that end in .jwt")
      const form = await recogniseEvidence(path)
      refuseOptionsOfOthers(options, form)
      switch (form) {
        case "host":
          return verify(path, options, output)
        case "azure-vtpm":
          return verifyOfAzure(
            await loadAzureEvidence(path, options.collateral),
            { ...options, accept: await demandsOf(options.policy), time: parseTime(options.at) },
            output,
          )
        case "tee":
          return verifyOfTee(path, options, output)
      }
    })
  command
    .command("conformance")
    .argument("<folder>", "test vectors: KIND/CASE/expected.json")
    .option("--kind <kind>", "only this kind; again for each", collect, [])
    .description("judge recorded evidence of real machines as its expected.json says; exit 0 only if all agree")
    .action(async (folder: string, options: { kind: readonly string[] }) => {
      const rows = await runConformance(folder, options.kind.length === 0 ? {} : { kinds: options.kind })
      showConformance(rows, output)
      if (!allAgree(rows)) throw new RefusedError("not every case agrees", [], { cases: rows.length, rows })
      output.event({ ok: true, cases: rows.length, rows })
    })
}

interface VerifyOptions {
  readonly nonce?: string
  readonly insecureAnyNonce?: true
  readonly laboratoryRoot: readonly string[]
  readonly at?: string
  readonly enrolled?: string
  readonly quirk: readonly string[]
  readonly collateral?: string
  readonly policy?: string
  readonly audience?: string
  readonly resultKey?: string
}

/** A manager's attestation result, offline: by the key that was pinned with the manager, or by the one given. */
async function verifyResult(token: string, options: VerifyOptions, output: Output): Promise<void> {
  const { nonce, audience, policy, collateral, enrolled, laboratoryRoot, quirk } = options
  if (collateral !== undefined || enrolled !== undefined || laboratoryRoot.length > 0 || quirk.length > 0)
    throw new UsageError("--collateral, --enrolled, --laboratory-root and --quirk are for evidence; the manager has judged it already")
  if (nonce === undefined && options.insecureAnyNonce !== true)
    throw new UsageError("--nonce says which nonce the result must answer (or --insecure-any-nonce to look at any until it expires)")
  if (audience === undefined || policy === undefined) throw new UsageError("a result is for somebody and of a policy: --audience NAME --policy FILE")
  const key = options.resultKey === undefined ? await pinnedResultKey() : await loadResultKey(options.resultKey)
  const { verifyAttestationResult } = await import("../../protocol/attestation-result.ts")
  const time = parseTime(options.at)
  const expected = { key, nonce: nonce ?? "insecure-any", audience, time: time.getTime(), policy: await policyNamed(policy) }
  const result = await verifyAttestationResult(token, expected)
  showResult(result, { kind: "attestation-result", fresh: nonce !== undefined, at: time.toISOString() }, output)
}

async function pinnedResultKey(): Promise<KeyObject> {
  const { url, resultKey } = await chosenManager(undefined)
  if (resultKey === undefined)
    throw new UsageError(`no result key is pinned with ${url}: pin it again (perun manager trust), or give it with --result-key FILE`)
  return resultKeyOf(resultKey)
}

/** An option that would not be looked at must not stand beside a green end. */
function refuseOptionsOfOthers({ policy, collateral, enrolled, quirk }: VerifyOptions, form: EvidenceForm): void {
  if (form === "host" && policy !== undefined)
    throw new UsageError("--policy is for evidence of a TEE; a host is held against a policy by the manager")
  if (form === "host" && collateral !== undefined) throw new UsageError("--collateral is for evidence of a TEE")
  if (form !== "host" && enrolled !== undefined) throw new UsageError("--enrolled is for evidence of a host with a TPM")
  if (form === "azure-vtpm" && quirk.length > 0) throw new UsageError("--quirk is for logs of firmware, and none is read of an Azure confidential VM")
}

async function verifyOfTee(path: string, options: VerifyOptions, output: Output): Promise<void> {
  const given = await loadTeeEvidence(path, options)
  if (given === undefined) throw unknownEvidence(path)
  const time = parseTime(options.at)
  const anyReportData = options.nonce === undefined
  if (anyReportData && options.insecureAnyNonce !== true)
    throw new UsageError("--nonce says which report data the evidence must carry (or --insecure-any-nonce to look at evidence of any age)")
  const accept = await demandsOf(options.policy)
  const laboratoryRoots = [...laboratoryRootsOf(accept ?? []), ...(await fingerprintsOf(options.laboratoryRoot))]
  const roots = (of: TeeEvidence): TeeRoots => teeRootsFor(of, laboratoryRoots)
  const evidence = await withCachedCollateral(collateralFolder(), given, { roots, time: time.getTime() })
  const genuine = verifyTee(evidence, {
    reportData: options.nonce === undefined ? "as-signed" : parseReportData(options.nonce),
    roots: roots(evidence),
    time: time.getTime(),
    ccelQuirks: options.quirk.map(parseCcelQuirk),
  })
  if (genuine.kind === "azure-vtpm") throw new TypeError("internal: a confidential VM of Azure took the way of a bare TEE")
  const facts = teeFacts(genuine, anyReportData)
  const open = facts.filter(({ proved }) => !proved)
  const { claims } = genuine.tee
  const appraisal = accept === undefined ? undefined : appraiseTee(genuine, accept)
  const faults = plainFaults(claims)
  const until = new Date(validUntil(claims)).toISOString()
  const isFine = faults.length === 0 && appraisal?.outcome !== "refused"
  output.event({
    ...(isFine ? { ok: true } : { event: "genuine" }),
    ...{ kind: genuine.kind, fresh: !anyReportData, insecureLaboratory: isLaboratory(claims), at: time.toISOString(), validUntil: until },
    claims: plainClaims(claims),
    ...factLists(facts),
    faults,
    ...(appraisal === undefined ? {} : { accepted: appraisal.outcome === "accepted", findings: appraisal.findings }),
  })
  if (isLaboratory(claims)) output.line(`${insecureLaboratory}: it chains to a root that was given, not to a vendor's`, "warn")
  showFacts(facts, output)
  output.line()
  output.line(`genuine: ${evidenceKinds[genuine.kind].name}, valid until ${until}.`, isFine && isCurrent(claims) && !anyReportData ? "good" : "plain")
  if (!isCurrent(claims)) output.line(outdatedWords, "warn")
  if (open.length > 0) output.line(`not proved: ${open.map(({ what }) => what).join("; ")}`, "warn")
  demandAcceptable(appraisal, output)
  if (faults.length > 0) throw new RefusedError(`genuine, but no policy takes it: ${faults.join("; ")}`)
  showAcceptable(appraisal, output)
}

async function demandsOf(path: string | undefined): Promise<readonly TeeRequirement[] | undefined> {
  if (path === undefined) return undefined
  const { manager } = (await loadPolicyFile(path)).policy
  if ("accept" in manager) return manager.accept
  throw new UsageError("the policy demands no proof of its manager (insecureUnattested)")
}

function parseReportData(text: string): Uint8Array {
  const bytes = parseHex(text, "--nonce")
  if (bytes.length === reportDataBytes) return bytes
  if (bytes.length !== reportDataBytes / 2)
    throw new UsageError(`--nonce of ${bytes.length} bytes: report data has 64, or 32 that are filled with zeros`)
  return sessionReportData(bytes)
}

function parseCcelQuirk(text: string): CcelQuirk {
  const quirk = (Object.keys(ccelQuirks) as CcelQuirk[]).find((known) => known === text)
  if (quirk === undefined) throw new UsageError(`--quirk of a TD knows ${Object.keys(ccelQuirks).join(", ")}, found ${text}`)
  return quirk
}

async function verify(path: string, options: VerifyOptions, output: Output): Promise<void> {
  const files = await loadHostEvidence(path)
  const time = parseTime(options.at)
  const endorsement = await verifiedEndorsement(files, options.laboratoryRoot, time)
  const identity = await enrolledIdentity(files, endorsement, options.enrolled)
  const extraData = expectedNonce(files, options)
  const host = verifyHost(files.bundle, {
    extraData,
    requiredPcrs: hostPcrs,
    quirks: options.quirk.map(parseQuirk),
    identity: identity ?? "unproved",
    previous: "none",
  }).claims
  const facts = [...endorsementFacts(endorsement, identity), ...hostFacts(host, options.insecureAnyNonce === true)]
  const open = facts.filter(({ proved: held }) => !held)
  const tpmProved = endorsement !== undefined && identity !== undefined
  output.event({
    ...(tpmProved ? { ok: true } : { event: "genuine" }),
    consistent: true,
    tpmProved,
    fresh: options.insecureAnyNonce !== true,
    at: time.toISOString(),
    ...factLists(facts),
  })
  if (endorsement?.rootKind === "laboratory")
    output.line(`${insecureLaboratory}: the endorsement chains to a root that was given, not to a vendor's`, "warn")
  showFacts(facts, output)
  output.line()
  if (!tpmProved) throw new UnprovedError(endorsement === undefined ? unprovedWords.noCertificate : unprovedWords.noEnrolment)
  output.line("genuine: signed by a key that lives in the TPM that is vouched for. Whether the machine is acceptable is for a policy to say.", "good")
  if (open.length > 0) output.line(`not proved: ${open.map(({ what }) => what).join("; ")}`, "warn")
}

const unprovedWords = {
  noCertificate: "not accepted: it fits together and a key signed it, but no endorsement certificate says that a TPM has that key",
  noEnrolment:
    "not accepted: it fits together and a key signed it, but nothing proves that the key lives in the TPM that is vouched for; perun host enrol proves it, --enrolled takes it over",
} as const

/** Evidence that fits together, of a key that anybody could have. */
class UnprovedError extends PerunError<"unproved"> {
  constructor(message: string) {
    super("unproved", message)
  }
}

/**
 * The enrolment of the TPM that the certificate is of; undefined when no enrolments were given.
 * @throws {RefusedError} when none of them is of this TPM
 */
async function enrolledIdentity(
  { bundle }: HostEvidenceFiles,
  endorsement: EndorsementClaims | undefined,
  file: string | undefined,
): Promise<TpmIdentity | undefined> {
  if (file === undefined || endorsement === undefined) return undefined
  const ofThisTpm = (await loadEnrolments(file)).filter(({ endorsementKey }) => endorsementKey === endorsement.key)
  const name = tpmNameText(parseSizedPublicArea(bundle.akPublic))
  const identity = ofThisTpm.find(({ attestationKeyName }) => attestationKeyName === name) ?? ofThisTpm[0]
  if (identity === undefined) throw new RefusedError(`${file} has no machine whose TPM has the endorsement key ${endorsement.key}`)
  return identity
}

function endorsementFacts(endorsement: EndorsementClaims | undefined, identity: TpmIdentity | undefined): readonly Fact[] {
  const link = {
    what: "the quote's key lives in that TPM",
    proved: identity !== undefined,
    how:
      identity === undefined
        ? "needs MakeCredential with the machine: perun host enrol"
        : "the enrolment that was given, by MakeCredential with the machine",
  }
  if (endorsement === undefined) return [{ what: "a vendor vouches for the TPM", proved: false, how: "no endorsement certificate was given" }, link]
  const { manufacturer, model, version, rootName, rootKind, isRevocationChecked, quirks } = endorsement
  return [
    {
      what: "a vendor vouches for the TPM",
      proved: true,
      how: `${manufacturer} ${model} ${version}, certificate chain to ${rootName} (${rootKind})`,
    },
    {
      what: "the vendor has not revoked it",
      proved: isRevocationChecked,
      how: isRevocationChecked ? "revocation lists of every issuer" : "no revocation list was given",
    },
    ...(quirks.length === 0 ? [] : [{ what: "the certificate's form", proved: true, how: `accepted oddities: ${quirks.join(", ")}` }]),
    link,
  ]
}

function hostFacts({ quote, boot, ima }: HostClaims, anyNonce: boolean): readonly Fact[] {
  const registers = quote.selection.map(({ bank, pcrs }) => `${bank} ${pcrs.join(",")}`).join("; ")
  const { resetCount, restartCount, safe } = quote.clockInfo
  const lines = boot.commandLines.map(({ text }) => text).join(" | ")
  return [
    { what: "a key quoted registers", proved: true, how: `${quote.scheme} over ${registers}` },
    { what: "for this challenge", proved: !anyNonce, how: anyNonce ? "any challenge was accepted" : "extraData equals the nonce given" },
    {
      what: "boot count and clock",
      proved: true,
      how: `resetCount ${resetCount}, restartCount ${restartCount}, clock ${safe ? "safe" : "may have been set back"}`,
    },
    {
      what: "how the machine booted",
      proved: true,
      how: `${boot.events.length} events explain registers ${[...boot.pcrs.keys()].join(",")}; Secure Boot ${boot.secureBoot}`,
    },
    ...(boot.quirks.length === 0 ? [] : [{ what: "firmware faults accepted", proved: true, how: boot.quirks.join(", ") }]),
    { what: "with which command line", proved: lines !== "", how: lines === "" ? "no event holds one" : lines },
    {
      what: "what was loaded since",
      proved: true,
      how: `${ima.certifiedCount} IMA entries explain register 10 (${ima.extendRule}), boot_aggregate ${ima.bootAggregate === undefined ? "not among them" : "recomputed"}`,
    },
    {
      what: "and nothing changed while it was measured",
      proved: ima.violations === 0,
      how: ima.violations === 0 ? "no violations" : `${ima.violations} violations: ${violationNames(ima)}`,
    },
    ...(ima.uncertified.length === 0
      ? []
      : [{ what: "the last IMA entries", proved: false, how: `${ima.uncertified.length} entries are logged but not yet in the register` }]),
  ]
}

function violationNames({ entries }: HostClaims["ima"]): string {
  return entries
    .filter(({ violation }) => violation)
    .slice(0, 5)
    .map(({ name }) => printableBytes(name))
    .join(", ")
}

async function verifiedEndorsement(
  { ekCertificate, ekPublic }: HostEvidenceFiles,
  laboratoryRoots: readonly string[],
  time: Date,
): Promise<EndorsementClaims | undefined> {
  if (ekCertificate === undefined) return undefined
  return verifyEndorsementCertificate(
    { certificate: ekCertificate, intermediates: [], publicArea: ekPublic === undefined ? "not-given" : parseSizedPublicArea(ekPublic) },
    { role: "endorsement", roots: await rootsWith(laboratoryRoots), time: time.getTime(), revocationLists: [], quirks: harmlessQuirks },
  ).claims
}

function expectedNonce({ bundle }: HostEvidenceFiles, { nonce, insecureAnyNonce }: VerifyOptions): Uint8Array {
  if (nonce !== undefined) return parseHex(nonce, "--nonce")
  if (insecureAnyNonce === true) return parseAttest(bundle.quote).extraData
  throw new UsageError("--nonce says which challenge the quote must answer (or --insecure-any-nonce to look at evidence of any age)")
}

function parseTime(text: string | undefined): Date {
  const time = text === undefined ? new Date() : new Date(text)
  if (Number.isNaN(time.getTime())) throw new UsageError(`--at wants a time like 2026-11-22T00:00:00Z, found ${text ?? ""}`)
  return time
}

function parseQuirk(text: string): FirmwareQuirk {
  const quirk = (Object.keys(firmwareQuirks) as FirmwareQuirk[]).find((known) => known === text)
  if (quirk === undefined) throw new UsageError(`--quirk knows ${Object.keys(firmwareQuirks).join(", ")}, found ${text}`)
  return quirk
}

function showConformance(rows: readonly ConformanceRow[], output: Output): void {
  const tones = { agrees: "good", reviewed: "warn", differs: "bad", "not-judged": "bad" } as const
  output.table(
    ["kind", "case", "expected", "verdict", "ms", "remark"],
    rows.map((row): readonly Cell[] => [
      row.kind,
      row.case,
      row.expect,
      { text: row.verdict, tone: tones[row.verdict] },
      Math.round(row.seconds * 1000),
      row.reason,
    ]),
  )
  const count = (verdict: ConformanceRow["verdict"]): number => rows.filter((row) => row.verdict === verdict).length
  output.line()
  output.line(
    `${count("agrees")} agree, ${count("reviewed")} differ for a reviewed reason (docs/conformance.md), ${count("differs")} differ, ${count("not-judged")} not judged`,
    allAgree(rows) ? "good" : "bad",
  )
}

function collect(text: string, before: readonly string[]): readonly string[] {
  return [...before, text]
}
