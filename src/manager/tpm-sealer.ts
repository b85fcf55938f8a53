import { encodeSealedBytes, parseSealedBytes } from "../evidence/tpm/client/seal.ts"
import type { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import type { TpmSealer } from "./vault.ts"

/**
 * Registers that the vault key is sealed to: firmware, boot loader, kernel and Secure Boot state, and 15, which TCG's PC Client profile leaves to
 * applications and which `cap` extends.
 */
const bootRegisters = [0, 2, 4, 7, 8, 9] as const
const capRegister = 15

export interface SealerOptions {
  /**
   * Extend PCR 15 once the key is out: until the next boot no other program can have the TPM open it, and neither can a manager that was killed and is
   * started again. Without it a restart works, and root on the manager's machine can unseal the key as the manager does.
   */
  readonly cap: boolean
}

/** Seals the vault key to this machine's TPM in its present boot state. Nothing else on the machine may extend PCR 15 before the manager starts. */
export function hostTpmSealer(tpm: HostTpm, options: SealerOptions): TpmSealer {
  return {
    seal: async (secret) => encodeSealedBytes(await tpm.sealToPcrs(secret, { bank: "sha256", pcrs: [...bootRegisters, capRegister] })),
    async unseal(sealed) {
      const secret = await tpm.unseal(parseSealedBytes(sealed))
      if (options.cap) await tpm.cap(capRegister, "sha256")
      return secret
    },
  }
}
