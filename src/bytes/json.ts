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
 * Parses JSON (RFC 8259) strictly: duplicate keys, lone surrogates, numbers that a double cannot hold exactly, a byte order mark, trailing text and
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
  #at = 0

  constructor(text: string, maxDepth: number) {
    this.#text = text
    this.#maxDepth = maxDepth
  }

  parseDocument(): JsonValue {
    const value = this.#value("", 0)
    this.#space()
    if (this.#at < this.#text.length) throw this.#error("malformed", "text follows the end of the document", "")
    return value
  }

  #value(path: string, depth: number): JsonValue {
    if (depth > this.#maxDepth) throw this.#error("too-large", `nesting is deeper than ${this.#maxDepth}`, path)
    this.#space()
    switch (this.#text[this.#at]) {
      case "{":
        return this.#object(path, depth)
      case "[":
        return this.#array(path, depth)
      case '"':
        return this.#string(path)
      case "t":
        return this.#word("true", true, path)
      case "f":
        return this.#word("false", false, path)
      case "n":
        return this.#word("null", null, path)
      default:
        return this.#number(path)
    }
  }

  #object(path: string, depth: number): JsonValue {
    this.#at++
    const result: Record<string, JsonValue> = Object.create(null) as Record<string, JsonValue>
    this.#space()
    if (this.#text[this.#at] === "}") {
      this.#at++
      return { ...result }
    }
    for (;;) {
      this.#space()
      if (this.#text[this.#at] !== '"') throw this.#error("malformed", "expected a key in quotes", path)
      const key = this.#string(path)
      const inner = path === "" ? key : `${path}.${key}`
      if (key === "__proto__") throw this.#error("malformed", "the key __proto__ is not allowed", path)
      if (Object.hasOwn(result, key)) throw this.#error("duplicate", "key appears twice", inner)
      this.#space()
      this.#expect(":", inner)
      result[key] = this.#value(inner, depth + 1)
      this.#space()
      if (this.#text[this.#at] === ",") {
        this.#at++
        continue
      }
      this.#expect("}", path)
      return { ...result }
    }
  }

  #array(path: string, depth: number): JsonValue {
    this.#at++
    const result: JsonValue[] = []
    this.#space()
    if (this.#text[this.#at] === "]") {
      this.#at++
      return result
    }
    for (;;) {
      result.push(this.#value(`${path}[${result.length}]`, depth + 1))
      this.#space()
      if (this.#text[this.#at] === ",") {
        this.#at++
        continue
      }
      this.#expect("]", path)
      return result
    }
  }

  #string(path: string): string {
    this.#at++
    let result = ""
    for (;;) {
      plainRun.lastIndex = this.#at
      const run = plainRun.exec(this.#text)?.[0] ?? ""
      result += run
      this.#at += run.length
      const next = this.#text[this.#at]
      if (next === '"') break
      if (next !== "\\") throw this.#error("malformed", next === undefined ? "string has no end" : "control character in a string", path)
      this.#at++
      result += this.#escape(path)
    }
    this.#at++
    if (!result.isWellFormed()) throw this.#error("malformed", "string holds a lone surrogate", path)
    return result
  }

  #escape(path: string): string {
    const letter = this.#text[this.#at++] ?? ""
    if (letter === "u") {
      const digits = /^[0-9a-fA-F]{4}$/.exec(this.#text.substring(this.#at, this.#at + 4))?.[0]
      if (digits === undefined) throw this.#error("malformed", "bad \\u escape in a string", path)
      this.#at += 4
      return String.fromCharCode(Number.parseInt(digits, 16))
    }
    const meant = escapes[letter]
    if (meant === undefined) throw this.#error("malformed", "unknown escape in a string", path)
    return meant
  }

  #number(path: string): number {
    numberForm.lastIndex = this.#at
    const digits = numberForm.exec(this.#text)?.[0]
    if (digits === undefined) throw this.#error("malformed", this.#at < this.#text.length ? "expected a value" : "document ends early", path)
    const value = Number(digits)
    const isInteger = /^-?[0-9]+$/.test(digits)
    if (!Number.isFinite(value) || (isInteger && !Number.isSafeInteger(value)))
      throw this.#error("malformed", `number ${digits} cannot be held exactly`, path)
    this.#at += digits.length
    return Object.is(value, -0) ? 0 : value
  }

  #word<T extends JsonValue>(word: string, value: T, path: string): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#error("malformed", "expected a value", path)
    this.#at += word.length
    return value
  }

  #expect(character: string, path: string): void {
    if (this.#text[this.#at] !== character) throw this.#error("malformed", `expected "${character}"`, path)
    this.#at++
  }

  #space(): void {
    while (" \t\n\r".includes(this.#text[this.#at] ?? "x")) this.#at++
  }

  #error(code: "malformed" | "duplicate" | "too-large", message: string, path: string): MalformedError {
    const before = this.#text.substring(0, this.#at)
    const line = before.split("\n").length
    const column = this.#at - before.lastIndexOf("\n")
    return new MalformedError(code, `${message} (line ${line}, column ${column})`, { path })
  }
}
