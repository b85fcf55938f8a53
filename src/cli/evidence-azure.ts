import { createPublicKey } from "node:crypto"
import { MalformedError } from "../bytes/error.ts"
import { parseHex } from "../bytes/text.ts"
import type { AzureClaims } from "../evidence/azure/claims.ts"
import { azureEvidenceOf } from "../evidence/azure/document.ts"
import { verifyAzureVtpm } from "../evidence/azure/verify.ts"
import { withCachedCollateral } from "../evidence/collateral/cache.ts"
import { EvidenceError } from "../evidence/errors.ts"
import { evidenceKinds } from "../evidence/kinds.ts"
import { teeRootsFor, type TeeRoots } from "../evidence/tee/roots.ts"
import type { TeeEvidence } from "../evidence/tee/format.ts"
import { endorsementKeyDigest } from "../evidence/tpm/endorsements.ts"
import { appraiseTee, type TeeAppraisal } from "../policy/appraise-tee.ts"
import { printable } from "../policy/findings.ts"
import { laboratoryRootsOf, type TeeRequirement } from "../policy/tee.ts"
import { type AzureFiles, azureFiles } from "./azure-file.ts"
import { collateralFolder } from "./commands/collateral.ts"
import { insecureLaboratory } from "./connect.ts"
import { RefusedError, UsageError } from "./exit.ts"
import { fact, type Fact, factLists, plainClaims, showFacts } from "./facts.ts"
import type { Output } from "./output.ts"
import { demandAcceptable, isCurrent, isLaboratory, outdatedWords, plainFaults, showAcceptable, snpFacts, tdxFacts, validUntil } from "./tee-facts.ts"
import { fingerprintsOf } from "./tee-file.ts"

export interface AzureVerifyOptions {
  /** The quote's extraData, hexadecimal. */
  readonly nonce?: string
  readonly insecureAnyNonce?: true
  /** PEM files. */
  readonly laboratoryRoot: readonly string[]
  /** What a policy demands of it; undefined where none was given. */
  readonly accept: readonly TeeRequirement[] | undefined
  /** When certificates and lists must be valid. */
  readonly time: Date
}

/**
 * Verifies a confidential VM of Azure and says what was proved, by whom, until when, and what was not.
 * @throws {EvidenceError}, {MalformedError} not genuine; {RefusedError} genuine, but debugged, without what vouches for it, or not what the policy accepts; {UsageError} no nonce
 */
export async function verifyOfAzure({ evidence: given, akKey }: AzureFiles, options: AzureVerifyOptions, output: Output): Promise<void> {
  const anyNonce = options.nonce === undefined
  if (anyNonce && options.insecureAnyNonce !== true)
    throw new UsageError("--nonce says which challenge the quote must answer (or --insecure-any-nonce to look at evidence of any age)")
  const laboratoryRoots = [...laboratoryRootsOf(options.accept ?? []), ...(await fingerprintsOf(options.laboratoryRoot))]
  const roots = (of: TeeEvidence): TeeRoots => teeRootsFor(of, laboratoryRoots)
  const time = options.time.getTime()
  const evidence = await withCachedCollateral(collateralFolder(), given, { roots, time })
  const { dcap, snp } = roots(evidence.hardware)
  const tee = verifyAzureVtpm(azureEvidenceOf(evidence), {
    quote: {
      extraData: options.nonce === undefined ? "as-signed" : parseHex(options.nonce, "--nonce"),
      selection: "as-signed",
      pcrs: evidence.pcrs,
    },
    snpRoots: snp,
    dcapRoots: dcap,
    time,
  })
  if (akKey !== undefined) checkKeyBeside(akKey, tee.claims)
  const appraisal = options.accept === undefined ? undefined : appraiseTee({ kind: "azure-vtpm", tee }, options.accept)
  tell(tee.claims, appraisal, options.time, output)
}

