import { createHash } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { concatBytes } from "../../src/bytes/compare.ts"
import { sha256 } from "../../src/bytes/digest.ts"
import { encodeUtf8, parseHex } from "../../src/bytes/text.ts"
import { ByteWriter } from "../../src/bytes/writer.ts"
import type { TdReport } from "../../src/evidence/tdx/format.ts"

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

/** TDREPORT_STRUCT of what a quote says, 1024 bytes, with a MAC that means nothing. Byte strings of `report` are hexadecimal. */
export function makeTdReport(report: Omit<TdReport, "body">): Uint8Array {
  const tcbInfo = new ByteWriter().bytes(new Uint8Array(8)).bytes(parseHex(report.teeTcbSvn)).bytes(parseHex(report.mrSeam))
  tcbInfo.bytes(parseHex(report.mrSignerSeam)).bytes(new Uint8Array(119))
  const tdInfo = new ByteWriter()
  const fields = [report.tdAttributes, report.xfam, report.mrTd, report.mrConfigId, report.mrOwner, report.mrOwnerConfig, ...report.rtmrs]
  for (const field of fields) tdInfo.bytes(parseHex(field))
  tdInfo.bytes(new Uint8Array(112))
  const writer = new ByteWriter().u32le(0x81).bytes(new Uint8Array(12)).bytes(new Uint8Array(16))
  for (const part of [tcbInfo, tdInfo]) writer.bytes(new Uint8Array(createHash("sha384").update(part.take()).digest()))
  writer.bytes(parseHex(report.reportData)).bytes(new Uint8Array(64))
  return writer.bytes(tcbInfo.take()).bytes(new Uint8Array(17)).bytes(tdInfo.take()).take()
}
