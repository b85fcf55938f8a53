import canonicalize from "canonicalize"
import { MalformedError } from "./error.ts"
import { encodeUtf8, parseUtf8 } from "./text.ts"

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue }

export interface JsonLimits {
  /** Largest input in bytes of UTF-8. */
  readonly maxBytes: number
  /** Deepest nesting of arrays and objects. */
  readonly maxDepth?: number
}

/** Deeper nesting has no use in our documents and would exhaust the stack of recursive code. */
const defaultMaxDepth = 64

/**
 * Parses JSON (RFC 8259) strictly: duplicate keys, lone surrogates, whole numbers that a double cannot hold exactly, a byte order mark, trailing text and
 * excess size or depth are errors. `JSON.parse` would keep the last of two equal keys, so that two readers could see two documents.
 * @throws {MalformedError} `malformed`, `duplicate`, `too-large`; the message names line and column, `path` the field
 */
export function parseJson(input: Uint8Array | string, limits: JsonLimits): JsonValue {
  const size = typeof input === "string" ? Buffer.byteLength(input) : input.length
  if (size > limits.maxBytes) throw new MalformedError("too-large", `JSON of ${size} bytes, at most ${limits.maxBytes} are allowed`)
  const text = typeof input === "string" ? input : parseUtf8(input, "JSON")
  return new JsonParser(text, limits.maxDepth ?? defaultMaxDepth).parseDocument()
}

/**
 * RFC 8785 canonical form. Accepts what `parseJson` gives and plain values equal to it; `undefined` members are wrong use.
 * @throws {TypeError} for values that JSON does not have
 */
export function canonicalJson(value: unknown): string {
  refuseForeignValues(value, "$")
  const text = canonicalize(value)
  if (text === undefined) throw new TypeError("value has no JSON form")
  return text
}

/** UTF-8 of the RFC 8785 canonical form: what digests and signatures are taken over. */
export function canonicalJsonBytes(value: unknown): Uint8Array {
  return encodeUtf8(canonicalJson(value))
}

function refuseForeignValues(value: unknown, path: string): void {
  switch (typeof value) {
    case "string":
      if (!value.isWellFormed()) throw new TypeError(`${path} holds a lone surrogate`)
      return
    case "boolean":
      return
    case "number":
      if (!Number.isFinite(value)) throw new TypeError(`${path} is not a finite number`)
      return
    case "object":
      if (value === null) return
      if (Array.isArray(value)) return value.forEach((item, index) => refuseForeignValues(item, `${path}[${index}]`))
      for (const [key, member] of Object.entries(value)) refuseForeignValues(member, `${path}.${key}`)
      return
    default:
      throw new TypeError(`${path} is a ${typeof value}, which JSON does not have`)
  }
}

const numberForm = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
const plainRun = /[^"\\\u0000-\u001f]*/y
const escapes: Readonly<Record<string, string>> = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }

class JsonParser {
  readonly #text: string
  readonly #maxDepth: number
  /** Keys and indices that lead to the value at hand; made into a path only where an error needs one. */
  readonly #steps: (string | number)[] = []
  #at = 0

  constructor(text: string, maxDepth: number) {
    this.#text = text
    this.#maxDepth = maxDepth
  }

