import assert from "node:assert/strict"
import { test } from "node:test"
import type { Launch } from "../machine/launch.ts"
import { flipped, smallLaunch } from "./launch.testing.ts"
import { measureBehindFirmware, measureSnp } from "./snp-launch.ts"

const launch = smallLaunch()
const nothing = { kernel: new Uint8Array(0), initrd: new Uint8Array(0), commandLine: "", processors: 1 }

/** Digests that sev-snp-measure's tests state for EDK2's AmdSev firmware, an empty kernel and ram disk, and EPYC-v4 (github.com/virtee/sev-snp-measure, tests/test_guest.py). */
const amdSev = "edcf6d1c57ce868a167c990f58c8667c698269ef9e0803246419eea914186343054d557e1f17acd93b032c106bc70d25"
const stated = [
  [
    "cab7e085874b3acfdbe2d96dcaa3125111f00c35c6fc9708464c2ae74bfdb048a198cb9a9ccae0b3e5e1a33f5f249819",
    {},
    "db06fb267824b1ccb56edbe2a9c2ce88841bca5090dc6dac91d9cd30f3c2c0bf42daccb30d55d6625bfbf0dae5c50c6d",
  ],
  [
    amdSev,
    { commandLine: "console=ttyS0 loglevel=7" },
    "f07864303ad8243132029e8110b92805c78d1135a15da75f67abb9a711d78740347f24ee76f603e650ec4adf3611cc1e",
  ],
  [amdSev, { processors: 4 }, "1c784beb8c49aa604b7fd57fbc73b36ec53a3f5fb48a2b895ad6cc2ea15d18ee7cc15e3e57c792766b45f944c3e81cfe"],
] as const
for (const [firmware, change, expected] of stated)
  test(`measureBehindFirmware() gives the launch digest that others compute: ${JSON.stringify(change)}`, () => {
    assert.equal(measureBehindFirmware(firmware, { ...nothing, ...change }), expected)
  })

const changes: readonly (readonly [what: string, change: Partial<Launch>])[] = [
  ["the first byte of the firmware", { firmwareCode: flipped(launch.firmwareCode, 0) }],
  ["the last byte of the firmware", { firmwareCode: flipped(launch.firmwareCode, 8191) }],
  ["the kernel", { kernel: flipped(launch.kernel, 0x5ff) }],
  ["the ram disk", { initrd: flipped(launch.initrd, 4999) }],
  ["the command line", { commandLine: `${launch.commandLine} init=/bin/sh` }],
  ["the number of processors", { processors: 4 }],
]
for (const [what, change] of changes)
  test(`measureSnp() shows a change of ${what}`, () => {
    assert.notEqual(measureSnp({ ...launch, ...change }), measureSnp(launch))
  })

test("measureSnp() says nothing of variable store and memory, and refuses firmware of part pages", () => {
  assert.equal(measureSnp({ ...launch, firmwareVariables: new Uint8Array(0), memoryMiB: 512 }), measureSnp(launch))
  assert.throws(() => measureSnp({ ...launch, firmwareCode: new Uint8Array(100) }), { name: "LabError", code: "build-failed" })
})
