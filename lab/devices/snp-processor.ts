import type { Digest } from "../../src/bytes/digest.ts"
import { parseHex } from "../../src/bytes/text.ts"
import type { DeviceFiles } from "../../src/evidence/tee/collectors/device-files.ts"
import { encodeVouchers } from "../../src/evidence/tee/vouchers.ts"
import { certificateFingerprint } from "../../src/pki/certificate.ts"
import type { TeeRequirement } from "../../src/policy/tee.ts"
import type { Launch } from "../machine/launch.ts"
import type { SnpDevice } from "./amd-snp.ts"
import { labSnpRequirement, snpGuestFiles } from "./guest-files.ts"
import { measureSnp } from "./snp-launch.ts"

/**
 * A laboratory's processor with SEV-SNP: reports the launch digest of what a machine starts from. Its device is files as configfs-tsm has them, for programs on this host: no guest of
 * QEMU's can be given these. INSECURE LABORATORY: its keys lie in this process, and it keeps no memory from anybody.
 */
export class SnpProcessor {
  readonly device: SnpDevice
  readonly #time: number

  /** `time`: milliseconds since 1970 at which the revocation list must be in force. */
  constructor(device: SnpDevice, time = Date.now()) {
    this.device = device
    this.#time = time
  }

  /** What a policy names in `laboratoryRoots`. */
  get rootFingerprint(): Digest {
    return certificateFingerprint(this.device.root.certificate)
  }

  /** Text of a collateral file as managers and `perun evidence verify` take it: certificates of the chip's key, root included, and the revocation list. */
  get collateral(): string {
    const { authority, root } = this.device
    const list = authority.revocationList({ thisUpdate: isoTime(this.#time - 10 * dayMs), nextUpdate: isoTime(this.#time + 20 * dayMs) })
    const { intermediates, ...rest } = this.device.endorsements("vcek", {}, [list])
    return encodeVouchers({ kind: "snp", report: new Uint8Array(0), endorsements: { ...rest, intermediates: [...intermediates, root.certificate] } })
  }

  /** Demands that exactly this launch on this processor meets. */
  requirementOf(launch: Launch): TeeRequirement {
    return { snp: { ...labSnpRequirement(this.device), measurement: [measureSnp(launch)] } }
  }

  /** What a guest that started from this would ask. */
  filesOf(launch: Launch): DeviceFiles {
    return snpGuestFiles(this.device, undefined, { measurement: parseHex(measureSnp(launch)) })
  }
}

function isoTime(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z")
}

const dayMs = 86_400_000
