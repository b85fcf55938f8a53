import assert from "node:assert/strict"
import { test } from "node:test"
import { AzureVm } from "../../lab/devices/azure-vm.testing.ts"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import type { PerunError } from "../bytes/error.ts"
import { PolicyError } from "./errors.ts"
import { checkPolicy } from "./check.ts"
import { diffPolicies } from "./diff.ts"
import { demandedPieces, hostLevelOf, hostRequirementOf, laboratoryRootsOfMachine, parsePolicyValue, referencedDigests } from "./document.ts"
import type { Machine } from "./document.ts"
import { explainPolicy, explanationText, policySights, policyWarnings } from "./explain.ts"
import {
  bootReference,
  enclaveMachine,
  guestedMachine,
  hostMachine,
  named,
  now,
  onMachine,
  policy,
  references,
  tdxDemand,
} from "./fixtures.testing.ts"
import { policyTemplate } from "./init.ts"
import { canShow, listingOf, listsMachine, namesMachine, type MachineIdentity } from "./listing.ts"
import { parsePolicy } from "./parse.ts"
import { type BootReference, referenceDigest } from "./reference.ts"
import type { AzureRequirement, SnpRequirement } from "./tee.ts"

function problems(machine: unknown): readonly string[] {
  try {
    parsePolicyValue({ ...policy, machines: { "gpu-host": machine } })
  } catch (error) {
    assert.ok(error instanceof PolicyError, String(error as PerunError))
    return error.problems.map(({ code, field }) => `${code} ${field}`)
  }
  return []
}

test("parsePolicy() takes machines of level enclave, with a guest that proves itself and without", () => {
  assert.deepEqual(problems(enclaveMachine), [])
  assert.deepEqual(problems(guestedMachine()), [])
})

test("parsePolicy() leaves nothing of an enclave machine open", () => {
  const { guest: _guest, ...withoutGuest } = enclaveMachine
  assert.deepEqual(problems(withoutGuest), ["missing-field machines.gpu-host.guest"])
  const { accept: _accept, ...withoutAccept } = enclaveMachine
  assert.deepEqual(problems(withoutAccept), ["missing-field machines.gpu-host.accept"])
  assert.notDeepEqual(problems({ ...enclaveMachine, accept: [] }), [])
  assert.notDeepEqual(problems({ ...enclaveMachine, accept: [{ tdx: { ...tdxDemand, debug: true } }] }), [])
  assert.notDeepEqual(problems({ ...enclaveMachine, guest: "any" }), [])
})

test("parsePolicy() takes no demand where it would not be judged: a TPM's beside the guest, a TEE's on a host, a level inside the guest", () => {
  assert.deepEqual(problems({ ...enclaveMachine, tpm: hostMachine().tpm }), ["unknown-field machines.gpu-host.tpm"])
  assert.deepEqual(problems({ ...hostMachine(), accept: enclaveMachine.accept }), ["unknown-field machines.gpu-host.accept"])
  assert.ok(problems({ ...enclaveMachine, guest: hostMachine() }).length > 0)
})

test("what a machine must show follows from its level and guest", () => {
  const host = hostMachine()
  assert.deepEqual([host, enclaveMachine, guestedMachine()].map(demandedPieces), ["tpm", "tee", "tee-with-tpm"])
  assert.deepEqual([{ ...host, level: "administered" } as const, host, guestedMachine()].map(hostLevelOf), ["administered", "sealed", "sealed"])
  assert.equal(hostRequirementOf(enclaveMachine), undefined)
  assert.deepEqual(hostRequirementOf(guestedMachine()), guestedMachine().guest)
  assert.deepEqual(referencedDigests(onMachine(guestedMachine())), referencedDigests(policy))
  assert.deepEqual(referencedDigests(onMachine(enclaveMachine)), [])
  const guested = guestedMachine([{ tdx: { ...tdxDemand, laboratoryRoots: [named("a")] } }])
  assert.ok(guested.guest !== "none")
  const both = { ...guested, guest: { ...guested.guest, tpm: { ...guested.guest.tpm, laboratoryRoots: [named("a"), named("b")] } } }
  assert.deepEqual(laboratoryRootsOfMachine(both), [named("a"), named("b")])
})

function check(machine: Machine): readonly string[] {
  const used = machine.level === "enclave" && machine.guest === "none" ? new Map() : references
  return checkPolicy(onMachine(machine), { time: now, references: used }).map(({ code, field }) => `${code} ${field}`)
}

