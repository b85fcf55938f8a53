import { MalformedError } from "./error.ts"

/**
 * Tells whether bytes that come in pieces are one JSON text (RFC 8259, UTF-8 without a byte order mark), and keeps none of it: a text of any size takes the
 * memory of its depth, and the caller can do other work between two pieces. It does not ask for unequal keys or exact numbers: `parseJson` does, for the
 * texts that we read ourselves.
 */
export class JsonScanner {
  readonly #maxDepth: number
  readonly #utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
  /** Closing bracket of each array and object that is open, outermost first. */
  readonly #open: number[] = []
  #awaits: Awaited = "value"
  /** What of a word, string or number is read already; undefined between two of them. */
  #token: Token | undefined
  #at = 0

  constructor(maxDepth = defaultMaxDepth) {
    this.#maxDepth = maxDepth
  }

  /** @throws {MalformedError} `malformed`, `too-large` (depth, or a number of more digits than any has) */
  push(piece: Uint8Array): void {
    this.#decode(piece, true)
    for (const byte of piece) {
      this.#take(byte)
      this.#at++
    }
  }

  /** To be called behind the last piece. @throws {MalformedError} `malformed` when the text is not whole */
  end(): void {
    this.#decode(new Uint8Array(0), false)
    if (this.#token?.kind === "number") this.#endNumber(this.#token.text)
    if (this.#token !== undefined || this.#awaits !== "end") throw this.#error("document ends early")
  }

  #decode(piece: Uint8Array, stream: boolean): void {
    try {
      this.#utf8.decode(piece, { stream })
    } catch (cause) {
      throw new MalformedError("malformed", "not UTF-8", { cause })
    }
  }

  #take(byte: number): void {
    const token = this.#token
    switch (token?.kind) {
      case undefined:
        return this.#between(byte)
      case "string":
        return this.#inString(token, byte)
      case "word":
        if (byte !== token.rest.charCodeAt(0)) throw this.#error("expected a value")
        token.rest = token.rest.substring(1)
        if (token.rest === "") this.#endValue()
        return
      case "number":
        if (isNumberByte(byte)) {
          token.text += String.fromCharCode(byte)
          if (token.text.length > maxNumberLength) throw new MalformedError("too-large", `number of more than ${maxNumberLength} characters`)
          return
        }
        this.#endNumber(token.text)
        return this.#between(byte)
    }
  }

  #between(byte: number): void {
    if (byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d) return
    const closing = this.#open.at(-1)
    const mayEnd = this.#awaits === "value-or-end" || this.#awaits === "key-or-end" || this.#awaits === "comma-or-end"
    if (byte === closing && mayEnd) {
      this.#open.pop()
      return this.#endValue()
    }
    switch (this.#awaits) {
      case "value":
      case "value-or-end":
        return this.#beginValue(byte)
      case "key":
      case "key-or-end":
        if (byte !== quote) throw this.#error("expected a key in quotes")
        this.#token = { kind: "string", isKey: true, escape: 0 }
        return
      case "colon":
        if (byte !== 0x3a) throw this.#error('expected ":"')
        this.#awaits = "value"
        return
      case "comma-or-end":
        if (byte !== 0x2c) throw this.#error(`expected "${String.fromCharCode(closing ?? 0)}"`)
        this.#awaits = closing === closeObject ? "key" : "value"
        return
      case "end":
        throw this.#error("text follows the end of the document")
    }
  }

  #beginValue(byte: number): void {
    switch (byte) {
      case 0x7b:
        return this.#enter(closeObject, "key-or-end")
      case 0x5b:
        return this.#enter(closeArray, "value-or-end")
      case quote:
        this.#token = { kind: "string", isKey: false, escape: 0 }
        return
      default: {
        const word = words[String.fromCharCode(byte)]
        if (word !== undefined) this.#token = { kind: "word", rest: word.substring(1) }
        else if (isNumberByte(byte)) this.#token = { kind: "number", text: String.fromCharCode(byte) }
        else throw this.#error("expected a value")
      }
    }
  }

  #enter(closing: number, awaits: Awaited): void {
    if (this.#open.length >= this.#maxDepth) throw new MalformedError("too-large", `nesting is deeper than ${this.#maxDepth}`)
    this.#open.push(closing)
    this.#awaits = awaits
  }

  /** Of an escape, `escape` is what is still to come: one letter (-1) or so many digits. */
  #inString(token: StringToken, byte: number): void {
    if (token.escape < 0) {
      if (!escapeLetters.includes(byte)) throw this.#error("unknown escape in a string")
      token.escape = byte === 0x75 ? 4 : 0
    } else if (token.escape > 0) {
      if (!isHexDigit(byte)) throw this.#error("bad \\u escape in a string")
      token.escape--
    } else if (byte === 0x5c) token.escape = -1
    else if (byte === quote) {
      if (!token.isKey) return this.#endValue()
      this.#token = undefined
      this.#awaits = "colon"
    } else if (byte < 0x20) throw this.#error("control character in a string")
  }

  #endNumber(text: string): void {
    if (!numberForm.test(text)) throw this.#error("not a number")
    this.#endValue()
  }

  #endValue(): void {
    this.#token = undefined
    this.#awaits = this.#open.length === 0 ? "end" : "comma-or-end"
  }

  #error(message: string): MalformedError {
    return new MalformedError("malformed", `${message} (byte ${this.#at})`)
  }
}

type Awaited = "value" | "value-or-end" | "key" | "key-or-end" | "colon" | "comma-or-end" | "end"

interface StringToken {
  readonly kind: "string"
  readonly isKey: boolean
  escape: number
}
type Token = StringToken | { readonly kind: "word"; rest: string } | { readonly kind: "number"; text: string }

/** As of `parseJson`. */
const defaultMaxDepth = 64
/** A double has 17 digits, a large whole number some hundreds. */
const maxNumberLength = 1024
const quote = 0x22
const closeObject = 0x7d
const closeArray = 0x5d
const words: Readonly<Record<string, string>> = { t: "true", f: "false", n: "null" }
const escapeLetters: readonly number[] = Array.from('"\\/bfnrtu', (letter) => letter.charCodeAt(0))
const numberForm = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/

function isNumberByte(byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || byte === 0x2d || byte === 0x2b || byte === 0x2e || byte === 0x65 || byte === 0x45
}

function isHexDigit(byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x46) || (byte >= 0x61 && byte <= 0x66)
}
