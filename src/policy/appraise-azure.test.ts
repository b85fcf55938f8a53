/** Confidential VMs of Azure through a policy: laboratory machines that differ in one thing each, and recorded ones. */
import assert from "node:assert/strict"
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { AmdAuthority, makeRsaKey } from "../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../lab/devices/amd-snp.ts"
import { AzureVm, type AzureKnobs } from "../../lab/devices/azure-vm.testing.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { parseHex } from "../bytes/text.ts"
import { azurePcrs, type AzureClaims } from "../evidence/azure/claims.ts"
import { parsePcrValues } from "../evidence/azure/document.ts"
import { parseHclReport } from "../evidence/azure/format.ts"
import { verifyAzureVtpm, type AzureHardware } from "../evidence/azure/verify.ts"
import type { ExpectedReportData } from "../evidence/report-data.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import type { TeeEvidence } from "../evidence/tee/format.ts"
import { teeRootsFor, vendorTeeRoots } from "../evidence/tee/roots.ts"
import { verifyTee, type GenuineTee } from "../evidence/tee/verify.ts"
import { parseCertificate, parsePemCertificates } from "../pki/certificate.ts"
import { AcceptedTee, appraiseTee } from "./appraise-tee.ts"
import { laboratoryRootsOf, teeRequirementSchema, type AzureRequirement, type TeeRequirement } from "./tee.ts"
import { teeSession, teeSessionFindings } from "./tee-session.ts"

const reportData = sessionReportData(new Uint8Array(32).fill(0x5e))
const snpTime = Date.parse("2025-06-01T00:00:00Z")
const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
const chip = new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask }))
const machines = { snp: new AzureVm(chip), tdx: new AzureVm(makeLabAuthority({ keys: makeLabKeys() })) }
const roots = laboratoryRootsOf(Object.values(machines).map(({ requirement }) => ({ azure: requirement })))

function genuine(evidence: TeeEvidence, expected: ExpectedReportData = reportData): GenuineTee {
  const time = evidence.kind === "snp" || (evidence.kind === "azure-vtpm" && evidence.hardware.kind === "snp") ? snpTime : labTime
  return verifyTee(evidence, { reportData: expected, roots: teeRootsFor(evidence, roots), time, ccelQuirks: [] })
}

function refusals(evidence: GenuineTee, accept: readonly TeeRequirement[]): readonly string[] {
  const appraisal = appraiseTee(evidence, accept)
  if (appraisal.outcome === "accepted") return []
  return appraisal.findings.filter(({ effect }) => effect === "refusal").map(({ code, subject }) => `${code} ${subject}`)
}

for (const [kind, machine] of Object.entries(machines)) {
  test(`appraiseTee() accepts a confidential VM of Azure over ${kind} that meets every demand, and says INSECURE LABORATORY`, () => {
    const azure = machine.requirement
    assert.deepEqual(teeRequirementSchema.parse({ azure }), { azure })
    const appraisal = appraiseTee(genuine(machine.evidence(reportData)), [{ azure }])
    assert.ok(appraisal instanceof AcceptedTee)
    assert.deepEqual([appraisal.kind, appraisal.insecureLaboratory], ["azure-vtpm", true])
    assert.deepEqual(
      appraisal.findings.map(({ code }) => code),
      ["insecure-laboratory"],
    )
  })

  test(`appraiseTee() refuses each register of a confidential VM over ${kind} that holds something else, or is not quoted`, () => {
    for (const pcr of azurePcrs) {
      for (const value of ["ee".repeat(32), undefined]) {
        const evidence = genuine(machine.evidence(reportData, { pcrs: { [pcr]: value } }))
        assert.deepEqual(refusals(evidence, [{ azure: machine.requirement }]), [`tee-measurement-differs PCR${pcr}`])
        const open = { ...machine.requirement, pcrs: { ...machine.requirement.pcrs, [pcr]: "any" as const } }
        assert.deepEqual(refusals(evidence, [{ azure: open }]), [])
      }
    }
  })

  test(`appraiseTee() refuses a confidential VM over ${kind} whose nonce nobody compared`, () => {
    const evidence = genuine(machine.evidence(reportData), "as-signed")
    assert.deepEqual(refusals(evidence, [{ azure: machine.requirement }]), ["tee-not-bound extraData of the virtual TPM's quote"])
  })
}

