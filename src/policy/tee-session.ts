import type { AzureClaims } from "../evidence/azure/claims.ts"
import { hardwareClaims, teeIdentity, type HardwareClaims } from "../evidence/tee/identity.ts"
import type { GenuineTee } from "../evidence/tee/verify.ts"
import type { Finding } from "./findings.ts"
import { finding } from "./findings.ts"

/**
 * What of a TEE stays as it is as long as it lives; a lease is pinned to it. No TDX quote says that a TD was started again, so the agent's TLS key, which dies with the
 * agent, pins the lease too. Plain JSON.
 */
export interface TeeSession {
  readonly kind: GenuineTee["kind"]
  /** As in `TeeIdentity`. */
  readonly platform: string | null
  /** Measurements and counters that cannot change while the program runs, by name. */
  readonly measurements: Readonly<Record<string, string>>
}

export function teeSession(evidence: GenuineTee): TeeSession {
  return { kind: evidence.kind, platform: teeIdentity(evidence).platform, measurements: measurementsOf(evidence) }
}

/** RTMR3 is software's own to extend at any time; policy judges it at each renewal. */
function measurementsOf(evidence: GenuineTee): TeeSession["measurements"] {
  const hardware = hardwareMeasurements(hardwareClaims(evidence))
  return evidence.kind === "azure-vtpm" ? { ...hardware, ...bootOf(evidence.tee.claims) } : hardware
}

/** The virtual TPM counts boots; registers from 10 on are the system's to extend at any time, and policy judges them at each renewal. */
function bootOf({ attestationKey, quote }: AzureClaims): TeeSession["measurements"] {
  const { resetCount, restartCount } = quote.clockInfo
  const registers = [...(quote.pcrs.get("sha256") ?? [])].filter(([pcr]) => pcr < firstOfSystem)
  return {
    HCLAkPub: attestationKey,
    resetCount: String(resetCount),
    restartCount: String(restartCount),
    ...Object.fromEntries(registers.map(([pcr, value]) => [`PCR${pcr}`, value])),
  }
}

/** IMA's register. Those before it are written by firmware and boot loaders, or by the kernel before its first program. */
const firstOfSystem = 10

function hardwareMeasurements(claims: HardwareClaims): TeeSession["measurements"] {
  switch (claims.kind) {
    case "tdx": {
      const { mrTd, rtmrs } = claims
      return { MRTD: mrTd, RTMR0: rtmrs[0], RTMR1: rtmrs[1], RTMR2: rtmrs[2] }
    }
    case "sgx": {
      const { mrEnclave, mrSigner } = claims
      return { MRENCLAVE: mrEnclave, MRSIGNER: mrSigner }
    }
    case "snp": {
      // REPORT_ID is drawn anew for each launch of a guest.
      const { measurement, reportId } = claims
      return { MEASUREMENT: measurement, REPORT_ID: reportId }
    }
  }
}

/** What differs from the TEE that the lease was given to. */
export function teeSessionFindings(now: TeeSession, previous: TeeSession | undefined): readonly Finding[] {
  const before = previous === undefined ? { TEE: "none" } : facts(previous)
  const found = facts(now)
  return Object.entries(before).flatMap(([name, value]) =>
    found[name] === value ? [] : [finding("boot-session-changed", name, found[name] ?? "none", value)],
  )
}

function facts({ kind, platform, measurements }: TeeSession): Readonly<Record<string, string>> {
  return { TEE: kind, platform: platform ?? "masked", ...measurements }
}
