import { exists } from "../cache.ts"
import { LabError } from "../error.ts"

/** OVMF as the distribution has it: code that machines share, and the variable store that each copies. */
export interface Firmware {
  readonly code: string
  readonly variables: string
}

/** @throws {LabError} `missing-packages` */
export async function findFirmware(): Promise<Firmware> {
  for (const firmware of places) if ((await exists(firmware.code)) && (await exists(firmware.variables))) return firmware
  throw new LabError("missing-packages", "no OVMF firmware: install the package ovmf")
}

const places: readonly Firmware[] = [
  { code: "/usr/share/OVMF/OVMF_CODE_4M.fd", variables: "/usr/share/OVMF/OVMF_VARS_4M.fd" },
  { code: "/usr/share/OVMF/OVMF_CODE.fd", variables: "/usr/share/OVMF/OVMF_VARS.fd" },
]