const { snp } = machines
const good = snp.requirement
const laxPcrs = Object.fromEntries(azurePcrs.map((pcr) => [pcr, "any"])) as unknown as AzureRequirement["pcrs"]

function setting(name: string, value: unknown): AzureKnobs {
  return { runtime: { vmConfiguration: { [name]: value } } }
}

/** Evidence that differs from the good one in one thing: exactly this is refused, and taken where the demand is `any`. */
const cases: readonly (readonly [expected: string, AzureKnobs, lax: Partial<AzureRequirement>])[] = [
  ["tee-setting-differs secure-boot", setting("secure-boot", false), { vmConfiguration: { ...good.vmConfiguration, secureBoot: "any" } }],
  ["tee-setting-differs secure-boot", setting("secure-boot", undefined), { vmConfiguration: { ...good.vmConfiguration, secureBoot: "any" } }],
  ["tee-setting-differs console-enabled", setting("console-enabled", true), { vmConfiguration: { ...good.vmConfiguration, consoleEnabled: "any" } }],
  [
    "tee-setting-differs interactive-console-enabled",
    setting("interactive-console-enabled", true),
    { vmConfiguration: { ...good.vmConfiguration, interactiveConsoleEnabled: "any" } },
  ],
  [
    "tee-setting-differs interactive-console-enabled",
    setting("interactive-console-enabled", undefined),
    { vmConfiguration: { ...good.vmConfiguration, interactiveConsoleEnabled: "any" } },
  ],
  ["tee-setting-differs tpm-persisted", setting("tpm-persisted", false), { vmConfiguration: { ...good.vmConfiguration, tpmPersisted: false } }],
  ["tee-setting-differs vm-configuration", setting("new-setting", 1), { vmConfiguration: { ...good.vmConfiguration, unknownSettings: "any" } }],
  ["tee-platform-not-listed vmUniqueId", setting("vmUniqueId", "11111111-0000-4000-8000-000000000000"), { vmUniqueId: "any" }],
  ["tee-platform-not-listed vmUniqueId", setting("vmUniqueId", undefined), { vmUniqueId: "any" }],
]
for (const [expected, knobs, lax] of cases)
  test(`appraiseTee() refuses a confidential VM of Azure for ${expected} alone: ${JSON.stringify(knobs.runtime?.vmConfiguration)}`, () => {
    const evidence = genuine(snp.evidence(reportData, knobs))
    assert.deepEqual(refusals(evidence, [{ azure: good }]), [expected])
    assert.deepEqual(refusals(evidence, [{ azure: { ...good, ...lax } }]), [])
  })

test("appraiseTee() takes the VM's identifier in either case", () => {
  const upper = "ABCDEF00-0000-4000-8000-000000000000"
  const evidence = genuine(snp.evidence(reportData, setting("vmUniqueId", upper)))
  for (const vmUniqueId of [upper, upper.toLowerCase()]) assert.deepEqual(refusals(evidence, [{ azure: { ...good, vmUniqueId: [vmUniqueId] } }]), [])
})

test("appraiseTee() refuses another VM's virtual TPM, and a key whose public area did not come along", () => {
  const other = new AzureVm(chip)
  assert.deepEqual(refusals(genuine(other.evidence(reportData)), [{ azure: good }]), ["tee-platform-not-listed HCLAkPub"])
  const { akPublic: _unused, ...bare } = snp.evidence(reportData)
  assert.deepEqual(refusals(genuine(bare), [{ azure: good }]), ["tee-setting-differs HCLAkPub"])
  assert.deepEqual(refusals(genuine(bare), [{ azure: { ...good, attestationKeyRestricted: "any" } }]), [])
})

