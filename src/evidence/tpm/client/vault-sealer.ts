import type { PcrSelection } from "../format.ts"
import type { HostTpm } from "./host-tpm.ts"
import { encodeSealedBytes, parseSealedBytes } from "./seal.ts"

/** Seals small secrets into blobs that only this machine, in the state it is in now, opens again. */
export interface PcrSealer {
  seal(secret: Uint8Array): Promise<Uint8Array>
  /** @throws {TpmError} `policy-failed` (another state, or capped), `wrong-credential` (another TPM); {MalformedError}; {UnavailableError} */
  unseal(sealed: Uint8Array): Promise<Uint8Array>
}

/**
 * The register that `HostTpm.cap` changes after a vault was opened: the last one that no locality can reset (TCG PC Client Platform TPM Profile, 4.6.2). systemd
 * extends it during boot, with values that stay the same from boot to boot.
 */
export const capRegister = 15

/** Firmware (0, 2), boot loader and kernel (4), Secure Boot (7), command line and initial ram disk (8, 9), and the register of the cap. */
export const vaultRegisters: PcrSelection = { bank: "sha256", pcrs: [0, 2, 4, 7, 8, 9, capRegister] }

/**
 * A sealer over registers. It does not cap: a program that caps after it opened its vault (`tpm.cap(capRegister, "sha256")`) keeps the vault from everybody who
 * gets onto the machine later, and can itself be started again only after a reboot.
 */
export function pcrSealer(tpm: HostTpm, registers: PcrSelection): PcrSealer {
  return {
    seal: async (secret) => encodeSealedBytes(await tpm.sealToPcrs(secret, registers)),
    unseal: async (sealed) => await tpm.unseal(parseSealedBytes(sealed)),
  }
}
