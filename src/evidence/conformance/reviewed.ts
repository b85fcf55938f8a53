/** A case whose statement this verifier does not follow, after review. */
export interface ReviewedDifference {
  readonly kind: string
  readonly case: string
  readonly reason: string
}

/**
 * Where specification (or our own rule) and a case disagree, the specification wins, and a line here says why. docs/conformance.md shows the same lines;
 * a test holds the two together, and a line whose case agrees again fails.
 */
export const reviewedDifferences: readonly ReviewedDifference[] = [
  {
    kind: "ek-certs",
    case: "nuvoton-ecc-non-canonical-der",
    reason:
      "The file is no endorsement certificate but Nuvoton's own root (CA:TRUE, key usage certificate signing): it is read, and refused in the role of an endorsement certificate as the TCG EK Credential Profile demands.",
  },
]
