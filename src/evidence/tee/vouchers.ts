import * as z from "zod"
import { bytesEqual } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { canonicalJson, parseJson } from "../../bytes/json.ts"
import { encodeDcapCollateral, parseDcapCollateral, type DcapCollateral } from "../dcap/endorsements.ts"
import type { SnpEndorsements } from "../snp/endorsements.ts"
import { hardwareOf, withHardware, type TeeEvidence } from "./format.ts"
import {
  decodeEndorsements,
  encodeEndorsements,
  endorsementsSchema,
  maxTeeEvidenceBytes,
  type HardwareEvidence,
  type HardwareKind,
} from "./hardware.ts"

/**
 * What vouches for a platform, in a file of its own: Intel's collateral (`dcap-collateral`), or the certificates and the revocation list of AMD
 * (`snp-endorsements`). Whoever made the file is not believed; verifyTee judges what is in it.
 */
export type Vouchers = DcapCollateral | SnpEndorsements

const snpFileSchema = z.strictObject({ perun: z.literal(1), kind: z.literal("snp-endorsements"), ...endorsementsSchema.shape })

/**
 * Reads the file that goes with this kind of hardware.
 * @throws {MalformedError} `malformed` (also for a file of the other maker), `duplicate`, `unknown-field`, `too-large`, and what certificates and lists throw
 */
export function parseVouchers(kind: HardwareKind, text: Uint8Array | string): Vouchers {
  if (kind !== "snp") return parseDcapCollateral(text)
  const parsed = snpFileSchema.safeParse(parseJson(text, { maxBytes: maxTeeEvidenceBytes }))
  if (parsed.success) return decodeEndorsements(parsed.data)
  const [issue] = parsed.error.issues
  const code = issue?.code === "unrecognized_keys" ? "unknown-field" : issue?.code === "too_big" ? "too-large" : "malformed"
  throw new MalformedError(code, issue?.message.toLowerCase() ?? "no endorsements of AMD", {
    path: ["collateral", ...(issue?.path ?? [])].join("."),
    cause: parsed.error,
  })
}

/** The file's text for what vouches for this evidence. @throws {TypeError} where the evidence brings nothing */
export function encodeVouchers(evidence: TeeEvidence): string {
  const hardware = hardwareOf(evidence)
  const vouchers = hardware.kind === "snp" ? hardware.endorsements : hardware.collateral
  if (vouchers === undefined) throw new TypeError("nothing vouches for this evidence")
  if (!("signer" in vouchers)) return encodeDcapCollateral(vouchers)
  return canonicalJson({ perun: 1, kind: "snp-endorsements", ...encodeEndorsements(vouchers) })
}

/** What vouches for evidence, put to it in the place of what it brought. @throws {TypeError} for what goes with another kind */
export function withVouchers(evidence: HardwareEvidence, vouchers: Vouchers): HardwareEvidence
export function withVouchers(evidence: TeeEvidence, vouchers: Vouchers): TeeEvidence
export function withVouchers(evidence: TeeEvidence, vouchers: Vouchers): TeeEvidence {
  return withHardware(evidence, vouchedHardware(hardwareOf(evidence), vouchers))
}

function vouchedHardware(evidence: HardwareEvidence, vouchers: Vouchers): HardwareEvidence {
  if (evidence.kind === "snp") {
    if (!("signer" in vouchers)) throw new TypeError("collateral of Intel does not go with a report of AMD")
    return { ...evidence, endorsements: vouchers }
  }
  if ("signer" in vouchers) throw new TypeError("endorsements of AMD do not go with a quote of Intel")
  return { ...evidence, collateral: vouchers }
}

/** Evidence as its device made it: without what vouches for it. */
export function withoutVouchers(evidence: TeeEvidence): TeeEvidence {
  const hardware = hardwareOf(evidence)
  if (hardware.kind === "snp") return withHardware(evidence, { kind: "snp", report: hardware.report })
  const { collateral: _unused, ...bare } = hardware
  return withHardware(evidence, bare)
}

/**
 * Evidence as a device gave it, with what a file adds. Of a report of SEV-SNP the host's own certificate of the signing key stays where there is one, for it follows the
 * firmware; issuers are joined, and the file's revocation list counts, for hosts hand out none or an old one.
 * @throws {TypeError} for what goes with another kind
 */
export function supplementedBy(evidence: HardwareEvidence, vouchers: Vouchers): HardwareEvidence
export function supplementedBy(evidence: TeeEvidence, vouchers: Vouchers): TeeEvidence
export function supplementedBy(evidence: TeeEvidence, vouchers: Vouchers): TeeEvidence {
  const hardware = hardwareOf(evidence)
  if (hardware.kind !== "snp" || hardware.endorsements === undefined || !("signer" in vouchers)) return withVouchers(evidence, vouchers)
  const { endorsements: own } = hardware
  const more = vouchers.intermediates.filter(({ der }) => !own.intermediates.some((known) => bytesEqual(known.der, der)))
  return withHardware(evidence, {
    ...hardware,
    endorsements: {
      ...own,
      intermediates: [...own.intermediates, ...more],
      revocationLists: vouchers.revocationLists.length > 0 ? vouchers.revocationLists : own.revocationLists,
    },
  })
}
