import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import { test } from "node:test"
import { inflateSync } from "node:zlib"
import { openAgeBytes } from "./age-file.ts"
import { SealingError } from "./errors.ts"

// The age test vectors of the C2SP ("CCTV age"), from the package cctv-age where it is installed. Each opens, or is refused with an error of ours.

/** Vectors that age opens and we refuse, with the reason. A line whose vector now opens fails. */
const narrower: Readonly<Record<string, string>> = {
  armor_crlf: "no armor",
  armor_full_last_line: "no armor",
  armor_hybrid: "no armor",
  armor_no_eol: "no armor",
  armor_scrypt: "no armor",
  armor_whitespace_outside: "no armor",
  armor_x25519: "no armor",
  hybrid_and_x25519: "one kind of recipient in one file: the mixture is as weak as the weaker",
  scrypt: "no passphrases",
}

const vectors = await loadVectors()

test(
  "every vector of the age test kit opens or is refused as it says",
  { skip: vectors === undefined ? "cctv-age is not installed" : false },
  async () => {
    assert.ok(vectors !== undefined && vectors.length > 100)
    for (const { name, fields, file } of vectors) {
      const mustOpen = fields.get("expect")?.[0] === "success" && !(name in narrower)
      const attempts = (fields.get("identity") ?? [noIdentity]).map((identity) => openAgeBytes(file, identity))
      const results = await Promise.allSettled(attempts)
      const opened = results.find((result) => result.status === "fulfilled")
      assert.equal(opened !== undefined, mustOpen, name)
      if (opened !== undefined) assert.equal(createHash("sha256").update(opened.value).digest("hex"), fields.get("payload")?.[0], name)
      for (const result of results)
        if (result.status === "rejected") assert.ok(result.reason instanceof SealingError, `${name}: ${String(result.reason)}`)
    }
    for (const name of Object.keys(narrower))
      assert.ok(
        vectors.some((vector) => vector.name === name),
        `no vector ${name}`,
      )
  },
)

interface Vector {
  readonly name: string
  readonly fields: ReadonlyMap<string, readonly string[]>
  readonly file: Uint8Array
}

async function loadVectors(): Promise<readonly Vector[] | undefined> {
  const packageName: string = "cctv-age"
  try {
    const files = Object.entries((await import(packageName)) as Record<string, Uint8Array>)
    return files.filter(([name]) => name !== "default").map(([name, bytes]) => parseVector(name, Buffer.from(bytes)))
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND") return undefined
    throw error
  }
}

function parseVector(name: string, bytes: Buffer): Vector {
  const end = bytes.indexOf("\n\n")
  const fields = new Map<string, string[]>()
  for (const line of bytes.subarray(0, end).toString().split("\n")) {
    const [key = "", value = ""] = line.split(": ", 2)
    fields.set(key, [...(fields.get(key) ?? []), value])
  }
  const rest = bytes.subarray(end + 2)
  return { name, fields, file: new Uint8Array(fields.has("compressed") ? inflateSync(rest) : rest) }
}

const noIdentity = "AGE-SECRET-KEY-1"
