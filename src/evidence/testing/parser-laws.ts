import assert from "node:assert/strict"
import { test } from "node:test"
import { PerunError } from "../../bytes/error.ts"

/** What a parser is held to. Used by `*.test.ts` files only. */
export interface ParserLaws<T> {
  /** Name of the parser as it stands in the code, e.g. `parsePcrSelection`. */
  readonly name: string
  /** Whole input → value; throws PerunError for anything else. */
  readonly parse: (bytes: Uint8Array) => T
  /** Inputs that must parse; keep them short, every prefix and (in fuzzing) many variants of each are tried. */
  readonly samples: readonly Uint8Array[]
  /** Inverse of `parse`, where there is one: every sample must come back byte for byte. */
  readonly encode?: (value: T) => Uint8Array
  /**
   * Lengths at which a prefix of a sample is itself whole, e.g. behind each entry of a list. Every other prefix must be refused. None by default.
   */
  readonly wholePrefixes?: (sample: Uint8Array) => readonly number[]
  /** False where bytes behind the structure are part of the format (padding). True by default: one more byte must be refused. */
  readonly refusesTrailing?: boolean
  /** Fuzzed variants per sample; 2000 by default, and PERUN_FUZZ_RUNS where that is set (`npm run fuzz`). The seed is fixed, so a failure comes back. */
  readonly fuzzRuns?: number
}

/** Registers the tests of a parser: round trip, truncation, trailing bytes, seeded fuzz that lets only PerunError out. */
export function testParserLaws<T>(laws: ParserLaws<T>): void {
  const { name, parse, samples, encode } = laws
  test(`${name}() accepts its samples`, () => {
    assert.notEqual(samples.length, 0)
    for (const sample of samples) parse(sample)
  })
  if (encode !== undefined)
    test(`${name}() gives back the same bytes when encoded`, () => {
      for (const sample of samples) assert.deepEqual(Uint8Array.from(encode(parse(sample))), Uint8Array.from(sample))
    })
  test(`${name}() refuses every truncation`, () => {
    for (const sample of samples) {
      const whole = new Set(laws.wholePrefixes?.(sample) ?? [])
      for (let length = 0; length < sample.length; length++) {
        if (whole.has(length)) continue
        assertRefuses(() => parse(sample.slice(0, length)), `${length} of ${sample.length} bytes`)
      }
    }
  })
  if (laws.refusesTrailing !== false)
    test(`${name}() refuses a byte behind the end`, () => {
      for (const sample of samples)
        for (const extra of [0x00, 0x01, 0xff]) assertRefuses(() => parse(Uint8Array.from([...sample, extra])), `with byte ${extra} behind`)
    })
  testFuzz(`${name}()`, samples, parse, laws.fuzzRuns)
}

/** Registers the test that `action` lets only PerunError out of fuzzed variants of each sample; for parsers and for verifiers of whole evidence. */
export function testFuzz(name: string, samples: readonly Uint8Array[], action: (bytes: Uint8Array) => unknown, runs = 2000): void {
  test(`${name} lets only PerunError out of fuzzed input`, () => {
    for (const [index, sample] of samples.entries()) {
      const random = seededRandom(index + 1)
      for (let run = 0; run < (askedRuns ?? runs); run++) {
        const variant = mutate(sample, random)
        assertOnlyPerunError(() => action(variant), `sample ${index}, run ${run}`)
      }
    }
  })
}

const askedRuns = process.env["PERUN_FUZZ_RUNS"] === undefined ? undefined : Number(process.env["PERUN_FUZZ_RUNS"])

/** Registers the test that each flipped bit of signed (or hashed) input is refused. `verify` must pass for `input` itself. */
export function testBitFlips(name: string, input: Uint8Array, verify: (bytes: Uint8Array) => unknown): void {
  test(`${name} refuses every flipped bit`, () => {
    verify(input)
    for (let bit = 0; bit < input.length * 8; bit++) {
      const flipped = Uint8Array.from(input)
      const at = Math.floor(bit / 8)
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (bit % 8))
      assertRefuses(() => verify(flipped), `bit ${bit % 8} of byte ${at}`)
    }
  })
}

/** Registers the test that every prefix of signed input is refused. */
export function testTruncations(name: string, input: Uint8Array, verify: (bytes: Uint8Array) => unknown): void {
  test(`${name} refuses every truncation`, () => {
    verify(input)
    for (let length = 0; length < input.length; length++) assertRefuses(() => verify(input.slice(0, length)), `${length} of ${input.length} bytes`)
  })
}

/** Asserts that `action` throws a PerunError, of the given code where one is given. */
export function assertRefuses(action: () => unknown, what: string, code?: string): void {
  try {
    action()
  } catch (error) {
    if (!(error instanceof PerunError)) throw new Error(`${what}: threw something that is no PerunError`, { cause: error })
    if (code !== undefined) assert.equal(error.code, code, what)
    return
  }
  assert.fail(`${what}: was accepted`)
}

function assertOnlyPerunError(action: () => unknown, what: string): void {
  try {
    action()
  } catch (error) {
    if (!(error instanceof PerunError)) throw new Error(`${what}: threw something that is no PerunError`, { cause: error })
  }
}

/** Numbers from 0 up to, not including, `bound`; xorshift32, the same for the same seed. */
export function seededRandom(seed: number): (bound: number) => number {
  let state = (seed * 0x9e3779b9) | 1
  return (bound) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % bound
  }
}

/** One to four small wounds: a flipped bit, an extreme byte, an extreme 16- or 32-bit word, a cut, a doubled or a moved range. */
function mutate(sample: Uint8Array, random: (bound: number) => number): Uint8Array {
  let bytes = Uint8Array.from(sample)
  const wounds = 1 + random(4)
  for (let wound = 0; wound < wounds; wound++) {
    if (bytes.length === 0) return bytes
    const at = random(bytes.length)
    const length = Math.min(1 + random(16), bytes.length - at)
    switch (random(6)) {
      case 0:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8))
        break
      case 1:
        bytes[at] = extremes[random(extremes.length)] ?? 0
        break
      case 2:
        bytes.fill(extremes[random(extremes.length)] ?? 0, at, at + Math.min(length, 4))
        break
      case 3:
        bytes = bytes.slice(0, at)
        break
      case 4:
        bytes = Uint8Array.from([...bytes.slice(0, at + length), ...bytes.slice(at)])
        break
      default:
        bytes = Uint8Array.from([...bytes.slice(0, at), ...bytes.slice(at + length)])
    }
  }
  return bytes
}

const extremes = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff]
