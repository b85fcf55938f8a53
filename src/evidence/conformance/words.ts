import * as azure from "./kinds/azure-vtpm.ts"
import * as dcap from "./kinds/dcap.ts"
import * as ekCerts from "./kinds/ek-certs.ts"
import * as eventlog from "./kinds/eventlog.ts"
import * as host from "./kinds/host.ts"
import * as ima from "./kinds/ima.ts"
import * as snp from "./kinds/snp.ts"
import * as tpm from "./kinds/tpm.ts"
import type { VectorCase } from "./vector.ts"

export interface WordRule {
  readonly kind: string
  readonly word: string
  /** Only for the case of this name: for words that mean nothing by themselves. */
  readonly case?: string
  /** Marks every fact and file that it reads, and reports each disagreement to the case. */
  readonly judge: (vector: VectorCase) => void | Promise<void>
}

/** Every word that `expect` may hold, by kind of evidence, after the README of the cases that use it. A word that is not here is not judged. */
export const wordRules: readonly WordRule[] = [
  { kind: "eventlog", word: "replay", judge: eventlog.judgeReplay },
  { kind: "eventlog", word: "accept", judge: eventlog.judgeReplay },
  { kind: "eventlog", word: "reject", judge: eventlog.judgeReject },
  { kind: "eventlog", word: "parse", judge: eventlog.judgeParse },
  { kind: "eventlog", word: "no-crash", judge: eventlog.judgeNoCrash },
  { kind: "eventlog", word: "sha256-ok-sha1-mismatch", judge: eventlog.judgeSha256Only },
  { kind: "eventlog", word: "pcr5-mismatch-unless-ebs-workaround", judge: eventlog.judgeMissingExit },
  { kind: "ima", word: "replay", judge: ima.judgeReplay },
  { kind: "ima", word: "accept", judge: ima.judgeAccept },
  { kind: "ima", word: "reject", judge: ima.judgeReject },
  { kind: "ima", word: "see README", case: "keylime-ima-sig-signatures", judge: ima.judgeKeylimeSignatures },
  { kind: "host", word: "accept", judge: host.judgeAccept },
  { kind: "host", word: "reject", judge: host.judgeReject },
  { kind: "tpm", word: "accept", judge: tpm.judgeAccept },
  { kind: "tpm", word: "accept-if-sha1-allowed", judge: tpm.judgeSha1 },
  { kind: "tpm", word: "accept-sha256-reject-sha1-log", judge: tpm.judgeSha256Only },
  { kind: "tpm", word: "quote-ok-log-reject", judge: tpm.judgeLogRejected },
  { kind: "tpm", word: "pcr-digest-ok", judge: tpm.judgeDigestOnly },
  { kind: "tpm", word: "reject", judge: tpm.judgeReject },
  { kind: "ek-certs", word: "accept", judge: ekCerts.judgeAccept },
  { kind: "ek-certs", word: "accept-if-sha1-and-oaep-allowed", judge: ekCerts.judgeOld },
  { kind: "ek-certs", word: "load", judge: ekCerts.judgeLoad },
  { kind: "ek-certs", word: "reject", judge: ekCerts.judgeReject },
  { kind: "snp", word: "accept", judge: snp.judgeAccept },
  { kind: "snp", word: "signature-ok-policy-reject", judge: snp.judgeDebug },
  { kind: "snp", word: "reject", judge: snp.judgeReject },
  { kind: "azure-vtpm", word: "accept", judge: azure.judgeAccept },
  { kind: "azure-vtpm", word: "reject", judge: azure.judgeReject },
  { kind: "sgx", word: "accept", judge: dcap.judgeAccept },
  { kind: "sgx", word: "accept-without-collateral", judge: dcap.judgeWithoutCollateral },
  { kind: "sgx", word: "outofdate", judge: dcap.judgeOutOfDate },
  { kind: "sgx", word: "debug-enclave", judge: dcap.judgeDebug },
  { kind: "sgx", word: "reject", judge: dcap.judgeReject },
  { kind: "sgx", word: "signature-ok-tcb-reject", judge: dcap.judgeTcbReject },
  { kind: "sgx", word: "reject-with-intel-root", judge: dcap.judgeSample },
  { kind: "tdx", word: "accept", judge: dcap.judgeAccept },
  { kind: "tdx", word: "accept-without-collateral", judge: dcap.judgeWithoutCollateral },
  { kind: "tdx", word: "outofdate", judge: dcap.judgeOutOfDate },
  { kind: "tdx", word: "debug-enclave", judge: dcap.judgeDebug },
  { kind: "tdx", word: "reject", judge: dcap.judgeReject },
  { kind: "tdx", word: "signature-ok-tcb-reject", judge: dcap.judgeTcbReject },
  { kind: "tdx", word: "reject-with-intel-root", judge: dcap.judgeSample },
]
