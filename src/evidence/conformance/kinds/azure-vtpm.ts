import { createPublicKey } from "node:crypto"
import { sha256 } from "../../../bytes/digest.ts"
import { MalformedError } from "../../../bytes/error.ts"
import { encodeHex, parseHex } from "../../../bytes/text.ts"
import { parsePemCertificates } from "../../../pki/certificate.ts"
import type { AzureClaims } from "../../azure/claims.ts"
import { parseHclReport } from "../../azure/format.ts"
import { parseRuntimeData } from "../../azure/runtime-data.ts"
import { verifyAzureVtpm } from "../../azure/verify.ts"
import type { AzureEvidence, AzureExpectation } from "../../azure/verify.ts"
import { loadAmdRoots } from "../../snp/roots.ts"
import { verifySnpReport } from "../../snp/verify.ts"
import { endorsementKeyDigest } from "../../tpm/endorsements.ts"
import type { VectorCase } from "../vector.ts"
import { tpmValues } from "./eventlog.ts"
import { cpuFact, endorsementsOf, reasonCodes, tcbFact, timeOf } from "./snp.ts"

/** `accept`: hardware, paravisor, attestation key and quote hang together; what is stated agrees; one changed byte anywhere, or another nonce, is refused. */
export function judgeAccept(vector: VectorCase): void {
  const { evidence, expectation } = materialOf(vector)
  const { claims } = verifyAzureVtpm(evidence, expectation)
  judgeFacts(vector, claims)
  judgeNegatives(vector, evidence, expectation)
}

/** `reject`: a link of the chain does not hold, for the stated reason; the others do. */
export function judgeReject(vector: VectorCase): void {
  const codes = reasonCodes(vector.facts.text("reason"))
  const report = parseHclReport(vector.file("hcl-report.bin"))
  judgeRuntimeData(vector, report.runtimeData)
  if (vector.optional("quote.msg") !== undefined) {
    const { evidence, expectation } = materialOf(vector)
    return vector.refused("the evidence", () => verifyAzureVtpm(evidence, expectation), ...codes)
  }
  // No quote: what can be judged is the hardware's report under the key that is given.
  const [name] = vector.names(/^vcek.*\.pem$/)
  const [signer] = name === undefined ? [] : parsePemCertificates(vector.text(name))
  if (signer === undefined) throw new MalformedError("malformed", "the case has neither a quote nor a VCEK", { path: vector.name })
  const issuers = ["ask.pem", "ark.pem"].flatMap((file) => parsePemCertificates(vector.text(file)))
  const endorsements = { signer, intermediates: issuers, revocationLists: [] }
  const reportData = new Uint8Array([...sha256(report.runtimeData), ...new Uint8Array(32)])
  const verify = (): unknown =>
    verifySnpReport({ report: report.hardware.report, endorsements }, { reportData, roots: loadAmdRoots(), time: signer.notBefore })
  vector.refused("the hardware's report", verify, ...codes)
}

interface Material {
  readonly evidence: AzureEvidence
  readonly expectation: AzureExpectation
}

function materialOf(vector: VectorCase): Material {
  const endorsements = endorsementsOf(vector)
  return {
    evidence: {
      hclReport: vector.file("hcl-report.bin"),
      hardware: { type: "snp", endorsements },
      quote: { attest: vector.file("quote.msg"), signature: { algorithm: "rsassa", hash: "sha256", signature: vector.file("quote.sig.raw") } },
      akPublic: "not-given",
    },
    expectation: {
      quote: { extraData: parseHex(vector.facts.text("nonce") ?? ""), selection: "as-signed", pcrs: tpmValues(vector.json("pcrs.json")) },
      snpRoots: loadAmdRoots(),
      time: timeOf(vector, endorsements),
    },
  }
}

function judgeFacts(vector: VectorCase, claims: AzureClaims): void {
  const report = parseHclReport(vector.file("hcl-report.bin"))
  vector.facts.check("hclVersion", () => claims.hclVersion)
  vector.facts.check("reportType", () => report.hardware.type)
  vector.facts.check("userData", () => claims.userData ?? null)
  vector.facts.check("vmConfiguration", () => claims.vmConfiguration)
  judgeRuntimeData(vector, report.runtimeData)
  vector.equal("settings that nobody knows", [...claims.unknownSettings], [])
  if (vector.optional("ak.pub.pem") !== undefined)
    vector.equal("attestation key", claims.attestationKey, endorsementKeyDigest(createPublicKey(vector.text("ak.pub.pem"))))
  const snp = vector.facts.object("snp")
  const { hardware } = claims
  snp?.check("ver", () => hardware.reportVersion)
  snp?.check("vmpl", () => hardware.vmpl)
  snp?.check("tcb", () => tcbFact(hardware.tcb.reported))
  snp?.check("fms", () => cpuFact(hardware.cpu === undefined ? {} : { cpu: hardware.cpu }))
  snp?.check("measurement", () => hardware.measurement)
  snp?.check("product", () => hardware.product)
}

function judgeRuntimeData(vector: VectorCase, runtimeData: Uint8Array): void {
  parseRuntimeData(runtimeData)
  vector.facts.check("runtimeDataSha256", () => encodeHex(sha256(runtimeData)))
  const beside = vector.optional("runtime-data.json")
  if (beside !== undefined) vector.equal("runtime-data.json", encodeHex(beside), encodeHex(runtimeData))
}

function judgeNegatives(vector: VectorCase, evidence: AzureEvidence, expectation: AzureExpectation): void {
  const verify = (changed: Partial<AzureEvidence>, quote: Partial<AzureExpectation["quote"]> = {}): unknown =>
    verifyAzureVtpm({ ...evidence, ...changed }, { ...expectation, quote: { ...expectation.quote, ...quote } })
  vector.refused("another nonce", () => verify({}, { extraData: new Uint8Array(32).fill(1) }), "wrong-nonce")
  const { attest } = evidence.quote
  vector.refused("a changed quote", () => verify({ quote: { ...evidence.quote, attest: flip(attest, attest.length - 1) } }), "wrong-signature")
  vector.refused("changed runtime data", () => verify({ hclReport: flip(evidence.hclReport, vmIdOffset(evidence.hclReport)) }), "wrong-binding")
  vector.refused("a changed hardware report", () => verify({ hclReport: flip(evidence.hclReport, hardwareMeasurementOffset) }))
  const [[bank, values] = ["", new Map<number, string>()]] = expectation.quote.pcrs
  const pcrs = new Map([[bank, new Map(values).set(0, "00".repeat(32))]])
  vector.refused("another register value", () => verify({}, { pcrs }), "pcr-mismatch")
}

function flip(bytes: Uint8Array, at: number): Uint8Array {
  return Uint8Array.from(bytes, (byte, place) => (place === at ? byte ^ 1 : byte))
}

/** A digit of the VM's id: the JSON stays JSON. */
function vmIdOffset(report: Uint8Array): number {
  return Buffer.from(report).indexOf('"vmUniqueId":"') + '"vmUniqueId":"'.length
}

/** MEASUREMENT in the hardware's report; in a TD report, TEE_TCB_SVN and its like. */
const hardwareMeasurementOffset = 0x20 + 0x90
