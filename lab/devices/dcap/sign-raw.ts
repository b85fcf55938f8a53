import { sign } from "node:crypto"
import type { LabKey } from "./x509.ts"

/** ECDSA with SHA-256 as r ‖ s, as enclaves and Intel's documents carry it. */
export function signRaw(key: LabKey, message: Uint8Array): Uint8Array {
  return new Uint8Array(sign("sha256", message, { key: key.privateKey, dsaEncoding: "ieee-p1363" }))
}
