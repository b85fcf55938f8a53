import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { columns, exportTables, parseTable, splitTable } from "./export-data.ts"
import { scoreModel } from "./score.ts"

/** The form of the package's table, with numbers of no meaning. */
const text = [
  "569,30,malignant,benign",
  ...Array.from({ length: 569 }, (_, row) => [...columns.map((_, column) => row + column), row < 212 ? 0 : 1].join(",")),
]

test("splitTable() gives a fifth of each diagnosis to the test and halves the rest, each patient once", () => {
  const { clinicA, clinicB, consortium } = splitTable(parseTable(text.join("\n")))
  const sizes = [clinicA, clinicB, consortium].map((rows) => [rows.length, rows.filter(({ malignant }) => malignant).length])
  assert.deepEqual(sizes, [
    [228, 85],
    [228, 85],
    [113, 42],
  ])
  assert.equal(new Set([...clinicA, ...clinicB, ...consortium].map(({ features }) => features[0])).size, 569)
})

test("parseTable() refuses another table", () => {
  assert.throws(() => parseTable(text.slice(1).join("\n")))
  assert.throws(() => parseTable(text.slice(0, -1).join("\n")))
  assert.throws(() => parseTable(text.with(5, "1,2,3").join("\n")))
})

test("scoreModel() computes a network by hand", async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-score-"))
  try {
    // Two inputs, two hidden units (x, and -x cut at zero), output = 2x - 1: malignant for x > 0.5 after scaling.
    const parts = { "0.weight": [1, 0, -1, 0], "0.bias": [0, 0], "2.weight": [2, 0], "2.bias": [-1] }
    const shapes: Record<string, number[]> = { "0.weight": [2, 2], "0.bias": [2], "2.weight": [1, 2], "2.bias": [1] }
    let end = 0
    const header = Object.fromEntries(
      Object.entries(parts).map(([name, values]) => [name, { dtype: "F32", shape: shapes[name], data_offsets: [end, (end += 4 * values.length)] }]),
    )
    const json = Buffer.from(JSON.stringify(header))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(json.length))
    const data = Buffer.from(new Float32Array(Object.values(parts).flat()).buffer)
    await writeFile(join(folder, "model.safetensors"), Buffer.concat([length, json, data]))
    await writeFile(join(folder, "scaler.json"), JSON.stringify({ columns: ["x", "y"], target: "malignant", mean: [10, 0], deviation: [2, 1] }))
    await writeFile(join(folder, "test.csv"), "y,x,malignant\n5,12,1\n5,10.9,1\n5,8,0\n5,11.1,0\n")
    assert.deepEqual(await scoreModel(folder, join(folder, "test.csv")), { accuracy: 0.5, sensitivity: 0.5, specificity: 0.5, rows: 4 })
    await assert.rejects(writeFile(join(folder, "bad.csv"), "y,malignant\n5,1\n").then(() => scoreModel(folder, join(folder, "bad.csv"))))
  } finally {
    await rm(folder, { recursive: true })
  }
})

test("the trainer learns the real table, scored apart from it", { skip: whyNoTraining() }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-train-"))
  try {
    const { clinicA, consortium } = await exportTables(folder)
    assert.ok(existsSync(clinicA.path))
    const options = [
      "--data",
      join(folder, "clinic-a"),
      join(folder, "clinic-b"),
      "--model",
      join(folder, "model"),
      "--metrics",
      join(folder, "metrics.jsonl"),
    ]
    execFileSync("/usr/bin/python3", [join(import.meta.dirname, "trainer", "train.py"), ...options], { stdio: "pipe" })
    const score = await scoreModel(join(folder, "model"), consortium.path)
    assert.ok(score.accuracy >= 0.93, String(score.accuracy))
    const lines = (await readFile(join(folder, "metrics.jsonl"), "utf8")).trim().split("\n")
    assert.equal(lines.length, 20)
    assert.deepEqual(Object.keys(JSON.parse(lines[0] ?? "")), ["epoch", "loss", "accuracy"])
  } finally {
    await rm(folder, { recursive: true })
  }
})

function whyNoTraining(): string | false {
  if (!existsSync("/usr/lib/python3/dist-packages/torch")) return "skipped: no python3-torch"
  if (!existsSync("/usr/lib/python3/dist-packages/sklearn/datasets/data/breast_cancer.csv")) return "skipped: no python3-sklearn"
  return false
}