test("appraiseTee() judges the paravisor's hardware by the demands on bare hardware", () => {
  const { snp: tee } = good.tee as { readonly snp: Extract<TeeRequirement, { snp: unknown }>["snp"] }
  const demanding = (change: Partial<typeof tee>): TeeRequirement => ({ azure: { ...good, tee: { snp: { ...tee, ...change } } } })
  const evidence = genuine(snp.evidence(reportData))
  assert.deepEqual(refusals(evidence, [demanding({ measurement: ["4e".repeat(48)] })]), ["tee-measurement-differs MEASUREMENT"])
  assert.deepEqual(refusals(evidence, [demanding({ chips: ["00".repeat(64)] })]), ["tee-platform-not-listed CHIP_ID"])
  assert.deepEqual(refusals(evidence, [demanding({ laboratoryRoots: [] })]), ["laboratory-root-not-accepted TEE root"])
  const debug = genuine(snp.evidence(reportData, { report: { policy: { ...chip.fields().policy, debug: true } } }))
  assert.deepEqual(refusals(debug, [{ azure: good }]), ["tee-debug debug"])
  const tdx = genuine(machines.tdx.evidence(reportData, { td: { mrTd: "bb".repeat(48) } }))
  assert.deepEqual(refusals(tdx, [{ azure: machines.tdx.requirement }]), ["tee-measurement-differs MRTD"])
})

test("appraiseTee() takes neither the bare hardware for a paravisor, nor a paravisor for it, nor one on other hardware", () => {
  const [azure, td] = [genuine(snp.evidence(reportData)), genuine(machines.tdx.evidence(reportData))]
  const bare = genuine(snp.evidence(reportData).hardware, "as-signed")
  assert.ok("snp" in good.tee)
  assert.deepEqual(refusals(azure, [good.tee]), ["tee-kind-not-accepted TEE"])
  assert.deepEqual(refusals(bare, [{ azure: good }]), ["tee-kind-not-accepted TEE"])
  assert.deepEqual(refusals(td, [{ azure: good }]), ["tee-kind-not-accepted TEE"])
  assert.deepEqual(refusals(azure, [{ azure: machines.tdx.requirement }]), ["tee-kind-not-accepted TEE"])
})

test("teeRequirementSchema wants every register and setting of a confidential VM stated, and demands of the hardware that a paravisor can meet", () => {
  const refuses = (azure: object): void => assert.equal(teeRequirementSchema.safeParse({ azure }).success, false, JSON.stringify(azure))
  for (const name of Object.keys(good)) refuses({ ...good, [name]: undefined })
  for (const pcr of azurePcrs) refuses({ ...good, pcrs: { ...good.pcrs, [pcr]: undefined } })
  for (const name of Object.keys(good.vmConfiguration)) refuses({ ...good, vmConfiguration: { ...good.vmConfiguration, [name]: undefined } })
  refuses({ ...good, pcrs: { ...good.pcrs, "16": "any" } })
  refuses({ ...good, pcrs: { ...good.pcrs, "0": ["00".repeat(48)] } })
  refuses({ ...good, more: "any" })
  refuses({ ...good, vmUniqueId: ["mine"] })
  assert.ok("snp" in good.tee && "tdx" in machines.tdx.requirement.tee)
  refuses({ ...good, tee: { snp: { ...good.tee.snp, vmpl: [0, 1] } } })
  refuses({ ...good, tee: { tdx: { ...machines.tdx.requirement.tee.tdx, eventLog: { quirks: [] } } } })
  refuses({ ...good, tee: { ...good.tee, ...machines.tdx.requirement.tee } })
})

test("teeSession() of a confidential VM is over with another boot, virtual TPM or launch, and goes on when the system extends its own registers", () => {
  const before = teeSession(genuine(snp.evidence(reportData)))
  const changes = (knobs: AzureKnobs, machine = snp): readonly string[] =>
    teeSessionFindings(teeSession(genuine(machine.evidence(reportData, knobs))), before).map(({ code, subject }) => `${code} ${subject}`)
  const clock = { clock: 1000n, resetCount: 1, restartCount: 0, safe: true }
  assert.deepEqual(changes({ pcrs: { "10": "ee".repeat(32), "15": "ee".repeat(32) } }), [])
  assert.deepEqual(changes({ pcrs: { "9": "ee".repeat(32) } }), ["boot-session-changed PCR9"])
  assert.deepEqual(changes({ pcrs: { "4": undefined } }), ["boot-session-changed PCR4"])
  assert.deepEqual(changes({ attest: { clockInfo: { ...clock, resetCount: 2 } } }), ["boot-session-changed resetCount"])
  assert.deepEqual(changes({ attest: { clockInfo: { ...clock, restartCount: 1 } } }), ["boot-session-changed restartCount"])
  assert.deepEqual(changes({ report: { reportId: new Uint8Array(32).fill(9) } }), ["boot-session-changed REPORT_ID"])
  assert.deepEqual(changes({}, new AzureVm(chip)), ["boot-session-changed HCLAkPub"])
})