test("checkPolicy() reads the demands on a TEE and on the guest inside like those on managers and hosts", () => {
  assert.deepEqual([check(enclaveMachine), check(guestedMachine())], [[], []])
  assert.deepEqual(check({ ...enclaveMachine, accept: [{ tdx: { ...tdxDemand, mrTd: "any" } }] }), ["wrong-value machines.gpu-host.accept.0.tdx"])
  const guested = guestedMachine()
  assert.ok(guested.guest !== "none")
  const { guest } = guested
  const twice = { ...guest.tpm, endorsementKeys: [named("ek"), named("ek")] }
  assert.deepEqual(check({ ...guested, guest: { ...guest, tpm: twice } }), ["duplicate machines.gpu-host.guest.tpm.endorsementKeys.1"])
  assert.ok(
    check({ ...guested, guest: { ...guest, boot: { reference: named("gone") } } }).some((line) =>
      line.includes("machines.gpu-host.guest.boot.reference"),
    ),
  )
})

test("checkPolicy() holds the guest's references to what level sealed needs", () => {
  const guested = guestedMachine()
  assert.ok(guested.guest !== "none")
  const plain: BootReference = { ...bootReference, appliance: "none" }
  const loose = referenceDigest(plain)
  const machine = { ...guested, guest: { ...guested.guest, boot: { reference: loose } } }
  const context = { time: now, references: new Map([...references, [loose, plain]]) }
  const found = checkPolicy(onMachine(machine), context).map(({ field }) => field)
  assert.ok(found.includes("machines.gpu-host.guest.boot.reference"), found.join())
})

test("explainPolicy() says of a TEE what is trusted, proved and left open, with and without a guest that proves itself", () => {
  for (const machine of [enclaveMachine, guestedMachine()]) {
    const explanation = explainPolicy(onMachine(machine))
    const [row] = explanation.machines
    assert.ok(row)
    assert.equal(row.level, "enclave")
    const text = explanationText(explanation)
    for (const line of [...row.covers, ...row.leaves, ...row.proved, ...row.stated]) assert.ok(text.includes(line), line)
    assert.match(row.proved.join("\n"), /Intel TDX/)
    assert.match(row.leaves.join("\n"), /memory.*TEE\.fail/)
    const proves = row.proved.some((line) => line.startsWith("inside, by a TPM"))
    assert.equal(proves, machine.guest !== "none")
    assert.equal(/administrators inside the guest/.test(row.leaves.join("\n")), machine.guest === "none")
  }
  const administrator = policySights(onMachine(enclaveMachine)).find(({ party }) => party === "administrators of gpu-host")
  assert.deepEqual([administrator?.sight, administrator?.words], ["never", "never, as far as the measured guest lets nobody in"])
})

test("policyWarnings() cries out a laboratory's TEE as it does a laboratory's TPM", () => {
  const trials = onMachine({ ...enclaveMachine, accept: [{ tdx: { ...tdxDemand, laboratoryRoots: [named("lab")] } }] })
  assert.ok(policyWarnings(trials).some((line) => line.startsWith("INSECURE LABORATORY: machine gpu-host")))
  assert.ok(!policyWarnings(onMachine(enclaveMachine)).some((line) => line.startsWith("INSECURE LABORATORY")))
})

test("diffPolicies() says what changes where the TEE's or the guest's demands do", () => {
  const words = (from: Machine, to: Machine): readonly string[] => [
    ...new Set(diffPolicies(onMachine(from), onMachine(to)).fields.map(({ words }) => words)),
  ]
  assert.deepEqual(words(enclaveMachine, { ...enclaveMachine, accept: [{ tdx: { ...tdxDemand, mrSeam: ["00".repeat(48)] } }] }), [
    "other TEEs, or other programs in them, count as gpu-host",
  ])
  assert.deepEqual(words(enclaveMachine, guestedMachine()), ["the guest inside the TEE of gpu-host must prove something else"])
})

test("policyTemplate() drafts an enclave machine whose every open place policy check names", () => {
  const draft = { study: "s", stakeholders: [], machine: { level: "enclave" } } as const
  const open = (text: string): readonly string[] => {
    try {
      parsePolicy(encodeUtf8(text), "yaml")
    } catch (error) {
      assert.ok(error instanceof PolicyError)
      return error.problems
        .filter(({ field }) => field.startsWith("machines."))
        .map(({ code, field, fix }) => `${code} ${field} ${fix === "" ? "" : "how"}`)
    }
    return []
  }
  const places = open(policyTemplate(draft))
  assert.ok(
    places.length > 0 && places.every((place) => place.startsWith("not-filled-in machines.gpu-host.accept.0.tdx.") && place.endsWith("how")),
    places.join(),
  )
  const known = { ...draft, machine: { level: "enclave", accept: enclaveMachine.accept } } as const
  assert.deepEqual(open(policyTemplate(known)), [])
  const guested = open(policyTemplate({ ...draft, machine: { ...known.machine, endorsementKeys: [named("ek")] } }))
  assert.deepEqual(guested, ["not-filled-in machines.gpu-host.guest.boot.reference how", "not-filled-in machines.gpu-host.guest.ima.reference how"])
})

