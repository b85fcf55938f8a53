import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { appendFile, mkdtemp, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import type { Metrics } from "../policy/document.ts"
import { MetricsFilter, MetricsFollower } from "./metrics.ts"

const rules: Metrics = {
  to: ["vendor"],
  schema: { epoch: "int" },
  maxPerMinute: 3,
  maxBytes: 1000,
}
const full: Metrics = { ...rules, schema: { epoch: "int", loss: { float: 4 }, accuracy: { float: 2 } } }

function accept(text: string, schema: Metrics["schema"]): unknown {
  return new MetricsFilter({ ...rules, schema }).accept(encodeUtf8(text), 0)
}

function reasonFor(line: Uint8Array | string, schema: Metrics["schema"] = { loss: { float: 2 } }): string | undefined {
  const filter = new MetricsFilter({ ...rules, schema })
  assert.equal(filter.accept(typeof line === "string" ? encodeUtf8(line) : line, 0), undefined)
  return Object.entries(filter.dropped).find(([, count]) => count === 1)?.[0]
}

test("MetricsFilter lets declared numbers through, rounded", () => {
  assert.deepEqual(accept('{"epoch": 3, "loss": 0.123456, "accuracy": 0.98765}', full.schema), { epoch: 3, loss: 0.1235, accuracy: 0.99 })
  assert.ok(Object.is(Object.values(accept('{"loss":-0.00001}', { loss: { float: 2 } }) ?? {})[0], 0))
  assert.deepEqual(accept('{"epoch":2147483647}', rules.schema), { epoch: 2147483647 })
})

test("MetricsFilter drops what is no JSON object of numbers", () => {
  for (const line of [
    "",
    "loss 3",
    "[1]",
    "3",
    '{"loss":NaN}',
    '{"loss":Infinity}',
    '{"epoch":1,"epoch":2}',
    '{"loss":{"a":1}}',
    '{"loss":1} x',
    "null",
  ])
    assert.equal(reasonFor(line), "malformed", line)
  assert.equal(reasonFor(Uint8Array.of(0x7b, 0xff, 0x7d)), "malformed")
  assert.equal(reasonFor(`{"loss":1${" ".repeat(5000)}}`), "malformed")
})

test("MetricsFilter drops undeclared and missing names, text and empty lines", () => {
  const lines = ['{"patient":7}', '{"loss":"0.5"}', '{"loss":true}', '{"loss":null}', "{}", '{"loss":1,"toString":1}', '{"loss":1,"constructor":1}']
  for (const line of lines) assert.equal(reasonFor(line), "schema", line)
  assert.equal(reasonFor('{"epoch":1}', full.schema), "schema")
})

test("MetricsFilter drops numbers out of range", () => {
  assert.equal(reasonFor('{"epoch":1.5}', rules.schema), "schema")
  for (const line of ['{"epoch":2147483648}', '{"epoch":-2147483648}']) assert.equal(reasonFor(line, rules.schema), "range", line)
  for (const line of ['{"loss":1e10}', '{"loss":-1e10}']) assert.equal(reasonFor(line), "range", line)
})

test("MetricsFilter keeps to the rate of any minute", () => {
  const filter = new MetricsFilter(rules)
  const line = encodeUtf8('{"epoch":1}')
  for (const now of [0, 30, 59]) assert.ok(filter.accept(line, now))
  assert.equal(filter.accept(line, 59.9), undefined)
  assert.ok(filter.accept(line, 60))
  assert.equal(filter.accept(line, 61), undefined)
  assert.equal(filter.dropped.rate, 2)
})

test("MetricsFilter keeps to the byte cap of the run", () => {
  const filter = new MetricsFilter({ ...rules, maxBytes: 22 })
  const line = encodeUtf8('{"epoch":1}')
  assert.ok(filter.accept(line, 0))
  assert.ok(filter.accept(line, 100))
  assert.equal(filter.accept(line, 200), undefined)
  assert.equal(filter.dropped.bytes, 1)
})

test("MetricsFollower reads whole lines as they appear", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-metrics-"))
  try {
    const path = join(folder, "metrics.jsonl")
    const follower = new MetricsFollower(path, new MetricsFilter(rules))
    assert.deepEqual(await follower.poll(0), [])
    await writeFile(path, '{"epoch":1}\n\n{"epo')
    assert.deepEqual(await follower.poll(1), [{ epoch: 1 }])
    await appendFile(path, 'ch":2}\n{"epoch":3}')
    assert.deepEqual(await follower.poll(2), [{ epoch: 2 }])
    assert.deepEqual(await follower.poll(3), [])
    assert.deepEqual(await follower.poll(4, true), [{ epoch: 3 }])
  } finally {
    await rm(folder, { recursive: true })
  }
})

test("MetricsFollower skips a line that has no end, and goes on behind it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-metrics-"))
  try {
    const path = join(folder, "metrics.jsonl")
    const filter = new MetricsFilter(rules)
    const follower = new MetricsFollower(path, filter)
    await writeFile(path, "x".repeat(5000))
    assert.deepEqual(await follower.poll(0), [])
    await appendFile(path, "x".repeat(5000))
    assert.deepEqual(await follower.poll(0, true), [])
    await appendFile(path, '\n{"epoch":9}\n')
    assert.deepEqual(await follower.poll(0), [{ epoch: 9 }])
    assert.equal(filter.dropped.malformed, 1)
  } finally {
    await rm(folder, { recursive: true })
  }
})

test("MetricsFollower follows no link and reads no pipe", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-metrics-"))
  try {
    await writeFile(join(folder, "secret"), '{"epoch":1}\n')
    await symlink(join(folder, "secret"), join(folder, "link"))
    assert.deepEqual(await new MetricsFollower(join(folder, "link"), new MetricsFilter(rules)).poll(0), [])
    execFileSync("mkfifo", [join(folder, "pipe")])
    assert.deepEqual(await new MetricsFollower(join(folder, "pipe"), new MetricsFilter(rules)).poll(0), [])
    assert.deepEqual(await new MetricsFollower(folder, new MetricsFilter(rules)).poll(0), [])
  } finally {
    await rm(folder, { recursive: true })
  }
})
