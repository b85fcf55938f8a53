import { readAll } from "../../bytes/reader.ts"
import { encodeHex } from "../../bytes/text.ts"
import { EvidenceError } from "../errors.ts"
import { algorithmName, isHashName } from "./algorithms.ts"
import type { PcrValues } from "./quote.ts"

/** HASH_COUNT of tpm2-tss: the C array has this many places, used or not. */
const selectionPlaces = 16
/** TPML_DIGEST of tpm2-tss: eight digests of up to 64 bytes. */
const digestPlaces = 8
const digestPlaceBytes = 64
/** 24 registers of 16 banks fill 48 lists; real files hold a handful. */
const maxLists = 48

/**
 * Reads the register file of `tpm2_quote --pcr` (tpm2-tools 4 and 5, format `serialized`): the C structures TPML_PCR_SELECTION and TPML_DIGEST[] as they lie in
 * the memory of a little-endian machine.
 * @throws {MalformedError} form; @throws {EvidenceError} `unsupported` bank
 */
export function parseTpm2ToolsPcrs(bytes: Uint8Array): PcrValues {
  return readAll("tpm2-tools pcrs", bytes, (reader) => {
    const count = reader.u32le("count")
    if (count > selectionPlaces) throw reader.error("too-large", "count", `${count} selections`)
    const wanted: { readonly bank: string; readonly pcr: number }[] = []
    for (let place = 0; place < selectionPlaces; place++) {
      const id = reader.u16le("hash")
      const size = reader.u8("sizeofSelect")
      const bitmap = reader.bytes(4, "pcrSelect")
      reader.u8("padding")
      if (place >= count) continue
      const bank = algorithmName(id)
      if (!isHashName(bank)) throw new EvidenceError("unsupported", `bank 0x${id.toString(16)}`, { path: "tpm2-tools pcrs" })
      if (size > bitmap.length) throw reader.error("malformed", "sizeofSelect", `${size} bytes`)
      for (let pcr = 0; pcr < size * 8; pcr++) if (((bitmap[Math.floor(pcr / 8)] ?? 0) & (1 << (pcr % 8))) !== 0) wanted.push({ bank, pcr })
    }
    const values: Uint8Array[] = []
    const lists = reader.u32le("lists")
    if (lists > maxLists) throw reader.error("too-large", "lists", `${lists} digest lists`)
    for (let list = 0; list < lists; list++) {
      const used = reader.u32le("digests")
      for (let place = 0; place < digestPlaces; place++) {
        const inner = reader.sub(2 + digestPlaceBytes, "digest")
        const size = inner.u16le("size")
        if (place < used) values.push(inner.bytes(size, "buffer"))
      }
    }
    if (values.length !== wanted.length) throw reader.error("malformed", "digests", `${values.length} digests for ${wanted.length} registers`)
    const result = new Map<string, Map<number, string>>()
    wanted.forEach(({ bank, pcr }, index) => {
      const ofBank = result.get(bank) ?? new Map<number, string>()
      result.set(bank, ofBank.set(pcr, encodeHex(values[index] ?? new Uint8Array(0))))
    })
    return result
  })
}
