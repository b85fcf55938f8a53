/**
 * Words of draft-ietf-rats-ar4si (Attestation Results for Secure Interactions): eight claims about an attester, each a small number whose range is its tier.
 */

/** Trustworthiness claims in the draft's JSON spelling. */
export const trustClaims = [
  "instance-identity",
  "configuration",
  "executables",
  "file-system",
  "hardware",
  "runtime-opaque",
  "storage-opaque",
  "sourced-data",
] as const

export type TrustClaim = (typeof trustClaims)[number]

/** Claims that a verifier makes; one that is absent says as little as one of value 0. */
export type TrustVector = Readonly<Partial<Record<TrustClaim, number>>>

/** From the best to the worst, but for `none`, which says nothing. */
export const trustTiers = ["none", "affirming", "warning", "contraindicated"] as const

export type TrustTier = (typeof trustTiers)[number]

/** Tier of a claim's value, -128 to 127: standard reasons are positive, a verifier's own ones negative. Section 2.3.2, Enumeration Encoding. */
export function tierOf(value: number): TrustTier {
  if (value >= -1 && value <= 1) return "none"
  // A verifier's own reasons lie one further from zero: -2 to -32, -33 to -96, -97 to -128.
  const size = value < 0 ? -value - 1 : value
  if (size < 32) return "affirming"
  return size < 96 ? "warning" : "contraindicated"
}

/** The tier of least trust; `none` only where nothing is claimed at all. */
export function worstTier(tiers: Iterable<TrustTier>): TrustTier {
  let worst = 0
  for (const tier of tiers) worst = Math.max(worst, trustTiers.indexOf(tier))
  return trustTiers[worst] ?? "contraindicated"
}

/** Whether a status claims no more trust than what it sums up: a verifier may say something worse, never something better. */
export function isNoBetterThan(status: TrustTier, worst: TrustTier): boolean {
  switch (worst) {
    case "none":
      return status !== "affirming"
    case "affirming":
      return true
    case "warning":
    case "contraindicated":
      return trustTiers.indexOf(status) >= trustTiers.indexOf(worst)
  }
}

export function worstOfVector(vector: TrustVector): TrustTier {
  return worstTier(Object.values(vector).map(tierOf))
}