const vectors = join(process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../shared/vectors"), "azure-vtpm")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

interface Recorded {
  readonly claims: AzureClaims
  readonly evidence: GenuineTee
}

/** A recorded machine, verified from its bytes under the vendors' roots. */
function recorded(name: string, time: string): Recorded {
  const has = (file: string): boolean => existsSync(join(vectors, name, file))
  const file = (path: string): Uint8Array => new Uint8Array(readFileSync(join(vectors, name, path)))
  const { nonce } = JSON.parse(new TextDecoder().decode(file("expected.json"))) as { readonly nonce: string }
  const chain = (path: string): Uint8Array => file(path)
  const document = (stem: string): { document: Uint8Array; issuerChain: Uint8Array } => ({
    document: chain(`${stem}.json`),
    issuerChain: chain(`${stem}_issuer_chain.pem`),
  })
  const collateral = has("tcb_info.json")
    ? { tcbInfo: document("tcb_info"), qeIdentity: document("qe_identity"), rootCrl: file("root_ca_crl.der"), pckCrl: file("pck_crl.der") }
    : {}
  const hclReport = file("hcl-report.bin")
  const hardware: AzureHardware =
    parseHclReport(hclReport).hardware.type === "tdx"
      ? { type: "tdx", quote: file("td-quote.bin"), collateral }
      : {
          type: "snp",
          endorsements: {
            signer: parseCertificate(file("vcek.der")),
            intermediates: parsePemCertificates(new TextDecoder().decode(file("ask.pem"))),
            revocationLists: [],
          },
        }
  const signature = { algorithm: "rsassa", hash: "sha256", signature: file("quote.sig.raw") } as const
  const vendor = vendorTeeRoots()
  const tee = verifyAzureVtpm(
    { hclReport, hardware, quote: { attest: file("quote.msg"), signature }, akPublic: "not-given" },
    {
      quote: { extraData: parseHex(nonce), selection: "as-signed", pcrs: parsePcrValues(file("pcrs.json")) },
      snpRoots: vendor.snp,
      dcapRoots: vendor.dcap,
      time: Date.parse(time),
    },
  )
  return { claims: tee.claims, evidence: { kind: "azure-vtpm", tee } }
}

/** Demands that a recorded machine meets as far as they are of the guest and the paravisor's word. */
function demandsOf({ quote, attestationKey, vmConfiguration, hardware }: AzureClaims): AzureRequirement {
  const registers = quote.pcrs.get("sha256")
  const { vmUniqueId } = vmConfiguration
  const state = vmConfiguration["tpm-persisted"]
  assert.ok(typeof vmUniqueId === "string")
  const tee = hardware.kind === "snp" ? snpDemands(hardware) : tdxDemands(hardware)
  return {
    tee,
    pcrs: Object.fromEntries(azurePcrs.map((pcr) => [pcr, [registers?.get(pcr) ?? ""]])) as unknown as AzureRequirement["pcrs"],
    attestationKeys: [attestationKey],
    attestationKeyRestricted: "any",
    vmUniqueId: [vmUniqueId],
    vmConfiguration: {
      secureBoot: vmConfiguration["secure-boot"] === true ? true : "any",
      consoleEnabled: "any",
      interactiveConsoleEnabled: "any",
      tpmPersisted: typeof state === "boolean" ? state : "any",
      unknownSettings: "none",
    },
  }
}

function snpDemands(claims: Extract<AzureClaims["hardware"], { kind: "snp" }>): AzureRequirement["tee"] {
  const { measurement, hostData, idKeyDigest, authorKeyDigest, guestSvn, product, signingKey, chipId, tcb } = claims
  const { bootLoader = 0, tee = 0, snp: firmware = 0, microcode = 0, fmc } = tcb.launch
  return {
    snp: {
      debug: false,
      migration: false,
      measurement: [measurement],
      hostData: [hostData],
      idKeyDigest: idKeyDigest === undefined ? "none" : [idKeyDigest],
      authorKeyDigest: authorKeyDigest === undefined ? "none" : [authorKeyDigest],
      guestSvn,
      vmpl: [0],
      smt: "any",
      singleSocket: "any",
      products: [product],
      signingKey: [signingKey],
      tcb: { bootLoader, tee, snp: firmware, microcode, ...(fmc === undefined ? {} : { fmc }) },
      firmware: claims.firmware.committed,
      provisional: "any",
      chips: chipId === undefined ? "any" : [chipId],
      laboratoryRoots: [],
    },
  }
}

function tdxDemands(claims: Extract<AzureClaims["hardware"], { kind: "tdx" }>): AzureRequirement["tee"] {
  const { mrTd, rtmrs, mrConfigId, mrOwner, mrOwnerConfig, mrSeam, septVeDisable, dcap } = claims
  return {
    tdx: {
      mrTd: [mrTd],
      rtmrs: { "0": [rtmrs[0]], "1": [rtmrs[1]], "2": [rtmrs[2]], "3": [rtmrs[3]] },
      mrConfigId: [mrConfigId],
      mrOwner: [mrOwner],
      mrOwnerConfig: [mrOwnerConfig],
      mrSeam: [mrSeam],
      septVeDisable: septVeDisable ? true : "any",
      migration: false,
      eventLog: "none",
      debug: false,
      tcb: { status: ["UpToDate"], advisories: [], evaluationDataNumber: dcap.tcb.tcbEvaluationDataNumber ?? 0 },
      platforms: dcap.platform.ppid === undefined ? "any" : [dcap.platform.ppid],
      laboratoryRoots: [],
    },
  }
}

/** No recorded machine came with AMD's revocation list, and one with all of Intel's collateral; no policy takes the others, whatever it says, and for nothing else. */
const noList = ["tee-collateral-missing AMD's revocation list"]
const recordings: readonly (readonly [name: string, time: string, missed: readonly string[]])[] = [
  ["tdx-no-secure-boot-with-collateral", "2026-03-05T13:50:07Z", []],
  [
    "tdx-v1",
    "2025-01-01T00:00:00Z",
    [
      ...["TCB info", "QE identity", "root CA CRL", "PCK CRL"].map((name) => `tee-collateral-missing ${name}`),
      "tee-tcb-not-accepted TCB status",
      "tee-tcb-not-accepted tcbEvaluationDataNumber",
    ],
  ],
  ["snp-milan-v1", "2026-01-01T00:00:00Z", noList],
  ["snp-genoa-48-byte-nonce", "2026-01-01T00:00:00Z", noList],
  ["snp-milan-2026-live", "2026-06-01T00:00:00Z", noList],
]
for (const [name, time, missed] of recordings)
  test(`a recorded confidential VM of Azure meets its own demands but for collateral, and no others: ${name}`, { skip }, () => {
    const { claims, evidence } = recorded(name, time)
    const azure = demandsOf(claims)
    assert.deepEqual(teeRequirementSchema.parse({ azure }), { azure })
    assert.deepEqual(refusals(evidence, [{ azure }]), missed)
    const more = (change: Partial<AzureRequirement>): readonly string[] =>
      refusals(evidence, [{ azure: { ...azure, ...change } }]).filter((line) => !missed.includes(line))
    for (const pcr of azurePcrs) assert.deepEqual(more({ pcrs: { ...azure.pcrs, [pcr]: ["ee".repeat(32)] } }), [`tee-measurement-differs PCR${pcr}`])
    assert.deepEqual(more({ vmUniqueId: ["00000000-0000-4000-8000-000000000000"] }), ["tee-platform-not-listed vmUniqueId"])
    assert.deepEqual(more({ attestationKeyRestricted: true }), ["tee-setting-differs HCLAkPub"])
    assert.deepEqual(more({ vmConfiguration: { ...azure.vmConfiguration, consoleEnabled: false } }), ["tee-setting-differs console-enabled"])
    if (name.includes("no-secure-boot"))
      assert.deepEqual(more({ vmConfiguration: { ...azure.vmConfiguration, secureBoot: true } }), ["tee-setting-differs secure-boot"])
    const tee =
      "snp" in azure.tee ? { snp: { ...azure.tee.snp, measurement: ["ee".repeat(48)] } } : { tdx: { ...azure.tee.tdx, mrTd: ["ee".repeat(48)] } }
    assert.deepEqual(more({ tee }), [`tee-measurement-differs ${"snp" in tee ? "MEASUREMENT" : "MRTD"}`])
    assert.deepEqual(more({ pcrs: laxPcrs }), [])
  })
