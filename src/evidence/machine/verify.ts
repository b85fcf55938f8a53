import type { Digest } from "../../bytes/digest.ts"
import { encodeHex } from "../../bytes/text.ts"
import { bindPieces } from "../bundle.ts"
import type { BoundTee, BoundTpm, DemandedPieces, MachineBundle, SessionFields } from "../bundle.ts"
import { Genuine } from "../genuine.ts"
import type { HostClaims } from "../host/claims.ts"
import { verifyHost } from "../host/verify.ts"
import type { HostExpectation } from "../host/verify.ts"
import type { TeeEvidence } from "../tee/format.ts"
import { verifyTee } from "../tee/verify.ts"
import type { GenuineTee, TeeExpectation } from "../tee/verify.ts"
import type { MachineClaims } from "./claims.ts"

export interface MachineExpectation {
  readonly demanded: DemandedPieces
  /** All of it from the verifier's own records, but for the key that the answer is sealed to. */
  readonly session: Omit<SessionFields, "deviceEvidence">
  /** How the TPM's piece is judged, where one is demanded. */
  readonly host?: Omit<HostExpectation, "extraData">
  /** UEFI log that this boot was judged by before, for a piece that comes without one. */
  readonly knownBootLog?: Uint8Array
  /** How the TEE's piece is judged, where one is demanded: its roots depend on what it is. */
  readonly tee?: (evidence: TeeEvidence) => Omit<TeeExpectation, "reportData">
}

/**
 * Verifies a machine's bundle: exactly the demanded pieces, each genuine, each made for this session, and all of one machine (see `bindPieces`).
 * @throws {MalformedError} form of any part
 * @throws {EvidenceError} `missing-piece`, `surplus-piece`, and as verifyHost and verifyTee
 */
export function verifyMachine(bundle: MachineBundle, expectation: MachineExpectation): Genuine<MachineClaims> {
  const bound = bindPieces(bundle, expectation.demanded, expectation.session)
  switch (bound.pieces) {
    case "tpm":
      return Genuine.afterVerification({ session: digestText(bound.tpm.extraData), host: hostOf(bound.tpm, expectation) })
    case "tee":
      return Genuine.afterVerification({ session: sessionIn(bound.tee), tee: teeOf(bound.tee, expectation) })
    case "tee-with-tpm": {
      // The TEE first: it covers the other piece.
      const tee = teeOf(bound.tee, expectation)
      return Genuine.afterVerification({ session: sessionIn(bound.tee), tee, host: hostOf(bound.tpm, expectation) })
    }
  }
}

function hostOf({ bundle, extraData }: BoundTpm, { host, knownBootLog }: MachineExpectation): HostClaims {
  if (host === undefined) throw new TypeError("a TPM is demanded, but not how it is judged")
  const whole = bundle.eventLog !== undefined || knownBootLog === undefined ? bundle : { ...bundle, eventLog: knownBootLog }
  return verifyHost(whole, { ...host, extraData }).claims
}

function teeOf({ evidence, reportData }: BoundTee, { tee }: MachineExpectation): GenuineTee {
  if (tee === undefined) throw new TypeError("a TEE is demanded, but not how it is judged")
  return verifyTee(evidence, { ...tee(evidence), reportData })
}

/** The first half of the report data; the other is zeros. */
function sessionIn({ reportData }: BoundTee): Digest {
  return digestText(reportData.subarray(0, sessionDigestBytes))
}

function digestText(bytes: Uint8Array): Digest {
  return `sha256:${encodeHex(bytes)}`
}

const sessionDigestBytes = 32
