import { readFile, readdir } from "node:fs/promises"
import { join } from "node:path"
import { gunzipSync } from "node:zlib"
import { MalformedError, PerunError } from "../../bytes/error.ts"
import { canonicalJson, parseJson } from "../../bytes/json.ts"
import type { JsonValue } from "../../bytes/json.ts"
import { parseUtf8 } from "../../bytes/text.ts"

/**
 * One vector case under judgement: a folder with evidence files and the facts of its expected.json. It records which files and facts the rule read, for
 * what a rule did not read is not judged, and every disagreement.
 */
export class VectorCase {
  readonly kind: string
  readonly name: string
  readonly facts: Facts
  readonly #files: ReadonlyMap<string, Uint8Array>
  readonly #filesRead = new Set<string>()
  readonly #problems: string[] = []
  readonly #notes: string[] = []

  private constructor(kind: string, name: string, files: ReadonlyMap<string, Uint8Array>, facts: JsonObject) {
    this.kind = kind
    this.name = name
    this.#files = files
    this.facts = new Facts(facts, "", this.#problems)
  }

  /** Loads a case's folder whole; `*.gz` files are unpacked and go by the name without the ending. */
  static async load(kind: string, folder: string, name: string): Promise<VectorCase> {
    const files = new Map<string, Uint8Array>()
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (!entry.isFile()) throw new MalformedError("malformed", "is no plain file", { path: entry.name })
      const bytes = new Uint8Array(await readFile(join(folder, entry.name)))
      if (entry.name.endsWith(".gz")) files.set(entry.name.replace(/\.gz$/, ""), new Uint8Array(gunzipSync(bytes, { maxOutputLength: maxFileBytes })))
      else files.set(entry.name, bytes)
    }
    const expected = files.get("expected.json")
    if (expected === undefined) throw new MalformedError("malformed", "the case has no expected.json", { path: name })
    const facts = parseJson(expected, { maxBytes: maxFileBytes })
    if (!isObject(facts)) throw new MalformedError("malformed", "expected.json holds no object", { path: name })
    files.delete("expected.json")
    files.delete("README.md")
    return new VectorCase(kind, name, files, facts)
  }

  /** The file's bytes, undefined where the case has none of that name. */
  optional(name: string): Uint8Array | undefined {
    this.#filesRead.add(name)
    return this.#files.get(name)
  }

  /** The first of several names that exists. */
  firstOf(...names: readonly string[]): Uint8Array | undefined {
    const name = names.find((candidate) => this.#files.has(candidate))
    return name === undefined ? undefined : this.optional(name)
  }

  file(...names: readonly string[]): Uint8Array {
    const bytes = this.firstOf(...names)
    if (bytes === undefined) throw new MalformedError("malformed", `the case has no ${names.join(" or ")}`, { path: this.name })
    return bytes
  }

  /** Names of files that match, in order, read or not. */
  names(form: RegExp): readonly string[] {
    return [...this.#files.keys()].filter((name) => form.test(name)).sort()
  }

  json(name: string): JsonValue {
    return parseJson(this.file(name), { maxBytes: maxFileBytes })
  }

  text(name: string): string {
    return parseUtf8(this.file(name), name)
  }

  problem(text: string): void {
    this.#problems.push(text)
  }

  /** What a reader of the table should know though it is no disagreement. */
  note(text: string): void {
    this.#notes.push(text)
  }

  equal(what: string, actual: JsonValue, expected: JsonValue): void {
    if (canonicalJson(actual) !== canonicalJson(expected)) this.problem(`${what} is ${short(actual)}, stated is ${short(expected)}`)
  }

  /** The action must throw a PerunError, of one of the codes where some are given. */
  refused(what: string, action: () => unknown, ...codes: readonly string[]): void {
    try {
      action()
    } catch (error) {
      if (!(error instanceof PerunError)) throw error
      if (codes.length > 0 && !codes.includes(error.code)) this.problem(`${what} was refused with ${error.code}, expected ${codes.join(" or ")}`)
      else this.note(`${what}: ${error.code}`)
      return
    }
    this.problem(`${what} was accepted`)
  }

  get problems(): readonly string[] {
    return this.#problems
  }

  get notes(): readonly string[] {
    return this.#notes
  }

  /** Files and facts that no rule looked at. */
  unjudged(): readonly string[] {
    const files = [...this.#files.keys()].filter((name) => !this.#filesRead.has(name)).map((name) => `file ${name}`)
    return [...files, ...this.facts.unread().map((path) => `fact ${path}`)]
  }
}

export type JsonObject = { readonly [key: string]: JsonValue }

/** Stated facts; reading one marks it, and unread ones fail the case. */
export class Facts {
  readonly #object: JsonObject
  readonly #path: string
  readonly #problems: string[]
  readonly #read = new Set<string>()
  readonly #nested = new Map<string, Facts>()

  constructor(object: JsonObject, path: string, problems: string[]) {
    this.#object = object
    this.#path = path
    this.#problems = problems
  }

  get keys(): readonly string[] {
    return Object.keys(this.#object)
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#object, key)
  }

  /** The fact as it stands, all of it read; undefined where it is not stated. */
  value(key: string): JsonValue | undefined {
    if (!this.has(key)) return undefined
    this.#read.add(key)
    return this.#object[key]
  }

  text(key: string): string | undefined {
    const value = this.value(key)
    if (value !== undefined && typeof value !== "string") throw new MalformedError("malformed", "not a text", { path: this.#at(key) })
    return value
  }

  /** Facts below a key, each to be read; undefined where it is not stated or null. */
  object(key: string): Facts | undefined {
    const value = this.value(key)
    if (value === undefined || value === null) return undefined
    if (!isObject(value)) throw new MalformedError("malformed", "not an object", { path: this.#at(key) })
    const nested = this.#nested.get(key) ?? new Facts(value, this.#at(key), this.#problems)
    this.#nested.set(key, nested)
    return nested
  }

  /** Where the fact is stated, it must equal what was found, exactly. `actual` is computed only then. */
  check(key: string, actual: () => JsonValue): void {
    const stated = this.value(key)
    if (stated === undefined) return
    const found = actual()
    if (canonicalJson(found) !== canonicalJson(stated)) this.#problems.push(`${this.#at(key)} is ${short(found)}, stated is ${short(stated)}`)
  }

  unread(): readonly string[] {
    const own = this.keys.filter((key) => !this.#read.has(key)).map((key) => this.#at(key))
    return [...own, ...[...this.#nested.values()].flatMap((nested) => nested.unread())]
  }

  #at(key: string): string {
    return this.#path === "" ? key : `${this.#path}.${key}`
  }
}

export function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function short(value: JsonValue): string {
  const text = canonicalJson(value)
  return text.length <= 200 ? text : `${text.substring(0, 200)}…`
}

/** The largest vector is some 700 KiB. */
const maxFileBytes = 64 * 1024 * 1024
