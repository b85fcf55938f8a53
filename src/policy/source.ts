import { Composer, LineCounter, Parser, isAlias, isMap, isScalar, isSeq } from "yaml"
import type { CST, ParsedNode } from "yaml"
import { MalformedError } from "../bytes/error.ts"
import type { JsonValue } from "../bytes/json.ts"
import { parseJson } from "../bytes/json.ts"
import { parseUtf8 } from "../bytes/text.ts"
import type { Locate } from "./locate.ts"
import { nowhere } from "./locate.ts"
import type { Problem, ProblemCode } from "./problem.ts"

export type TextFormat = "json" | "yaml"

/** What a text says, as plain JSON, and where it says it. `value` counts only when `problems` is empty. */
export interface Source {
  readonly value: JsonValue
  readonly problems: readonly Problem[]
  readonly locate: Locate
}

/**
 * Reads JSON, or the plain part of YAML 1.2 core: one document of maps, lists and scalars with text keys. Anchors, aliases, tags, merge keys, directives
 * and numbers that are not plain decimals are problems, for two readers could take them for two documents.
 */
export function parseSource(bytes: Uint8Array, format: TextFormat, limits: { readonly maxBytes: number }): Source {
  if (bytes.length > limits.maxBytes)
    return failed("too-large", `${bytes.length} bytes, at most ${limits.maxBytes} are allowed`, "shorten the document")
  try {
    // The strict parser is the judge of JSON; the YAML tree, a superset, then only says where things stand.
    const json = format === "json" ? parseJson(bytes, limits) : undefined
    return new TreeReader(parseUtf8(bytes, "text")).read(json)
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error
    return failedAs(error)
  }
}

class TreeReader {
  readonly #text: string
  readonly #lines = new LineCounter()
  readonly #places = new Map<string, number>()
  readonly #problems: Problem[] = []

  constructor(text: string) {
    this.#text = text
  }

  read(json: JsonValue | undefined): Source {
    const tree = this.#compose()
    const value = tree === undefined ? null : this.#node(tree, [])
    // Where JSON stands, the strict parser has judged it and the tree's own opinion of it does not count.
    const problems = json === undefined ? this.#problems : []
    return { value: json ?? value, problems, locate: (path) => this.#locate(path) }
  }

  #compose(): ParsedNode | undefined {
    const tokens = [...new Parser(this.#lines.addNewLine).parse(this.#text)]
    if (tokens.some((token) => isTooDeep(token))) {
      this.#problem("too-large", [], 0, `nesting is deeper than ${maxDepth}`, "flatten the document")
      return undefined
    }
    for (const token of tokens.filter(({ type }) => type === "directive"))
      this.#problem("malformed", [], token.type === "directive" ? token.offset : 0, "directives are not allowed", "remove the line")
    const composer = new Composer({ version: "1.2", schema: "core", merge: false, uniqueKeys: false, stringKeys: false })
    const documents = [...composer.compose(tokens, true, this.#text.length)]
    const [document, second] = documents
    if (second !== undefined) this.#problem("malformed", [], second.range[0], "a second document follows", "keep one document")
    for (const error of document?.errors ?? []) this.#problem("malformed", [], error.pos[0], firstLine(error.message), "correct the YAML")
    // Warnings are about tags and directives that the library does not know; nothing here may be unknown.
    for (const warning of document?.warnings ?? []) this.#problem("malformed", [], warning.pos[0], firstLine(warning.message), "remove it")
    if (document === undefined || document.contents === null) {
      this.#problem("malformed", [], 0, "the document is empty", "write a document")
      return undefined
    }
    return document.contents
  }

  #node(node: ParsedNode, path: readonly string[]): JsonValue {
    const offset = node.range[0]
    if (!this.#places.has(placeKey(path))) this.#places.set(placeKey(path), offset)
    if (isAlias(node)) {
      this.#problem("malformed", path, offset, "aliases are not allowed", "write the value out")
      return null
    }
    if (node.anchor !== undefined) this.#problem("malformed", path, offset, "anchors are not allowed", "remove the anchor")
    if (node.tag !== undefined) this.#problem("malformed", path, offset, "tags are not allowed", "remove the tag")
    if (isMap(node)) return this.#map(node.items, path)
    if (isSeq(node)) return node.items.map((item, index) => this.#node(item, [...path, String(index)]))
    if (isScalar(node)) return this.#scalar(node.value, node.source, path, offset)
    return null
  }

  #map(pairs: readonly { readonly key: ParsedNode; readonly value: ParsedNode | null }[], path: readonly string[]): JsonValue {
    const result: Record<string, JsonValue> = Object.create(null) as Record<string, JsonValue>
    for (const { key, value } of pairs) {
      const offset = key.range[0]
      const text = isScalar(key) ? key.value : undefined
      if (typeof text !== "string") {
        this.#problem("malformed", path, offset, "a key is not text", "write the key as plain text, in quotes if it looks like a number")
        continue
      }
      const inner = [...path, text]
      if (text === "__proto__" || text === "<<") {
        this.#problem("malformed", inner, offset, `the key ${text} is not allowed`, "remove it")
        continue
      }
      if (Object.hasOwn(result, text)) {
        this.#problem("duplicate", inner, offset, "key appears twice", "keep one of them")
        continue
      }
      if (key.anchor !== undefined || key.tag !== undefined)
        this.#problem("malformed", inner, offset, "anchors and tags are not allowed", "remove it")
      this.#places.set(placeKey(inner), offset)
      result[text] = value === null ? null : this.#node(value, inner)
    }
    return { ...result }
  }

  #scalar(value: unknown, source: string | undefined, path: readonly string[], offset: number): JsonValue {
    switch (typeof value) {
      case "string":
        if (!value.isWellFormed()) this.#problem("malformed", path, offset, "text holds a lone surrogate", "correct the escape")
        return value
      case "boolean":
        return value
      case "number":
        if (source === undefined || !plainInteger.test(source) || !Number.isSafeInteger(value))
          this.#problem(
            "malformed",
            path,
            offset,
            `${source ?? value} is not a whole number in plain digits`,
            "write digits only, or put text in quotes",
          )
        return value
      default:
        return null
    }
  }

  #problem(code: ProblemCode, path: readonly string[], offset: number, message: string, fix: string): void {
    this.#problems.push({ code, field: path.join("."), ...this.#position(offset), message, fix })
  }

  #locate(path: readonly PropertyKey[]): { readonly line: number; readonly column: number } {
    for (let length = path.length; length >= 0; length--) {
      const offset = this.#places.get(placeKey(path.filter((_, index) => index < length).map(String)))
      if (offset !== undefined) return this.#position(offset)
    }
    return this.#position(0)
  }

