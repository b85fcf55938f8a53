import assert from "node:assert/strict"
import { test } from "node:test"
import { AzureVm } from "../../lab/devices/azure-vm.testing.ts"
import { labTdRequirement } from "../../lab/devices/td.ts"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { digestOf } from "../bytes/digest.ts"
import { tierOf } from "./ar4si.ts"
import { finding, type FindingCode, findingCodes } from "./findings.ts"
import type { BootReference, ImaReference, References } from "./reference.ts"
import type { AzurePcr, AzureRequirement, SgxRequirement, SnpRequirement, TeeRequirement } from "./tee.ts"
import { codesOf, findingEffects, type TeePiece, type TpmPiece, trustOf } from "./trust-vector.ts"

const [bootDigest, imaDigest] = [digestOf(Uint8Array.of(1)), digestOf(Uint8Array.of(2))]
const times = { perun: 1, name: "image", created: "2026-01-01T00:00:00Z", expires: "2030-01-01T00:00:00Z" } as const
const boot: BootReference = {
  ...times,
  kind: "boot",
  bank: "sha256",
  startupLocality: 0,
  secureBoot: "enabled",
  quirks: [],
  registers: [],
  commandLines: [],
  appliance: "none",
}
const ima: ImaReference = {
  ...times,
  kind: "ima",
  files: {},
  imaPolicy: { path: "/p", rules: "", before: [], replaceable: "no" },
  buffers: {},
  violationClasses: {},
}
const references: References = new Map<typeof bootDigest, BootReference | ImaReference>([
  [bootDigest, boot],
  [imaDigest, ima],
])
const machine = { level: "sealed", boot: { reference: bootDigest }, ima: { reference: imaDigest, violations: "deny" } } as const
const sealed: TpmPiece = { kind: "tpm", machine, references, laboratory: false }
const requirement = labTdRequirement(
  { runtime: "a".repeat(96), source: "b".repeat(96), packages: "c".repeat(96) },
  makeLabAuthority({ keys: makeLabKeys(), time: Date.parse("2026-11-22T12:00:00Z") }).root,
)
const td: TeePiece = { kind: "tdx", requirement: { tdx: requirement }, laboratory: false, upToDate: true }
const refusals = (Object.keys(findingCodes) as FindingCode[]).filter((code) => findingCodes[code].effect === "refusal")

function found(...codes: readonly FindingCode[]) {
  return codes.map((code) => finding(code, "", "", ""))
}

test("trustOf() affirms a sealed machine under a vendor's TPM, whose every file was judged", () => {
  const vector = { "instance-identity": 2, configuration: 2, executables: 2, "file-system": 2, hardware: 2 }
  assert.deepEqual(trustOf([sealed], []), { tpm: { status: "affirming", vector, laboratory: false } })
})

test("trustOf() warns of an administered machine: nobody judged what its administrators can do", () => {
  const { tpm } = trustOf([{ ...sealed, machine: { ...machine, level: "administered" } }], [])
  assert.deepEqual([tpm?.status, tpm?.vector.configuration, tpm?.vector["file-system"], tpm?.vector.executables], ["warning", 36, 0, 2])
})

test("trustOf() never affirms the hardware under a laboratory root, nor an identity that its holder can copy", () => {
  for (const piece of [sealed, td]) {
    const result = trustOf([{ ...piece, laboratory: true }], found("insecure-laboratory"))[piece.kind]
    assert.deepEqual([result?.status, result?.laboratory], ["warning", true])
    assert.equal(tierOf(result?.vector.hardware ?? 0), "warning")
    assert.equal(result?.vector["instance-identity"], 0)
  }
  assert.equal(trustOf([{ ...td, laboratory: true }], [])["tdx"]?.vector["runtime-opaque"], 32)
})