  parseDocument(): JsonValue {
    const value = this.#value()
    this.#space()
    if (this.#at < this.#text.length) throw this.#error("malformed", "text follows the end of the document")
    return value
  }

  #value(): JsonValue {
    if (this.#steps.length > this.#maxDepth) throw this.#error("too-large", `nesting is deeper than ${this.#maxDepth}`)
    this.#space()
    switch (this.#text[this.#at]) {
      case "{":
        return this.#object()
      case "[":
        return this.#array()
      case '"':
        return this.#string()
      case "t":
        return this.#word("true", true)
      case "f":
        return this.#word("false", false)
      case "n":
        return this.#word("null", null)
      default:
        return this.#number()
    }
  }

  #object(): JsonValue {
    this.#at++
    const result: Record<string, JsonValue> = {}
    this.#space()
    if (this.#text[this.#at] === "}") {
      this.#at++
      return result
    }
    for (;;) {
      this.#space()
      if (this.#text[this.#at] !== '"') throw this.#error("malformed", "expected a key in quotes")
      const key = this.#string()
      // An assignment to it would not make a member.
      if (key === "__proto__") throw this.#error("malformed", "the key __proto__ is not allowed")
      this.#steps.push(key)
      if (Object.hasOwn(result, key)) throw this.#error("duplicate", "key appears twice")
      this.#space()
      this.#expect(":")
      result[key] = this.#value()
      this.#steps.pop()
      this.#space()
      if (this.#text[this.#at] === ",") {
        this.#at++
        continue
      }
      this.#expect("}")
      return result
    }
  }

  #array(): JsonValue {
    this.#at++
    const result: JsonValue[] = []
    this.#space()
    if (this.#text[this.#at] === "]") {
      this.#at++
      return result
    }
    for (;;) {
      this.#steps.push(result.length)
      result.push(this.#value())
      this.#steps.pop()
      this.#space()
      if (this.#text[this.#at] === ",") {
        this.#at++
        continue
      }
      this.#expect("]")
      return result
    }
  }

  #string(): string {
    this.#at++
    let result = ""
    for (;;) {
      plainRun.lastIndex = this.#at
      plainRun.test(this.#text)
      const end = plainRun.lastIndex
      const run = this.#text.substring(this.#at, end)
      result = result === "" ? run : result + run
      this.#at = end
      const next = this.#text[end]
      if (next === '"') break
      if (next !== "\\") throw this.#error("malformed", next === undefined ? "string has no end" : "control character in a string")
      this.#at++
      result += this.#escape()
    }
    this.#at++
    if (!result.isWellFormed()) throw this.#error("malformed", "string holds a lone surrogate")
    return result
  }

  #escape(): string {
    const letter = this.#text[this.#at++] ?? ""
    if (letter === "u") {
      const digits = /^[0-9a-fA-F]{4}$/.exec(this.#text.substring(this.#at, this.#at + 4))?.[0]
      if (digits === undefined) throw this.#error("malformed", "bad \\u escape in a string")
      this.#at += 4
      return String.fromCharCode(Number.parseInt(digits, 16))
    }
    const meant = escapes[letter]
    if (meant === undefined) throw this.#error("malformed", "unknown escape in a string")
    return meant
  }

  #number(): number {
    numberForm.lastIndex = this.#at
    if (!numberForm.test(this.#text)) throw this.#error("malformed", this.#at < this.#text.length ? "expected a value" : "document ends early")
    const digits = this.#text.substring(this.#at, numberForm.lastIndex)
    const value = Number(digits)
    const isInexact = !Number.isSafeInteger(value) && (!Number.isFinite(value) || /^-?[0-9]+$/.test(digits))
    if (isInexact) throw this.#error("malformed", `number ${digits} cannot be held exactly`)
    this.#at += digits.length
    return Object.is(value, -0) ? 0 : value
  }

  #word<T extends JsonValue>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#error("malformed", "expected a value")
    this.#at += word.length
    return value
  }

  #expect(character: string): void {
    if (this.#text[this.#at] !== character) throw this.#error("malformed", `expected "${character}"`)
    this.#at++
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
      this.#at++
    }
  }

  #error(code: "malformed" | "duplicate" | "too-large", message: string): MalformedError {
    const before = this.#text.substring(0, this.#at)
    const line = before.split("\n").length
    const column = this.#at - before.lastIndexOf("\n")
    return new MalformedError(code, `${message} (line ${line}, column ${column})`, { path: pathOf(this.#steps) })
  }
}

/** `a.b[0]` */
function pathOf(steps: readonly (string | number)[]): string {
  return steps.reduce<string>((path, step) => (typeof step === "number" ? `${path}[${step}]` : path === "" ? step : `${path}.${step}`), "")
}
