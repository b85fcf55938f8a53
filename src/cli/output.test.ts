import assert from "node:assert/strict"
import { Writable } from "node:stream"
import { test } from "node:test"
import { WriteStream } from "node:tty"
import { stripVTControlCharacters } from "node:util"
import { Output } from "./output.ts"

interface Written {
  readonly out: string
  readonly err: string
}

/** What an Output writes where standard output and error are terminals of so many columns, or none. */
function written(terminals: { readonly out?: number; readonly err?: number }, write: (output: Output) => void, json = false): Written {
  const text = { out: "", err: "" }
  const streamOf = (name: "out" | "err"): NodeJS.WriteStream => {
    const stream = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        text[name] += chunk.toString()
        done()
      },
    })
    const columns = terminals[name]
    return Object.assign(stream, {
      columns,
      isTTY: columns !== undefined,
      getColorDepth: WriteStream.prototype.getColorDepth,
      hasColors: WriteStream.prototype.hasColors,
    }) as unknown as NodeJS.WriteStream
  }
  write(new Output({ json, out: streamOf("out"), err: streamOf("err") }))
  return text
}

const rows = [
  ["jobs.train.outputs.model.release.of.0", "still to be filled in: whose votes release the output", "write names of the owners"],
] as const
const table = (output: Output): void => output.table(["field", "problem", "what to do"], rows)

test("a table stays within a terminal's columns, shares them fairly, and loses no word", () => {
  for (const columns of [120, 80, 60]) {
    const lines = stripVTControlCharacters(written({ out: columns }, table).out)
      .trimEnd()
      .split("\n")
    for (const line of lines) assert.ok(line.length <= columns, `${line.length} > ${columns}: ${line}`)
    assert.equal(lines.join("").replaceAll(/\s/g, "").length, `fieldproblemwhattodo${rows.flat().join("")}`.replaceAll(/\s/g, "").length)
  }
  const [header = ""] = stripVTControlCharacters(written({ out: 60 }, table).out).split("\n")
  const starts = ["problem", "what to do"].map((word) => header.indexOf(word))
  assert.ok(
    starts.every((start, index) => Math.abs(start - 20 * (index + 1)) <= 4),
    header,
  )
})

test("a table in a pipe keeps every cell whole; with --json nothing but JSON is written", () => {
  assert.equal(written({}, table).out.split("\n").length, 3)
  assert.deepEqual(written({ out: 40 }, table, true), { out: "", err: "" })
})

test("colour goes to terminals only, each stream judged by itself; NO_COLOR ends it", () => {
  // Node looks at two dozen variables (CI, TMUX, TEAMCITY_VERSION ...): the test's world holds a terminal and nothing else.
  const given = process.env
  process.env = { TERM: "xterm" }
  const both = (output: Output): void => {
    output.line("fine", "good")
    output.warn("careful")
  }
  const coloured = (text: string): boolean => text.includes("\u001b[")
  const colours = (terminals: { readonly out?: number; readonly err?: number }): readonly boolean[] => {
    const { out, err } = written(terminals, both)
    return [coloured(out), coloured(err)]
  }
  try {
    assert.deepEqual(colours({ out: 80, err: 80 }), [true, true])
    assert.deepEqual(colours({ out: 80 }), [true, false])
    assert.deepEqual(colours({ err: 80 }), [false, true])
    process.env["NO_COLOR"] = "1"
    assert.deepEqual(colours({ out: 80, err: 80 }), [false, false])
  } finally {
    process.env = given
  }
})
