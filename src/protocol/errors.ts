import { PerunError } from "../bytes/error.ts"

/**
 * What can go wrong between programs, besides the form of messages. Codes of other rooms (evidence, pki, policy, sealing) travel under their own
 * name; problem.ts holds the HTTP status of all of them.
 */
export const protocolCodes = {
  unauthenticated: "the call carries no proof of who makes it",
  "wrong-session": "the session statement is expired, or was made for another manager or another TLS key",
  "not-permitted": "the caller is known, but this is not for it",
  "not-found": "there is no such thing, or it is not for the caller to know",
  "method-not-allowed": "the address exists, but not with this method",
  "wrong-state": "the thing is in a state in which this cannot be done",
  "already-exists": "the name is taken by something else, and names are not reused",
  "wrong-digest": "the content does not have the digest that names it",
  "wrong-manager": "the peer is not the manager whose key is pinned",
  contradicting: "two answers of the manager do not fit each other",
  "wrong-tls-key": "the peer's TLS key is not the one that the manager's description names",
  "wrong-message": "a sealed message does not open: other key, other context, or changed",
  "challenge-unknown": "the challenge was never issued, or was forgotten after it expired",
  "challenge-used": "the challenge was answered before; each is good for one answer",
  "challenge-expired": "the challenge is older than its time",
  "challenge-binding": "the challenge was issued for another purpose, lease or TLS key",
  "not-enrolled": "no host of this name is enrolled, or it is retired",
  "wrong-answer": "the enrolment was not answered with the secret that only the TPM can open",
  "policy-expired": "the policy is past its time",
  "policy-withdrawn": "an owner withdrew its consent; this is final",
  "policy-inactive": "the policy is not active: signatures are missing, or a successor took its place",
  "lease-ended": "the lease is over: by time, by a refusal, or because consent was withdrawn",
  "reboot-detected": "the machine was restarted since the lease began; a lease does not outlive a boot",
  "not-acceptable": "the machine is genuine, but not what the policy asks for",
  "no-runs-left": "the job has run as often as the policy allows",
  "votes-missing": "the votes that the policy asks for are not all there",
  "check-missing": "a checker's signature counts only with a report of what it checked, and came without one",
  "wrong-check": "a checker's report is about something else, not signed by that checker, or says that a check failed",
  "wrong-report": "the report of a run says what the policy does not let it say",
  "wrong-metrics": "the values do not fit the schema that the policy gives for metrics",
  "limit-exceeded": "more of this than the policy or the manager allows",
  locked: "the manager was started and has not got its vault key yet: its custodians have to unlock it",
  "wrong-share": "the share of a vault key is not the one that was made for this custodian",
  "time-unchecked": "the manager's time is not borne out by the authority that checks it; what rests on time is not granted meanwhile",
  "not-ready": "the manager answers, but cannot do its work now",
  "too-many-requests": "the manager is loaded; come back later",
  "wrong-result": "the attestation result is not the manager's, or not for this nonce, audience, time or policy",
  "wrong-secret": "the value is not the one that the policy's commitment was made of",
  "wrong-receipts": "the list of receipts is not the one seen before, or not signed by the manager",
  "wrong-run-certificate": "the run certificate does not prove what it must, or parts of it are of different things",
  "store-changed": "a record of the manager's database is not the one that was written",
  "store-set-back":
    "the manager's database is of an earlier time than the counter that it is bound to; nothing is released under what was agreed before",
  internal: "the program is at fault",
} as const satisfies Record<string, string>

export type ProtocolCode = keyof typeof protocolCodes

/** A refusal or fault that one program reports to another. */
export class ProtocolError extends PerunError<ProtocolCode> {}
