import { MalformedError } from "../../bytes/error.ts"
import type { JsonValue } from "../../bytes/json.ts"

/** Strict reading of Intel's JSON: every member is known, of its form, and within bounds. */

export type JsonObject = { readonly [key: string]: JsonValue }

/** An object with no other members than `known`; the table is true for those that must be there. */
export function objectOf(value: JsonValue | undefined, path: string, known: Readonly<Record<string, boolean>>): JsonObject {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw malformed(path, "not an object")
  const object = value as JsonObject
  for (const key in object) if (!Object.hasOwn(known, key)) throw new MalformedError("unknown-field", "unknown member", { path: `${path}.${key}` })
  for (const key in known) if (known[key] === true && !Object.hasOwn(object, key)) throw malformed(`${path}.${key}`, "is missing")
  return object
}

export function listOf(object: JsonObject, key: string, path: string, maximum: number): readonly JsonValue[] {
  const value = object[key]
  if (!Array.isArray(value)) throw malformed(`${path}.${key}`, "not a list")
  if (value.length > maximum)
    throw new MalformedError("too-large", `${value.length} items, at most ${maximum} are allowed`, { path: `${path}.${key}` })
  return value
}

export function textOf(object: JsonObject, key: string, path: string): string {
  const value = object[key]
  if (typeof value !== "string") throw malformed(`${path}.${key}`, "not a text")
  return value
}

/** A whole number from 0 to `maximum`. */
export function numberOf(object: JsonObject, key: string, path: string, maximum: number): number {
  const value = object[key]
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > maximum)
    throw malformed(`${path}.${key}`, `not a whole number from 0 to ${maximum}`)
  return value
}

/** Hexadecimal of exactly `bytes` bytes, in either case; given back in lower case. */
export function hexOf(object: JsonObject, key: string, path: string, bytes: number): string {
  const text = textOf(object, key, path)
  if (text.length !== bytes * 2 || !/^[0-9A-Fa-f]*$/.test(text)) throw malformed(`${path}.${key}`, `not hexadecimal of ${bytes} bytes`)
  return text.toLowerCase()
}

/** A moment in the only form that Intel writes; milliseconds since 1970. */
export function timeOf(object: JsonObject, key: string, path: string): number {
  const text = textOf(object, key, path)
  const time = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(time)) throw malformed(`${path}.${key}`, "not a UTC time to the second")
  return time
}

/** One of the words of a table. */
export function wordOf<Word extends string>(object: JsonObject, key: string, path: string, words: readonly Word[]): Word {
  const text = textOf(object, key, path)
  const word = words.find((candidate) => candidate === text)
  if (word === undefined) throw malformed(`${path}.${key}`, `"${text.substring(0, 40)}" is none of ${words.join(", ")}`)
  return word
}

function malformed(path: string, message: string): MalformedError {
  return new MalformedError("malformed", message, { path })
}
