import type { KeyObject } from "node:crypto"
import { concatBytes } from "../../src/bytes/compare.ts"
import { sha256 } from "../../src/bytes/digest.ts"
import { encodeUtf8 } from "../../src/bytes/text.ts"

/** What Azure's paravisor says of a laboratory's virtual TPM: the JSON of its runtime data, with a knob for everything. INSECURE. */
export interface RuntimeDataOptions {
  readonly attestationKey: KeyObject
  readonly endorsementKey?: KeyObject
  /** Members of `vm-configuration` to change or add; undefined leaves one out. */
  readonly vmConfiguration?: Readonly<Record<string, unknown>>
  /** Hexadecimal; undefined leaves it out. */
  readonly userData?: string | undefined
  /** Members of the attestation key's JWK to change or add. */
  readonly jwk?: Readonly<Record<string, unknown>>
  /** Members of the document to change or add. */
  readonly document?: Readonly<Record<string, unknown>>
}

export function makeRuntimeData(options: RuntimeDataOptions): Uint8Array {
  const keys = [{ ...jwkOf("HCLAkPub", "sign", options.attestationKey), ...options.jwk }]
  const document = {
    keys: options.endorsementKey === undefined ? keys : [...keys, jwkOf("HCLEkPub", "encrypt", options.endorsementKey)],
    "vm-configuration": {
      "console-enabled": true,
      "secure-boot": true,
      "tpm-enabled": true,
      vmUniqueId: "00000000-0000-4000-8000-000000000000",
      ...options.vmConfiguration,
    },
    "user-data": "userData" in options ? options.userData : "00".repeat(64),
    ...options.document,
  }
  return encodeUtf8(JSON.stringify(document))
}

/** Report data that bind runtime data: what the paravisor asks the hardware to sign. */
export function reportDataFor(runtimeData: Uint8Array): Uint8Array {
  return concatBytes(sha256(runtimeData), new Uint8Array(32))
}

function jwkOf(kid: string, use: string, key: KeyObject): Record<string, unknown> {
  const { n, e, kty } = key.export({ format: "jwk" })
  return { kid, key_ops: [use], kty, e, n }
}
