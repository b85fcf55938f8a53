import { UnavailableError } from "../../../bytes/error.ts"
import { deviceError, hostFiles, type DeviceFiles } from "./device-files.ts"
import { gramineFolder } from "./gramine.ts"

/** Files of the sealing keys that Gramine has of the processor (EGETKEY with policy MRENCLAVE or MRSIGNER). Gramine documentation, "Manifest syntax", encrypted files. */
const sealingKeyFiles = { mrenclave: "_sgx_mrenclave", mrsigner: "_sgx_mrsigner" } as const

const sealingKeyBytes = 16

/**
 * The SGX sealing key of this enclave (`mrenclave`) or of all enclaves of its signer (`mrsigner`), on this processor: 16 bytes, secret, the same at every start.
 * The manifest must mount nothing under the same key: one key for two things.
 * @throws {UnavailableError} `unsupported` outside SGX under Gramine, `permission-denied`, `unavailable`
 */
export async function readGramineSealingKey(
  to: keyof typeof sealingKeyFiles,
  folder: string = gramineFolder,
  files: DeviceFiles = hostFiles,
): Promise<Uint8Array> {
  const path = `${folder}/keys/${sealingKeyFiles[to]}`
  const key = await read(path, files)
  if (key.length !== sealingKeyBytes)
    throw new UnavailableError("unsupported", `${path} has ${key.length} bytes, a sealing key has ${sealingKeyBytes}: is this SGX?`)
  if (key.every((byte) => byte === 0)) throw new UnavailableError("unsupported", `${path} holds zeros, which is no key`)
  return key
}

async function read(path: string, files: DeviceFiles): Promise<Uint8Array> {
  try {
    return await files.read(path)
  } catch (cause) {
    throw deviceError(
      path,
      "an SGX enclave under Gramine (a TDX or SEV-SNP guest gives a program no sealing key here: share the vault key among custodians)",
      cause,
    )
  }
}
