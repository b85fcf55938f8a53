import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import { TpmError } from "../evidence/tpm/client/errors.ts"
import { noSoftwareTpm, startSoftwareTpm } from "../evidence/tpm/client/swtpm.testing.ts"
import { hostTpmSealer } from "./tpm-sealer.ts"
import { createVault, loadVault } from "./vault.ts"

const random = (length: number): Uint8Array => new Uint8Array(length).fill(7)
const policyFailed = (error: unknown): boolean => error instanceof TpmError && error.code === "policy-failed"

test("the vault key opens on its TPM, again after a restart, and no more once it is capped", { skip: noSoftwareTpm }, async (t) => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const folder = await mkdtemp(join(tmpdir(), "perun-sealer-"))
  t.after(() => rm(folder, { recursive: true }))
  const path = join(folder, "vault.json")
  const made = await createVault(path, random, hostTpmSealer(tpm, { cap: false }))
  assert.equal(made.kind, "tpm")
  for (let start = 0; start < 2; start++) assert.deepEqual((await loadVault(path, hostTpmSealer(tpm, { cap: false }))).key, made.key)
  assert.deepEqual((await loadVault(path, hostTpmSealer(tpm, { cap: true }))).key, made.key)
  await assert.rejects(loadVault(path, hostTpmSealer(tpm, { cap: false })), policyFailed)
})

test("the vault key does not open after the boot state changed", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await HostTpm.open(software.location)
  const sealer = hostTpmSealer(tpm, { cap: false })
  const sealed = await sealer.seal(random(32))
  await tpm.pcrExtend(9, "sha256", random(32))
  await assert.rejects(sealer.unseal(sealed), policyFailed)
})
