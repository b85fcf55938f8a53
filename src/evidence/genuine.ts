const proof: unique symbol = Symbol("made by a verify.ts")

/**
 * Claims behind which a complete verification stands: signatures, freshness and logs. Only files named `verify.ts` under `evidence/` may call
 * `Genuine.afterVerification`; `scripts/arrows.ts` enforces it. Policy accepts claims in this form only, so a forgotten verification does not compile.
 */
export class Genuine<Claims> {
  readonly claims: Claims
  readonly [proof]: true

  private constructor(claims: Claims) {
    this.claims = claims
    this[proof] = true
    Object.freeze(this)
  }

  /** For `verify.ts` files only, as the last step after every check has passed. */
  static afterVerification<Claims>(claims: Claims): Genuine<Claims> {
    return new Genuine(claims)
  }
}
