import type { KeyObject } from "node:crypto"
import { CompactSign, compactVerify, errors } from "jose"
import { z } from "zod"
import type { Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { encodeUtf8, parseBase64Url } from "../bytes/text.ts"
import { isNoBetterThan, tierOf, type TrustTier, type TrustVector, trustClaims, trustTiers, worstOfVector, worstTier } from "../policy/ar4si.ts"
import { ProtocolError } from "./errors.ts"
import { audienceSchema, maxResultBytes, resultNonceSchema } from "./messages.ts"
import { digestSchema, idSchema, nameSchema, parseMessage } from "./wire.ts"

/**
 * Attestation results for others: an EAT Attestation Result (draft-ietf-rats-ear-04) as JWT, signed ES384 by the manager's result key. Made only from what was
 * appraised; read strictly, but for claims that are unknown, which the draft says to ignore.
 */

/** Claim `eat_profile`. */
export const earProfile = "tag:ietf.org,2026:rats/ear#04"
/** Who this verifier is: `ear_verifier_id`. The version is the program's, as in package.json. */
export const verifierId = { developer: "perun", build: "perun 0.1.0" } as const

const algorithm = "ES384"
/** RFC 9782, EAT in JWS: a token of another kind that the same key signed is none of these. */
const tokenType = "eat+jwt"

/** How far the manager's clock may be ahead of the reader's. */
const clockSkewSeconds = 60

const tierSchema = z.enum(trustTiers)
const valueSchema = z.int().min(-128).max(127)
/** Up to the end of the year 9999: what is later has no date to be shown as. */
const secondsSchema = z.int().min(0).max(253_402_300_799)
const vectorShape = Object.fromEntries(trustClaims.map((claim) => [claim, valueSchema.exactOptional()]))

const appraisalSchema = z.looseObject({
  ear_status: tierSchema,
  ear_trustworthiness_vector: z.looseObject(vectorShape),
  ear_appraisal_policy_ids: z.array(digestSchema).length(1),
  ear_verifier_claims: z.looseObject({ perun_findings: z.array(z.string().max(64)).max(256), perun_laboratory: z.boolean() }),
})

const claimsSchema = z.looseObject({
  eat_profile: z.string().max(256),
  eat_nonce: resultNonceSchema,
  aud: audienceSchema,
  iat: secondsSchema,
  exp: secondsSchema,
  ear_status: tierSchema,
  ear_verifier_id: z.looseObject({ developer: z.string().max(256), build: z.string().max(256) }),
  submods: z.record(nameSchema, appraisalSchema).refine((submods) => Object.keys(submods).length > 0, "expected at least one submodule"),
  perun_manager: idSchema,
  perun_run: idSchema,
  perun_job: nameSchema,
  perun_evidence: digestSchema,
  perun_appraised: secondsSchema,
  perun_laboratory: z.boolean(),
})

const headerSchema = z.strictObject({ alg: z.string().max(16), typ: z.string().max(32) })

/** What is said of one separately appraised piece: `tpm`, `tdx`, `sgx` or `snp`. */
export interface AppraisedSubmodule {
  readonly status: TrustTier
  readonly vector: TrustVector
  /** Codes of policy/findings.ts, or of evidence/errors.ts where the evidence is not genuine. */
  readonly findings: readonly string[]
  /** It chains to a laboratory root. */
  readonly laboratory: boolean
}

/** Content of an attestation result. Times are whole seconds since 1970. */
export interface AttestationResult {
  readonly nonce: string
  readonly audience: string
  readonly issuedAt: number
  /** No later than the end of the machine's lease. */
  readonly expiresAt: number
  /** When the evidence was appraised. */
  readonly appraisedAt: number
  /** Worst of the submodules. */
  readonly status: TrustTier
  readonly submodules: Readonly<Record<string, AppraisedSubmodule>>
  readonly policy: Digest
  /** Instance of the manager. */
  readonly manager: string
  readonly run: string
  readonly job: string
  readonly evidence: Digest
  /** INSECURE LABORATORY: of the machine, or of what it works on. */
  readonly laboratory: boolean
}

/** What is signed; the overall status follows from the submodules. */
export type ResultFacts = Omit<AttestationResult, "status">

/** Signs a result with the manager's result key (P-384). */
export async function signAttestationResult(facts: ResultFacts, resultKey: KeyObject): Promise<string> {
  const submods = Object.fromEntries(
    Object.entries(facts.submodules).map(([name, { status, vector, findings, laboratory }]) => [
      name,
      {
        ear_status: status,
        ear_trustworthiness_vector: vector,
        ear_appraisal_policy_ids: [facts.policy],
        ear_verifier_claims: { perun_findings: findings, perun_laboratory: laboratory },
      },
    ]),
  )
  const claims = {
    eat_profile: earProfile,
    eat_nonce: facts.nonce,
    aud: facts.audience,
    iat: facts.issuedAt,
    exp: facts.expiresAt,
    ear_status: worstTier(Object.values(facts.submodules).map(({ status }) => status)),
    ear_verifier_id: verifierId,
    submods,
    perun_manager: facts.manager,
    perun_run: facts.run,
    perun_job: facts.job,
    perun_evidence: facts.evidence,
    perun_appraised: facts.appraisedAt,
    perun_laboratory: facts.laboratory,
  }
  return new CompactSign(canonicalJsonBytes(claims)).setProtectedHeader({ alg: algorithm, typ: tokenType }).sign(resultKey)
}

export interface ResultExpectation {
  /** The manager's result key, P-384. */
  readonly key: KeyObject
  /** What the relying party drew; `any` says nothing about when it was asked for. */
  readonly nonce: string | "insecure-any"
  readonly audience: string
  /** Milliseconds since 1970. */
  readonly time: number
  /** Digest of the policy that the machine must have been held against. */
  readonly policy: Digest
}

/**
 * Verifies an attestation result: signature, profile, freshness, audience, times, policy, and that no status is better than what it sums up. Whether its status is
 * enough is for the caller to say.
 * @throws {MalformedError} form
 * @throws {ProtocolError} `wrong-result`; `path` names the claim
 */
export async function verifyAttestationResult(token: string, expected: ResultExpectation): Promise<AttestationResult> {
  const claims = parseMessage(claimsSchema, await openToken(token, expected.key), maxResultBytes)
  demand(claims.eat_profile === earProfile, "eat_profile", claims.eat_profile, earProfile)
  if (expected.nonce !== "insecure-any") demand(claims.eat_nonce === expected.nonce, "eat_nonce", claims.eat_nonce, expected.nonce)
  demand(claims.aud === expected.audience, "aud", claims.aud, expected.audience)
  checkTimes(claims, expected.time / 1000)
  const submodules = Object.entries(claims.submods).map(([name, submod]) => {
    const path = `submods.${name}`
    const [policy = ""] = submod.ear_appraisal_policy_ids
    demand(policy === expected.policy, `${path}.ear_appraisal_policy_ids`, policy, expected.policy)
    const vector = vectorOf(submod.ear_trustworthiness_vector)
    const worst = worstOfVector(vector)
    demand(isNoBetterThan(submod.ear_status, worst), `${path}.ear_status`, submod.ear_status, `no better than ${worst}`)
    const { perun_laboratory: laboratory, perun_findings: findings } = submod.ear_verifier_claims
    demand(!(laboratory && tierOf(vector.hardware ?? 0) === "affirming"), `${path}.hardware`, "affirming", "a warning at best: INSECURE LABORATORY")
    demand(!laboratory || claims.perun_laboratory, "perun_laboratory", "false", `true, as of ${name}`)
    return [name, { status: submod.ear_status, vector, findings, laboratory }] as const
  })
  const worst = worstTier(submodules.map(([, { status }]) => status))
  demand(isNoBetterThan(claims.ear_status, worst), "ear_status", claims.ear_status, `no better than ${worst}`)
  return {
    nonce: claims.eat_nonce,
    audience: claims.aud,
    issuedAt: claims.iat,
    expiresAt: claims.exp,
    appraisedAt: claims.perun_appraised,
    status: claims.ear_status,
    submodules: Object.fromEntries(submodules),
    policy: expected.policy,
    manager: claims.perun_manager,
    run: claims.perun_run,
    job: claims.perun_job,
    evidence: claims.perun_evidence,
    laboratory: claims.perun_laboratory,
  }
}

/** The signed bytes. Header and parts are read strictly first, so that one result has one token but for its signature. */
async function openToken(token: string, key: KeyObject): Promise<Uint8Array> {
  if (token.length > maxResultBytes)
    throw new MalformedError("too-large", `${token.length} letters, at most ${maxResultBytes} are allowed`, { path: "token" })
  const [header = "", , signature = "", ...rest] = token.split(".")
  if (signature === "" || rest.length > 0) throw new MalformedError("malformed", "not header, claims and signature of a JWS", { path: "token" })
  const { alg, typ } = parseMessage(headerSchema, parseBase64Url(header, "token.header"), maxResultBytes)
  demand(alg === algorithm, "alg", alg, algorithm)
  demand(typ === tokenType, "typ", typ, tokenType)
  parseBase64Url(signature, "token.signature")
  if (key.asymmetricKeyDetails?.namedCurve !== "secp384r1") throw new ProtocolError("wrong-result", "the result key is not on P-384", { path: "key" })
  try {
    const { payload } = await compactVerify(encodeUtf8(token), key, { algorithms: [algorithm] })
    return payload
  } catch (cause) {
    if (!(cause instanceof errors.JOSEError)) throw cause
    throw new ProtocolError("wrong-result", "not signed by the manager's result key", { path: "signature", cause })
  }
}

function checkTimes({ iat, exp, perun_appraised: appraised }: z.output<typeof claimsSchema>, now: number): void {
  demand(iat <= now + clockSkewSeconds, "iat", timeText(iat), `at most ${clockSkewSeconds} s after ${timeText(now)}`)
  demand(exp > now, "exp", timeText(exp), `after ${timeText(now)}`)
  demand(exp > iat, "exp", timeText(exp), `after iat, ${timeText(iat)}`)
  demand(appraised <= iat, "perun_appraised", timeText(appraised), `no later than iat, ${timeText(iat)}`)
}

function vectorOf(found: Readonly<Record<string, unknown>>): TrustVector {
  return Object.fromEntries(
    trustClaims.flatMap((claim) => {
      const value = found[claim]
      return typeof value === "number" ? [[claim, value] as const] : []
    }),
  )
}

function demand(holds: boolean, path: string, found: string, expected: string): void {
  if (!holds) throw new ProtocolError("wrong-result", `found ${found}, expected ${expected}`, { path })
}

function timeText(seconds: number): string {
  return new Date(seconds * 1000).toISOString()
}
