import { parseSealedBytes, encodeSealedBytes } from "../evidence/tpm/client/seal.ts"
import type { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import type { TpmSealer } from "./vault.ts"

/**
 * Registers that the vault key is sealed to: firmware, boot loader, kernel and Secure Boot state, and 15, which `unseal` extends at once, so that until the
 * next boot no other program on the machine can open the key again. PCR 15 is left to the operating system's applications by TCG's PC Client profile.
 */
const bootRegisters = [0, 2, 4, 7, 8, 9] as const
const capRegister = 15

/** Seals the vault key to this machine's TPM in its present boot state. The manager's host must not extend PCR 15 itself before the manager starts. */
export function hostTpmSealer(tpm: HostTpm): TpmSealer {
  return {
    seal: async (secret) => encodeSealedBytes(await tpm.sealToPcrs(secret, { bank: "sha256", pcrs: [...bootRegisters, capRegister] })),
    async unseal(sealed) {
      const secret = await tpm.unseal(parseSealedBytes(sealed))
      await tpm.cap(capRegister, "sha256")
      return secret
    },
  }
}
