import { teeIdentity } from "../evidence/tee/identity.ts"
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
  /** Measurements that cannot change while the program runs, by name, lower-case hexadecimal. */
  readonly measurements: Readonly<Record<string, string>>
}

export function teeSession(evidence: GenuineTee): TeeSession {
  return { kind: evidence.kind, platform: teeIdentity(evidence).platform, measurements: measurementsOf(evidence) }
}

/** RTMR3 is software's own to extend at any time; policy judges it at each renewal. */
function measurementsOf(evidence: GenuineTee): TeeSession["measurements"] {
  switch (evidence.kind) {
    case "tdx": {
      const { mrTd, rtmrs } = evidence.tee.claims
      return { MRTD: mrTd, RTMR0: rtmrs[0], RTMR1: rtmrs[1], RTMR2: rtmrs[2] }
    }
    case "sgx": {
      const { mrEnclave, mrSigner } = evidence.tee.claims
      return { MRENCLAVE: mrEnclave, MRSIGNER: mrSigner }
    }
    case "snp": {
      // REPORT_ID is drawn anew for each launch of a guest.
      const { measurement, reportId } = evidence.tee.claims
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