function tell(claims: AzureClaims, appraisal: TeeAppraisal | undefined, time: Date, output: Output): void {
  const { hardware } = claims
  const anyNonce = !claims.isNonceChecked
  const facts = azureFacts(claims, anyNonce)
  const faults = plainFaults(hardware)
  const until = new Date(validUntil(hardware)).toISOString()
  output.event({
    ...(faults.length === 0 && appraisal?.outcome !== "refused" ? { ok: true } : { event: "genuine" }),
    ...{ kind: claims.kind, fresh: !anyNonce, insecureLaboratory: isLaboratory(hardware), at: time.toISOString(), validUntil: until },
    claims: plainClaims(claims),
    ...factLists(facts),
    faults,
    ...(appraisal === undefined ? {} : { accepted: appraisal.outcome === "accepted", findings: appraisal.findings }),
  })
  if (isLaboratory(hardware)) output.line(`${insecureLaboratory}: it chains to a root that was given, not to a vendor's`, "warn")
  showFacts(facts, output)
  output.line()
  const isGood = faults.length === 0 && isCurrent(hardware) && !anyNonce
  output.line(`genuine: ${evidenceKinds[claims.kind].name}, valid until ${until}.`, isGood ? "good" : "plain")
  if (!isCurrent(hardware)) output.line(outdatedWords, "warn")
  const open = facts.filter(({ proved }) => !proved).map(({ what }) => what)
  output.line(`not proved: ${open.join("; ")}`, "warn")
  demandAcceptable(appraisal, output)
  if (faults.length > 0) throw new RefusedError(`genuine, but no policy takes it: ${faults.join("; ")}`)
  showAcceptable(appraisal, output)
}

/** The links of the chain in their order, then what no link of it shows. */
function azureFacts(claims: AzureClaims, anyNonce: boolean): readonly Fact[] {
  const { hardware, quote, vmConfiguration, unknownSettings } = claims
  const { resetCount, restartCount, safe } = quote.clockInfo
  const registers = quote.selection.map(({ bank, pcrs }) => `${bank} ${pcrs.join(",")}`).join("; ")
  const covers = fact("it covers what the paravisor says", true, `report data ${hardware.reportData} is SHA-256 of the runtime data, and zeros`)
  return [
    ...(hardware.kind === "snp" ? snpFacts(hardware, covers) : tdxFacts(hardware, covers)),
    fact("what the paravisor says of the VM", true, Object.entries(vmConfiguration).map(settingText).join(", ")),
    ...(unknownSettings.length === 0
      ? []
      : [fact("what those settings mean", false, `not known here: ${unknownSettings.map(printable).join(", ")}`)]),
    fact("what the guest had included", claims.userData !== undefined, claims.userData ?? "an older report has no user data"),
    fact(
      "the virtual TPM's key",
      true,
      `the paravisor names it: ${claims.attestationKey}${claims.quirks.map((quirk) => `, accepted ${quirk}`).join("")}`,
    ),
    fact(
      "it signs quotes only",
      quote.keyName !== undefined,
      quote.keyName === undefined ? "its public area was not given (ak.tpm2b-public)" : `a restricted key, name ${quote.keyName}`,
    ),
    fact("that key quoted registers", true, `${quote.scheme} over ${registers}`),
    ...[...quote.pcrs].flatMap(([bank, values]) => [...values].map(([pcr, value]) => fact(`what ${bank} PCR ${pcr} held`, true, value))),
    fact(
      "for this question",
      !anyNonce,
      anyNonce ? "any challenge was accepted" : "the quote's extraData equals the nonce given; the hardware's report is of the boot and answers none",
    ),
    fact("boot count and clock", true, `resetCount ${resetCount}, restartCount ${restartCount}, clock ${safe ? "safe" : "may have been set back"}`),
    fact("how the VM booted", false, "no log is read: the registers are digests only"),
    fact("the paravisor is honest", false, `it holds the virtual TPM's keys and can sign anything; ${whichParavisor(hardware)} says which one it is`),
  ]
}

function whichParavisor(hardware: AzureClaims["hardware"]): string {
  return hardware.kind === "snp" ? "MEASUREMENT with the image's signer" : "MRTD with MRSEAM"
}

function settingText([name, value]: readonly [string, unknown]): string {
  return printable(`${name} ${typeof value === "string" ? value : JSON.stringify(value)}`)
}

/** A key that lies beside the evidence must be the one that the paravisor names. */
function checkKeyBeside(pem: string, { attestationKey }: AzureClaims): void {
  const [path] = azureFiles.akKey
  const digest = ((): string => {
    try {
      return endorsementKeyDigest(createPublicKey(pem))
    } catch (cause) {
      throw new MalformedError("malformed", "no public key in PEM", { path, cause })
    }
  })()
  if (digest !== attestationKey) throw new EvidenceError("wrong-binding", `${digest}, the paravisor names ${attestationKey}`, { path })
}
