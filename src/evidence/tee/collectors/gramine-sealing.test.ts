import assert from "node:assert/strict"
import { test } from "node:test"
import type { DeviceFiles } from "./device-files.ts"
import { readGramineSealingKey } from "./gramine-sealing.ts"

const files = (read: DeviceFiles["read"]): DeviceFiles => ({
  makeFolder: async () => undefined,
  removeFolder: async () => undefined,
  write: async () => undefined,
  read,
})
const systemError = (code: string): Error => Object.assign(new Error(code), { code })

test("readGramineSealingKey() reads the key of the enclave, or of its signer, from Gramine's file of it", async () => {
  const asked: string[] = []
  const device = files(async (path) => {
    asked.push(path)
    return new Uint8Array(16).fill(asked.length)
  })
  assert.deepEqual(await readGramineSealingKey("mrenclave", undefined, device), new Uint8Array(16).fill(1))
  assert.deepEqual(await readGramineSealingKey("mrsigner", "/folder", device), new Uint8Array(16).fill(2))
  assert.deepEqual(asked, ["/dev/attestation/keys/_sgx_mrenclave", "/folder/keys/_sgx_mrsigner"])
})

test("readGramineSealingKey() takes no key of another length, and no zeros", async () => {
  for (const key of [new Uint8Array(0), new Uint8Array(15).fill(1), new Uint8Array(32).fill(1), new Uint8Array(16)])
    await assert.rejects(
      readGramineSealingKey(
        "mrenclave",
        "",
        files(async () => key),
      ),
      { code: "unsupported" },
    )
})

test("readGramineSealingKey() says where there is no such key, and what to do instead", async () => {
  const failing = (code: string): DeviceFiles =>
    files(async () => {
      throw systemError(code)
    })
  await assert.rejects(readGramineSealingKey("mrenclave", "", failing("ENOENT")), {
    code: "unsupported",
    message: /TDX or SEV-SNP .* share the vault key/,
  })
  await assert.rejects(readGramineSealingKey("mrenclave", "", failing("EACCES")), { code: "permission-denied" })
  await assert.rejects(readGramineSealingKey("mrenclave", "", failing("EIO")), { code: "unavailable" })
})
