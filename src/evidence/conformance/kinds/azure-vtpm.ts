import { createPublicKey } from "node:crypto"
import { sha256 } from "../../../bytes/digest.ts"
import { MalformedError } from "../../../bytes/error.ts"
import { encodeHex, parseHex, parseUtf8 } from "../../../bytes/text.ts"
import { parsePemCertificates, spkiDigest } from "../../../pki/certificate.ts"
import type { AzureClaims } from "../../azure/claims.ts"
import { parseHclReport } from "../../azure/format.ts"
import { parseRuntimeData } from "../../azure/runtime-data.ts"
import { verifyAzureVtpm } from "../../azure/verify.ts"
import type { AzureEvidence, AzureExpectation } from "../../azure/verify.ts"
import { loadIntelSgxRoot } from "../../dcap/roots.ts"
import { loadAmdRoots } from "../../snp/roots.ts"
import { verifySnpReport } from "../../snp/verify.ts"
import { parseTdxQuote } from "../../tdx/format.ts"
import { endorsementKeyDigest, parseStoredCertificate } from "../../tpm/endorsements.ts"
import type { VectorCase } from "../vector.ts"
import { collateralOf } from "./dcap.ts"
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
  const hardware = hardwareOf(vector)
  const quote = {
    attest: vector.file("quote.msg"),
    signature: { algorithm: "rsassa", hash: "sha256", signature: vector.file("quote.sig.raw") },
  } as const
  return {
    evidence: { hclReport: vector.file("hcl-report.bin"), hardware, quote, akPublic: "not-given" },
    expectation: {
      quote: { extraData: parseHex(vector.facts.text("nonce") ?? ""), selection: "as-signed", pcrs: tpmValues(vector.json("pcrs.json")) },
      snpRoots: loadAmdRoots(),
      dcapRoots: [loadIntelSgxRoot()],
      time: judgingTime(vector, hardware),
    },
  }
}

function hardwareOf(vector: VectorCase): AzureEvidence["hardware"] {
  const quote = vector.optional("td-quote.bin")
  return quote === undefined ? { type: "snp", endorsements: endorsementsOf(vector) } : { type: "tdx", quote, collateral: collateralOf(vector) }
}

/** The stated time; a case that states none is judged on the first day of the key's certificate, as are its siblings. */
function judgingTime(vector: VectorCase, hardware: AzureEvidence["hardware"]): number {
  if (hardware.type === "snp") return timeOf(vector, hardware.endorsements)
  const stated = vector.facts.text("verifyTime")
  if (stated !== undefined) return Date.parse(stated)
  const [pck] = parsePemCertificates(parseUtf8(parseTdxQuote(hardware.quote).signature.certification.data).replaceAll("\0", ""))
  if (pck === undefined) throw new MalformedError("malformed", "the quote has no certificate", { path: vector.name })
  return pck.notBefore
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
  judgeCertificate(vector, claims)
  judgeHardware(vector, claims.hardware)
}

function judgeHardware(vector: VectorCase, hardware: AzureClaims["hardware"]): void {
  if (hardware.kind === "snp") {
    const snp = vector.facts.object("snp")
    snp?.check("ver", () => hardware.reportVersion)
    snp?.check("vmpl", () => hardware.vmpl)
    snp?.check("tcb", () => tcbFact(hardware.tcb.reported))
    snp?.check("fms", () => cpuFact(hardware.cpu === undefined ? {} : { cpu: hardware.cpu }))
    snp?.check("measurement", () => hardware.measurement)
    snp?.check("product", () => hardware.product)
    return
  }
  const { dcap } = hardware
  const td = vector.facts.object("td")
  td?.check("fmspc", () => dcap.platform.fmspc)
  td?.check("tcbStatus", () => dcap.tcb.platform?.status ?? null)
  td?.check("moduleStatus", () => dcap.tcb.tdxModule?.status ?? null)
  td?.check("qeStatus", () => dcap.tcb.quotingEnclave?.status ?? null)
  vector.facts.check("collateralWindow", () => [dcap.validFrom, dcap.validUntil].map((time) => new Date(time).toISOString().replace(/\.\d+Z$/, "Z")))
  if (dcap.missingCollateral.length > 0) vector.note(`not checked for want of collateral: ${dcap.missingCollateral.join(", ")}`)
  const issuer = vector.optional("pck_crl_issuer_chain.pem")
  if (issuer !== undefined) vector.equal("certificates in pck_crl_issuer_chain.pem", parsePemCertificates(parseUtf8(issuer)).length, 2)
}

/** The certificate of the attestation key as read from NV memory: of that key, with zeros behind; nobody here trusts its issuer. */
function judgeCertificate(vector: VectorCase, claims: AzureClaims): void {
  const stored = vector.optional("ak-cert-nv.bin")
  if (stored === undefined) return
  const { certificate, quirks } = parseStoredCertificate(stored)
  vector.equal("key of the AK certificate", spkiDigest(certificate), claims.attestationKey)
  vector.equal("quirks of the AK certificate", [...quirks], ["padding"])
  vector.note("the AK certificate is issued by an authority that nobody here trusts")
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
  const { hardware } = evidence
  if (hardware.type === "tdx")
    vector.refused("a changed TD quote", () => verify({ hardware: { ...hardware, quote: flip(hardware.quote, tdAttestationOffset) } }))
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

/** USER_DATA in the head of a quote, which the TD report does not hold. */
const tdAttestationOffset = 0x1c
/** MEASUREMENT in the hardware's report; in a TD report, TEE_TCB_SVN and its like. */
const hardwareMeasurementOffset = 0x20 + 0x90