  #position(offset: number): { readonly line: number; readonly column: number } {
    const { line, col } = this.#lines.linePos(offset)
    return { line: Math.max(line, 1), column: Math.max(col, 1) }
  }
}

/** Measured without recursion, before the library builds its tree with recursion. */
function isTooDeep(root: CST.Token): boolean {
  const open: { readonly token: CST.Token; readonly depth: number }[] = [{ token: root, depth: 0 }]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { token, depth } = next
    if (depth > maxDepth) return true
    const inner: (CST.Token | null | undefined)[] =
      token.type === "document" ? [token.value] : "items" in token ? token.items.flatMap((item) => [item.key, item.value]) : []
    for (const child of inner) if (child !== null && child !== undefined) open.push({ token: child, depth: depth + 1 })
  }
  return false
}

function failedAs(error: MalformedError): Source {
  const place = /^(?<text>.*) \(line (?<line>\d+), column (?<column>\d+)\)$/s.exec(error.message)?.groups
  const code: ProblemCode = error.code === "duplicate" || error.code === "too-large" ? error.code : "malformed"
  const message = (place?.["text"] ?? error.message).replace(error.path === "" ? "" : `${error.path}: `, "")
  const problem: Problem = {
    code,
    field: error.path,
    line: Number(place?.["line"] ?? 1),
    column: Number(place?.["column"] ?? 1),
    message,
    fix: "correct the JSON",
  }
  return { value: null, problems: [problem], locate: nowhere }
}

function failed(code: ProblemCode, message: string, fix: string): Source {
  return { value: null, problems: [{ code, field: "", line: 1, column: 1, message, fix }], locate: nowhere }
}

function firstLine(message: string): string {
  return (message.split("\n")[0] ?? "").replace(/ at line \d+, column \d+:?$/, "")
}

function placeKey(path: readonly string[]): string {
  return JSON.stringify(path)
}

/** As in the JSON parser: deeper nesting has no use and would exhaust the stack. */
const maxDepth = 64

const plainInteger = /^-?(?:0|[1-9][0-9]*)$/
