import { MalformedError } from "./error.ts"
import { parseJson, type JsonValue } from "./json.ts"
import { ByteReader } from "./reader.ts"

/** A tensor of a safetensors file. */
export interface TensorInfo {
  readonly name: string
  readonly dtype: keyof typeof dtypeBytes
  readonly shape: readonly number[]
  /** First byte within the data part, and the byte after the last. */
  readonly start: number
  readonly end: number
}

export interface SafetensorsHeader {
  /** In the order of their data. */
  readonly tensors: readonly TensorInfo[]
  readonly metadata: Readonly<Record<string, string>>
  /** Offset of the data part in the file. */
  readonly dataOffset: number
}

/** Bytes at the start of a file that hold the header's length. */
export const safetensorsLengthBytes = 8

/**
 * Length of the JSON header in bytes, from the first 8 bytes of a file.
 * @throws {MalformedError} `too-large`, `truncated`
 */
export function readSafetensorsHeaderLength(start: Uint8Array): number {
  const length = new ByteReader("safetensors", start).u64le("header length")
  if (length > BigInt(maxHeaderBytes)) throw new MalformedError("too-large", `header of ${length} bytes, at most ${maxHeaderBytes} are allowed`)
  return Number(length)
}

/**
 * Parses and checks the header of a file of `fileBytes` bytes: known types, shapes that fit the data, data without gap, overlap or rest. The format holds
 * plain numbers and can run no code when it is loaded. Source: the format's description by Hugging Face, safetensors 0.4.
 * @throws {MalformedError} `malformed`, `duplicate`, `truncated`, `too-large`, `trailing-bytes`
 */
export function parseSafetensorsHeader(header: Uint8Array, fileBytes: number): SafetensorsHeader {
  if (header[0] !== openBrace) throw new MalformedError("malformed", "the header does not start with {", { path: "safetensors" })
  const document = parseJson(header, { maxBytes: maxHeaderBytes, maxDepth: 3 })
  const { __metadata__: metadata = {}, ...members } = asObject(document, "safetensors")
  const tensors = Object.entries(members).map(([name, value]) => readTensor(name, value))
  tensors.sort((a, b) => a.start - b.start || a.end - b.end)
  let next = 0
  for (const { name, start, end } of tensors) {
    if (start !== next) throw new MalformedError("malformed", `data starts at ${start}, expected ${next}`, { path: name })
    next = end
  }
  const dataOffset = safetensorsLengthBytes + header.length
  const dataBytes = fileBytes - dataOffset
  if (dataBytes < next) throw new MalformedError("truncated", `${dataBytes} bytes of data, expected ${next}`, { path: "safetensors" })
  if (dataBytes > next) throw new MalformedError("trailing-bytes", `${dataBytes} bytes of data, expected ${next}`, { path: "safetensors" })
  return { tensors, metadata: readMetadata(metadata), dataOffset }
}

function readTensor(name: string, value: JsonValue): TensorInfo {
  const { dtype, shape, data_offsets: offsets, ...others } = asObject(value, name)
  const unknown = Object.keys(others)[0]
  if (unknown !== undefined) throw new MalformedError("unknown-field", "unknown field", { path: `${name}.${unknown}` })
  if (typeof dtype !== "string" || !isDtype(dtype)) throw new MalformedError("malformed", "unknown type of number", { path: `${name}.dtype` })
  const dimensions = asSizes(shape, `${name}.shape`)
  const [start, end, ...rest] = asSizes(offsets, `${name}.data_offsets`)
  if (start === undefined || end === undefined || rest.length > 0)
    throw new MalformedError("malformed", "expected two offsets", { path: `${name}.data_offsets` })
  const size = dimensions.reduce((product, dimension) => product * dimension, dtypeBytes[dtype])
  if (!Number.isSafeInteger(size) || end - start !== size)
    throw new MalformedError("malformed", `${end - start} bytes of data, the shape needs ${size}`, { path: name })
  return { name, dtype, shape: dimensions, start, end }
}

function readMetadata(value: JsonValue): Readonly<Record<string, string>> {
  const result: Record<string, string> = {}
  for (const [name, text] of Object.entries(asObject(value, "__metadata__"))) {
    if (typeof text !== "string") throw new MalformedError("malformed", "expected text", { path: `__metadata__.${name}` })
    result[name] = text
  }
  return result
}

function asObject(value: JsonValue, path: string): { readonly [key: string]: JsonValue } {
  if (typeof value !== "object" || value === null || isArray(value)) throw new MalformedError("malformed", "expected an object", { path })
  return value
}

function asSizes(value: JsonValue | undefined, path: string): number[] {
  if (value === undefined || !isArray(value) || value.length > maxDimensions)
    throw new MalformedError("malformed", "expected a short list of sizes", { path })
  return value.map((item) => {
    if (typeof item !== "number" || !Number.isSafeInteger(item) || item < 0) throw new MalformedError("malformed", "expected a size", { path })
    return item
  })
}

function isArray(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value)
}

function isDtype(text: string): text is keyof typeof dtypeBytes {
  return Object.hasOwn(dtypeBytes, text)
}

const openBrace = 0x7b
/** Some 100,000 tensors; the format itself allows 100 MB. */
const maxHeaderBytes = 16 * 1024 * 1024
/** PyTorch allows 64. */
const maxDimensions = 64

/** Bytes of one number. */
const dtypeBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const
