import assert from "node:assert/strict"
import { test } from "node:test"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { digestOf } from "../../bytes/digest.ts"
import { encodeHex } from "../../bytes/text.ts"
import { decodeMachineBundle, enrolmentFields, machineBundleSchema, sessionDigest, type DemandedPieces } from "../../evidence/bundle.ts"
import { hostPcrs } from "../../evidence/host/verify.ts"
import { verifyMachine } from "../../evidence/machine/verify.ts"
import { sessionReportData } from "../../evidence/report-data.ts"
import { decodeTeeEvidence, type TeeEvidence } from "../../evidence/tee/format.ts"
import { teeRootsFor } from "../../evidence/tee/roots.ts"
import { verifyTee } from "../../evidence/tee/verify.ts"
import { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import { certificateFingerprint } from "../../pki/certificate.ts"
import { openDevices } from "../devices.ts"
import { noReplayedMachine, replayMachine } from "../testing/replayed-machine.testing.ts"
import { MachineAttester, type OpenSession } from "./attest.ts"
import type { EnrolmentExchange } from "./enrol.ts"

const intel = makeLabAuthority({ keys: makeLabKeys() })
const root = certificateFingerprint(intel.root.certificate)
const digest = digestOf(new Uint8Array(1))

const tee = async (reportData: Uint8Array): Promise<TeeEvidence> => ({
  kind: "tdx",
  quote: makeTdxQuote(intel, reportData, { version: 5, body: "1.5" }),
  collateral: intel.tdxCollateral,
})

const session: OpenSession = {
  ...{ purpose: "claim", version: 1, manager: "00".repeat(16), nonce: "11".repeat(32), hpkeKey: "AAAA", tlsKey: digest },
  ...{ policy: digest, job: "train", run: "22".repeat(16), lease: "33".repeat(16) },
}

test(
  "attest() makes what verifyMachine() takes, of each kind of machine, and says what the outermost piece carries",
  { skip: noReplayedMachine },
  async () => {
    await using machine = await replayMachine()
    await machine.measure(0, 20)
    await machine.show(20)
    await using tpm = await HostTpm.open(machine.location)
    const attester = new MachineAttester({ tpm, tee }, machine.paths)
    const name = await tpm.attestationKeyName()
    for (const pieces of ["tpm", "tee", "tee-with-tpm"] as const satisfies readonly DemandedPieces[]) {
      const { bundle, session: carried } = await attester.attest({ session, pieces, imaFrom: 0, withBootLog: true })
      const { claims } = verifyMachine(decodeMachineBundle(machineBundleSchema.parse(bundle)), {
        demanded: pieces,
        session: { ...session, akName: pieces === "tee" ? null : name },
        host: { requiredPcrs: hostPcrs, quirks: [], identity: "unproved", previous: "none" },
        tee: (evidence) => ({ roots: teeRootsFor(evidence, [root]), time: labTime, ccelQuirks: [] }),
      })
      assert.equal(claims.session, `sha256:${encodeHex(carried)}`)
      assert.deepEqual([claims.host !== undefined, claims.tee !== undefined], [pieces !== "tee", pieces !== "tpm"])
    }
  },
)

test("attest() says which piece the configuration lacks", async () => {
  const request = { session, imaFrom: 0, withBootLog: true } as const
  for (const pieces of ["tpm", "tee-with-tpm"] as const)
    await assert.rejects(new MachineAttester({ tee }).attest({ ...request, pieces }), { code: "unsupported", message: /TPM/ })
  await assert.rejects(new MachineAttester({}).attest({ ...request, pieces: "tee" }), { code: "unsupported", message: /TEE/ })
})

test("enrol() of a machine without a TPM shows its TEE over the manager's nonce and the agent's key", async () => {
  const as = { manager: "00".repeat(16), tlsKey: digest }
  const nonce = "55".repeat(32)
  const shown: TeeEvidence[] = []
  const exchange: EnrolmentExchange = {
    begin: async () => ({ enrolment: "one", nonce, manager: as.manager }),
    answer: async (_, answer) => {
      assert.ok("evidence" in answer)
      shown.push(decodeTeeEvidence(answer.evidence))
      return { host: "td", enrolledAt: "", retired: false, identity: { tee: "tdx", platform: null, root, rootKind: "laboratory", description: "" } }
    },
  }
  assert.equal((await new MachineAttester({ tee }).enrol("td", as, exchange)).host, "td")
  const [evidence] = shown
  assert.ok(evidence)
  const reportData = sessionReportData(sessionDigest(enrolmentFields({ ...as, nonce })))
  assert.equal(verifyTee(evidence, { reportData, roots: teeRootsFor(evidence, [root]), time: labTime, ccelQuirks: [] }).kind, "tdx")
})

test("openDevices() opens what the configuration says, and refuses a machine that shows nothing", async () => {
  await assert.rejects(openDevices({ tpm: false }), { code: "configuration" })
  await using devices = await openDevices({ tpm: false, tee: "tsm" })
  assert.deepEqual(devices.names, { tee: "tsm" })
  await assert.rejects(openDevices({ tee: "tsm" }, { unix: "/nowhere/tpm" }))
})
