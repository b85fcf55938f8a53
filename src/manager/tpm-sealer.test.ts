import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeBase64 } from "../bytes/text.ts"
import { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import { TpmError } from "../evidence/tpm/client/errors.ts"
import { noSoftwareTpm, startSoftwareTpm } from "../evidence/tpm/client/swtpm.testing.ts"
import { hostTpmSealer } from "./tpm-sealer.ts"
import { makeVault, openVault } from "./vault.ts"

const random = (length: number): Uint8Array => new Uint8Array(length).fill(7)
const policyFailed = (error: unknown): boolean => error instanceof TpmError && error.code === "policy-failed"

test("the vault key opens on its TPM, again after a restart, and no more once it is capped", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const { file, key } = await makeVault({ kind: "tpm", sealer: hostTpmSealer(tpm, { cap: false }) }, "1".repeat(32), random)
  assert.ok(file.kind === "tpm" && !JSON.stringify(file).includes(encodeBase64(key)))
  const open = async (cap: boolean): Promise<Uint8Array> => openVault(file, { sealer: hostTpmSealer(tpm, { cap }) })
  for (let start = 0; start < 2; start++) assert.deepEqual(await open(false), key)
  assert.deepEqual(await open(true), key)
  await assert.rejects(open(false), policyFailed)
})

test("the vault key does not open after the boot state changed", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const sealer = hostTpmSealer(tpm, { cap: false })
  const sealed = await sealer.seal(random(32))
  await tpm.pcrExtend(9, "sha256", random(32))
  await assert.rejects(sealer.unseal(sealed), policyFailed)
})