test("trustOf() claims nothing of executables where no IMA reference was there, and warns where files may change unseen", () => {
  const without = (gone: typeof bootDigest): TpmPiece => ({ ...sealed, references: new Map([...references].filter(([digest]) => digest !== gone)) })
  assert.equal(trustOf([without(imaDigest)], [])["tpm"]?.vector.executables, 0)
  const { tpm } = trustOf([without(bootDigest)], [])
  assert.deepEqual([tpm?.vector.executables, tpm?.vector.configuration, tpm?.vector["file-system"]], [0, 0, 0])
  const loose = { ...sealed, machine: { ...machine, ima: { reference: imaDigest, violations: { allow: ["logs"] } } } }
  assert.equal(trustOf([loose], [])["tpm"]?.vector.executables, 33)
  const anyBoot = new Map(references).set(bootDigest, { ...boot, secureBoot: "any" })
  assert.equal(trustOf([{ ...sealed, references: anyBoot }], [])["tpm"]?.vector.configuration, 36)
})

for (const code of refusals)
  test(`trustOf() contraindicates ${code}`, () => {
    const { of } = findingEffects[code]
    for (const piece of [sealed, td]) {
      const result = trustOf([piece], found(code))[piece.kind]
      assert.equal(result?.status, "contraindicated", piece.kind)
      // A refusal of its own kind shows where, unless it is of the whole machine.
      if ((of === "any" || (of === "tpm") === (piece.kind === "tpm")) && findingEffects[code].refuses !== true)
        assert.ok(
          Object.values(result?.vector ?? {}).some((value) => tierOf(value) === "contraindicated"),
          `${code} of ${piece.kind}`,
        )
    }
  })

test("trustOf() keeps what one piece lacks apart from the other, and gives each its submodule", () => {
  const both = trustOf([sealed, td], found("ima-unknown-file"))
  assert.deepEqual([both["tpm"]?.status, both["tdx"]?.status], ["contraindicated", "affirming"])
  assert.deepEqual([both["tpm"]?.vector.executables, both["tpm"]?.vector.hardware], [96, 2])
  const other = trustOf([sealed, td], found("tee-debug"))
  assert.deepEqual([other["tpm"]?.status, other["tdx"]?.status], ["affirming", "contraindicated"])
  assert.throws(() => trustOf([sealed, sealed], []), TypeError)
})

test("trustOf() says of evidence that is not genuine that its validation failed, claim by claim", () => {
  const { tpm } = trustOf([sealed], "not-genuine")
  assert.equal(tpm?.status, "contraindicated")
  assert.deepEqual(new Set(Object.values(tpm?.vector ?? {})), new Set([99]))
})

test("trustOf() takes back what was not judged, and lets no later finding make it better", () => {
  assert.equal(trustOf([sealed], found("reference-missing"))["tpm"]?.vector.executables, 0)
  assert.equal(trustOf([sealed], found("ima-unknown-file", "reference-missing"))["tpm"]?.vector.executables, 96)
  assert.equal(trustOf([sealed], found("weak-hash", "secure-boot-differs"))["tpm"]?.vector.configuration, 99)
  assert.equal(trustOf([sealed], found("boot-quirk-accepted"))["tpm"]?.vector.hardware, 32)
})

