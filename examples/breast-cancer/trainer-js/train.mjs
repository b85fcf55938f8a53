// The same network as trainer/train.py in plain JavaScript, for machines without PyTorch: reads CSV files, writes model.safetensors and scaler.json.
// It knows nothing of Perun.
import { appendFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"

const target = "malignant"
const { values: options } = parseArgs({
  options: {
    data: { type: "string", multiple: true },
    model: { type: "string" },
    metrics: { type: "string" },
    epochs: { type: "string", default: "40" },
    hidden: { type: "string", default: "16" },
    seed: { type: "string", default: "1" },
  },
})

const batch = 32
const learningRate = 0.005
const weightDecay = 0.01
const random = generator(Number(options.seed))

const { columns, rows } = readTables(options.data ?? [])
const labels = rows.map((row) => row.at(-1))
const mean = columns.map((_, c) => rows.reduce((sum, row) => sum + row[c], 0) / rows.length)
const deviation = columns.map((_, c) => Math.max(1e-12, Math.sqrt(rows.reduce((sum, row) => sum + (row[c] - mean[c]) ** 2, 0) / (rows.length - 1))))
const inputs = rows.map((row) => columns.map((_, c) => (row[c] - mean[c]) / deviation[c]))

const hidden = Number(options.hidden)
const parameters = {
  "0.weight": uniform(hidden * columns.length, columns.length),
  "0.bias": uniform(hidden, columns.length),
  "2.weight": uniform(hidden, hidden),
  "2.bias": uniform(1, hidden),
}
const shapes = { "0.weight": [hidden, columns.length], "0.bias": [hidden], "2.weight": [1, hidden], "2.bias": [1] }
const moments = Object.fromEntries(
  Object.entries(parameters).map(([name, { length }]) => [name, { first: new Float64Array(length), second: new Float64Array(length) }]),
)

let step = 0
for (let epoch = 1; epoch <= Number(options.epochs); epoch++) {
  const order = shuffled(rows.length)
  let loss = 0
  let right = 0
  for (let start = 0; start < order.length; start += batch) {
    const result = trainBatch(order.slice(start, start + batch))
    loss += result.loss
    right += result.right
  }
  const values = { epoch, loss: loss / rows.length, accuracy: right / rows.length }
  if (options.metrics !== undefined) appendFileSync(options.metrics, `${JSON.stringify(values)}\n`)
  console.log(`epoch ${epoch}: loss ${values.loss.toFixed(4)}, accuracy ${values.accuracy.toFixed(4)}`)
}

mkdirSync(options.model, { recursive: true })
writeFileSync(join(options.model, "model.safetensors"), safetensors())
writeFileSync(join(options.model, "scaler.json"), `${JSON.stringify({ columns, target, mean, deviation }, undefined, 1)}\n`)

/** Forward, backward and one AdamW step. */
function trainBatch(chosen) {
  const gradients = Object.fromEntries(Object.entries(parameters).map(([name, { length }]) => [name, new Float64Array(length)]))
  let loss = 0
  let right = 0
  for (const index of chosen) {
    const x = inputs[index]
    const before = Array.from({ length: hidden }, (_, unit) =>
      x.reduce((sum, value, c) => sum + parameters["0.weight"][unit * x.length + c] * value, parameters["0.bias"][unit]),
    )
    const after = before.map((value) => Math.max(0, value))
    const logit = after.reduce((sum, value, unit) => sum + parameters["2.weight"][unit] * value, parameters["2.bias"][0])
    const label = labels[index]
    loss += Math.max(logit, 0) - logit * label + Math.log1p(Math.exp(-Math.abs(logit)))
    right += logit > 0 === label > 0.5 ? 1 : 0
    const error = (1 / (1 + Math.exp(-logit)) - label) / chosen.length
    gradients["2.bias"][0] += error
    for (let unit = 0; unit < hidden; unit++) {
      gradients["2.weight"][unit] += error * after[unit]
      if (before[unit] <= 0) continue
      const back = error * parameters["2.weight"][unit]
      gradients["0.bias"][unit] += back
      for (let c = 0; c < x.length; c++) gradients["0.weight"][unit * x.length + c] += back * x[c]
    }
  }
  step++
  for (const [name, values] of Object.entries(parameters)) {
    const { first, second } = moments[name]
    for (let i = 0; i < values.length; i++) {
      const gradient = gradients[name][i]
      first[i] = 0.9 * first[i] + 0.1 * gradient
      second[i] = 0.999 * second[i] + 0.001 * gradient ** 2
      values[i] -= learningRate * (weightDecay * values[i] + first[i] / (1 - 0.9 ** step) / (Math.sqrt(second[i] / (1 - 0.999 ** step)) + 1e-8))
    }
  }
  return { loss, right }
}

/** Rows of numbers of all tables, the target last; the tables must agree on their columns. */
function readTables(folders) {
  let columns
  const rows = []
  for (const folder of folders) {
    for (const name of readdirSync(folder, { recursive: true }).map(String).sort()) {
      if (!name.endsWith(".csv")) continue
      const [head = "", ...lines] = readFileSync(join(folder, name), "utf8").trim().split(/\r?\n/)
      const names = head.split(",")
      const features = names.filter((column) => column !== target)
      if (!names.includes(target) || (columns !== undefined && columns.join() !== features.join()))
        throw new Error(`${name} has other columns than expected`)
      columns = features
      const order = [...features, target].map((column) => names.indexOf(column))
      for (const line of lines) {
        const cells = line.split(",").map(Number)
        rows.push(order.map((place) => cells[place]))
      }
    }
  }
  if (columns === undefined || rows.length === 0) throw new Error("no rows found")
  return { columns, rows }
}

/** Numbers from 0 to 1 that depend on the seed only (mulberry32). */
function generator(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

function uniform(length, fanIn) {
  const bound = 1 / Math.sqrt(fanIn)
  return Float64Array.from({ length }, () => (2 * random() - 1) * bound)
}

function shuffled(length) {
  const order = Array.from({ length }, (_, i) => i)
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  return order
}

/** The format is a length, a JSON header and the numbers. */
function safetensors() {
  const header = {}
  const parts = []
  let end = 0
  for (const [name, values] of Object.entries(parameters)) {
    const part = Buffer.from(Float32Array.from(values).buffer)
    header[name] = { dtype: "F32", shape: shapes[name], data_offsets: [end, end + part.length] }
    parts.push(part)
    end += part.length
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([length, text, ...parts])
}