// --- which machine may be one that a policy means ---------------------------------------------------------------------------------------------------

const tpm: MachineIdentity = { endorsementKey: named("ek"), root: named("root"), rootKind: "vendor", description: "", attestationKeyName: "000b" }
const tee: MachineIdentity = { tee: "tdx", platform: "11".repeat(16), root: named("root"), rootKind: "vendor", description: "" }

test("listsMachine() knows a TPM by its endorsement key, and a TEE by kind, platform and laboratory", () => {
  const only = (platforms: "any" | readonly string[], laboratoryRoots: readonly ReturnType<typeof named>[] = []): Machine => ({
    ...enclaveMachine,
    accept: [{ tdx: { ...tdxDemand, platforms, laboratoryRoots } }],
  })
  assert.ok(listsMachine(hostMachine(), tpm))
  assert.ok(listsMachine(guestedMachine(), tpm))
  assert.ok(!listsMachine(hostMachine(), { ...tpm, endorsementKey: named("other") }))
  assert.ok(!listsMachine(enclaveMachine, tpm))
  assert.ok(listsMachine(only("any"), tee))
  assert.ok(listsMachine(only("any"), { ...tee, platform: null }))
  assert.ok(listsMachine(only(["11".repeat(16)]), tee))
  assert.ok(!listsMachine(only(["22".repeat(16)]), tee))
  assert.ok(!listsMachine(only(["11".repeat(16)]), { ...tee, platform: null }))
  assert.ok(!listsMachine(only("any"), { ...tee, tee: "sgx" }))
  assert.ok(!listsMachine(only("any"), { ...tee, rootKind: "laboratory" }))
  assert.ok(listsMachine(only("any", [named("root")]), { ...tee, rootKind: "laboratory" }))
  assert.ok(!listsMachine(guestedMachine(), tee))
  assert.ok(!listsMachine(hostMachine(), tee))
  const snp = { snp: { chips: ["33".repeat(64)], laboratoryRoots: [] } as unknown as SnpRequirement }
  assert.ok(listsMachine({ ...enclaveMachine, accept: [snp] }, { ...tee, tee: "snp", platform: "33".repeat(64) }))
  assert.ok(!listsMachine({ ...enclaveMachine, accept: [snp] }, { ...tee, tee: "snp", platform: "44".repeat(64) }))
})

test("namesMachine() knows no machine by any, which is everybody's", () => {
  const only = (platforms: "any" | readonly string[]): Machine => ({ ...enclaveMachine, accept: [{ tdx: { ...tdxDemand, platforms } }] })
  assert.ok(namesMachine(hostMachine(), tpm))
  assert.ok(!namesMachine(hostMachine(), { ...tpm, endorsementKey: named("other") }))
  assert.ok(namesMachine(only(["11".repeat(16)]), tee))
  assert.ok(!namesMachine(only(["22".repeat(16)]), tee))
  assert.ok(!namesMachine(only("any"), tee))
  assert.ok(!namesMachine(only("any"), { ...tee, platform: null }))
  assert.ok(!namesMachine(only(["11".repeat(16)]), { ...tee, rootKind: "laboratory" }))
  assert.ok(namesMachine({ ...enclaveMachine, accept: [...acceptOf(only("any")), ...acceptOf(only(["11".repeat(16)]))] }, tee))
})

function acceptOf(machine: Machine): Extract<Machine, { level: "enclave" }>["accept"] {
  return machine.level === "enclave" ? machine.accept : []
}