test("trustOf() reads a TEE's demands: what the policy leaves open is not affirmed", () => {
  const tdx = (change: Partial<typeof requirement>): TeeRequirement => ({ tdx: { ...requirement, ...change } })
  const vector = (piece: Partial<TeePiece>) => trustOf([{ ...td, ...piece }], [])[piece.kind ?? "tdx"]?.vector
  assert.deepEqual(vector({}), { "instance-identity": 2, configuration: 2, executables: 3, hardware: 2, "runtime-opaque": 2 })
  assert.equal(vector({ upToDate: false })?.hardware, 32)
  assert.equal(vector({ requirement: tdx({ mrTd: "any" }) })?.executables, 33)
  assert.equal(vector({ requirement: tdx({ rtmrs: { ...requirement.rtmrs, "2": "any" } }) })?.executables, 33)
  assert.equal(vector({ requirement: tdx({ septVeDisable: "any" }) })?.configuration, 36)
  assert.equal(vector({ requirement: tdx({ platforms: "any" }) })?.["instance-identity"], 0)
  assert.equal(vector({ requirement: undefined })?.executables, 0)
  const { debug, tcb, platforms, laboratoryRoots } = requirement
  const sgx: SgxRequirement = {
    debug,
    tcb,
    platforms,
    laboratoryRoots,
    mrEnclave: ["1".repeat(64)],
    mrSigner: "any",
    isvProdId: "any",
    isvSvn: 0,
    configId: ["0".repeat(128)],
  }
  assert.equal(vector({ kind: "sgx", requirement: { sgx } })?.executables, 3)
  assert.equal(vector({ kind: "sgx", requirement: { sgx: { ...sgx, mrEnclave: "any" } } })?.executables, 33)
  assert.equal(vector({ kind: "sgx", requirement: { sgx: { ...sgx, configId: "any" } } })?.configuration, 36)
  const snp: SnpRequirement = {
    ...{
      debug: false,
      migration: false,
      measurement: ["1".repeat(96)],
      hostData: "any",
      idKeyDigest: "none",
      authorKeyDigest: "none",
      guestSvn: 0,
      vmpl: [0],
    },
    ...{
      smt: false,
      singleSocket: true,
      products: ["Milan"],
      signingKey: ["vcek"],
      tcb: {},
      firmware: { major: 1, minor: 0, build: 0 },
      provisional: false,
    },
    ...{ chips: ["2".repeat(128)], laboratoryRoots: [] },
  }
  assert.deepEqual(vector({ kind: "snp", requirement: { snp } }), vector({}))
  assert.equal(vector({ kind: "snp", requirement: { snp: { ...snp, smt: "any" } } })?.configuration, 36)
  assert.equal(vector({ kind: "snp", requirement: { snp: { ...snp, measurement: "any", chips: "any" } } })?.executables, 33)
  assert.throws(() => vector({ kind: "sgx", requirement: { snp } }), TypeError)
})

test("trustOf() reads the demands on a confidential VM of Azure: paravisor, code, settings, and which VM", () => {
  const azure = new AzureVm(makeLabAuthority({ keys: makeLabKeys() })).requirement
  assert.ok("tdx" in azure.tee)
  const { tdx } = azure.tee
  const vector = (change: Partial<AzureRequirement>, paravisor: Partial<typeof tdx> = {}) =>
    trustOf([{ ...td, kind: "azure-vtpm", requirement: { azure: { ...azure, tee: { tdx: { ...tdx, ...paravisor } }, ...change } } }], [])[
      "azure-vtpm"
    ]?.vector
  const all = { "instance-identity": 2, configuration: 2, executables: 3, hardware: 2, "runtime-opaque": 2 }
  assert.deepEqual(vector({}), all)
  const without = (...pcrs: readonly AzurePcr[]): Partial<AzureRequirement> => ({
    pcrs: { ...azure.pcrs, ...Object.fromEntries(pcrs.map((pcr) => [pcr, "any"])) },
  })
  for (const pcr of ["0", "2", "4", "8", "9", "11", "12", "13"] as const) assert.deepEqual(vector(without(pcr)), { ...all, executables: 33 }, pcr)
  for (const pcr of ["1", "3", "5", "7", "14"] as const) assert.deepEqual(vector(without(pcr)), { ...all, configuration: 36 }, pcr)
  for (const pcr of ["6", "10", "15"] as const) assert.deepEqual(vector(without(pcr)), all, pcr)
  for (const name of ["secureBoot", "interactiveConsoleEnabled", "unknownSettings"] as const)
    assert.equal(vector({ vmConfiguration: { ...azure.vmConfiguration, [name]: "any" } })?.configuration, 36, name)
  // Who signs the paravisor can put another in its place, which sees all.
  assert.deepEqual(vector({}, { mrTd: "any" }), { ...all, executables: 33, "runtime-opaque": 32 })
  assert.equal(vector({ attestationKeys: "any" })?.["instance-identity"], 2)
  assert.equal(vector({}, { platforms: "any" })?.["instance-identity"], 2)
  assert.equal(vector({ attestationKeys: "any" }, { platforms: "any" })?.["instance-identity"], 0)
})

test("codesOf() names each code once, refusals first", () => {
  assert.deepEqual(codesOf(found("boot-quirk-accepted", "ima-unknown-file", "ima-unknown-file")), ["ima-unknown-file", "boot-quirk-accepted"])
  assert.deepEqual(codesOf("not-genuine"), [])
})