test("listsMachine() knows a confidential VM of Azure by its processor, and takes no bare TEE for it", () => {
  const { requirement } = new AzureVm(makeLabAuthority({ keys: makeLabKeys() }))
  assert.ok("tdx" in requirement.tee)
  const [platform = ""] = requirement.tee.tdx.platforms
  const [root] = requirement.tee.tdx.laboratoryRoots
  assert.ok(root !== undefined)
  const vm = { ...tee, tee: "azure-vtpm", platform, root, rootKind: "laboratory" } as const
  const machine = { ...enclaveMachine, accept: [{ azure: requirement }] }
  assert.ok(listsMachine(machine, vm))
  assert.ok(!listsMachine(machine, { ...vm, tee: "tdx" }))
  assert.ok(!listsMachine(machine, { ...vm, platform: "00".repeat(16) }))
  assert.ok(!listsMachine(machine, { ...vm, root: named("other") }))
  assert.ok(!listsMachine({ ...enclaveMachine, accept: [requirement.tee] }, vm))
})

test("checkPolicy() wants of a confidential VM of Azure both stated: which paravisor, and what the guest booted", () => {
  const { requirement } = new AzureVm(makeLabAuthority({ keys: makeLabKeys() }))
  assert.ok("tdx" in requirement.tee)
  const at = "machines.gpu-host.accept.0.azure"
  const of = (change: Partial<AzureRequirement>): readonly string[] =>
    check({ ...enclaveMachine, accept: [{ azure: { ...requirement, ...change } }] })
  assert.deepEqual(of({}), [])
  const open = { "0": "any", "1": "any", "2": "any", "3": "any" } as const
  assert.deepEqual(of({ tee: { tdx: { ...requirement.tee.tdx, mrTd: "any", rtmrs: open } } }), [`wrong-value ${at}.tee.tdx`])
  const anyGuest = Object.fromEntries(Object.keys(requirement.pcrs).map((pcr) => [pcr, "any"])) as unknown as AzureRequirement["pcrs"]
  assert.deepEqual(of({ pcrs: anyGuest }), [`wrong-value ${at}.pcrs`])
  assert.deepEqual(of({ pcrs: { ...anyGuest, "11": ["ab".repeat(32)] } }), [])
  assert.equal(of({ pcrs: { ...requirement.pcrs, "4": ["ab".repeat(32), "ab".repeat(32)] } }).length, 1)
  const [key] = requirement.attestationKeys
  assert.equal(of({ attestationKeys: [key ?? "", key ?? ""] }).length, 1)
  assert.deepEqual(problems({ ...enclaveMachine, accept: [{ azure: { ...requirement, vmUniqueId: undefined } }] }).length > 0, true)
})

test("explainPolicy() says of a confidential VM of Azure that Microsoft's paravisor sees everything, on machines and on the manager", () => {
  const azure = new AzureVm(makeLabAuthority({ keys: makeLabKeys() })).requirement
  assert.ok("tdx" in azure.tee)
  const study = { ...onMachine({ ...enclaveMachine, accept: [{ azure }] }), manager: { accept: [{ azure }] } }
  const text = explanationText(explainPolicy(study))
  assert.match(text, /trusts the processor's maker, Microsoft's paravisor/)
  assert.match(text, /proved by measurement: on Azure, which paravisor/)
  assert.match(text, /does not protect from: Microsoft: its paravisor runs at the highest privilege level/)
  assert.doesNotMatch(text, /a paravisor that nobody here knows/)
  const sights = policySights(study).filter(({ party }) => party === "Microsoft")
  assert.ok(sights.some(({ words, sight }) => sight === "can-read" && words.includes("on the manager")))
  assert.ok(sights.some(({ words, sight }) => sight === "can-read" && words.includes("on gpu-host")))
  assert.deepEqual(
    policySights(onMachine(enclaveMachine)).filter(({ party }) => party === "Microsoft"),
    [],
  )
  const signerOnly = { ...azure, tee: { tdx: { ...azure.tee.tdx, mrTd: "any" } } } as const
  assert.match(
    explanationText(explainPolicy(onMachine({ ...enclaveMachine, accept: [{ azure: signerOnly }] }))),
    /a paravisor that nobody here knows/,
  )
})

test("canShow() is whether the machine has the pieces that are demanded", () => {
  assert.deepEqual(
    [hostMachine(), guestedMachine(), enclaveMachine].map((machine) => canShow(machine, tpm)),
    [true, true, false],
  )
  assert.deepEqual(
    [hostMachine(), guestedMachine(), enclaveMachine].map((machine) => canShow(machine, tee)),
    [false, false, true],
  )
})

test("listingOf() asks all machines of all policies", () => {
  const lists = listingOf([onMachine(enclaveMachine), onMachine(guestedMachine())])
  assert.ok(lists(tpm) && lists(tee))
  assert.ok(!lists({ ...tpm, endorsementKey: named("other") }))
  assert.ok(!listingOf([policy])(tee))
  assert.ok(!listingOf([])(tpm))
})
