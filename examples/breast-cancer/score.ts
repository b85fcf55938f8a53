import { readFile } from "node:fs/promises"
import { join } from "node:path"

// Scores a model of trainer/train.py on a table with the true diagnoses, without PyTorch:
//   node examples/breast-cancer/score.ts MODEL-FOLDER TEST.csv

export interface Score {
  /** Part of the patients whose diagnosis the model gives right, 0 to 1. */
  readonly accuracy: number
  /** Part of the malignant tumours that the model finds. */
  readonly sensitivity: number
  /** Part of the benign tumours that the model takes for benign. */
  readonly specificity: number
  readonly rows: number
}

/** Scores the model in `folder` (`model.safetensors`, `scaler.json`) on a CSV file with the same columns and the target. */
export async function scoreModel(folder: string, csvPath: string): Promise<Score> {
  const tensors = parseSafetensors(await readFile(join(folder, "model.safetensors")))
  const scaler = JSON.parse(await readFile(join(folder, "scaler.json"), "utf8")) as Scaler
  const table = parseCsv(await readFile(csvPath, "utf8"))
  const layers = [0, 2].map((index) => ({ weight: tensorOf(tensors, `${index}.weight`), bias: tensorOf(tensors, `${index}.bias`) }))
  const right = { malignant: 0, benign: 0 }
  const all = { malignant: 0, benign: 0 }
  for (const row of table) {
    const inputs = scaler.columns.map((name, index) => (valueOf(row, name) - (scaler.mean[index] ?? NaN)) / (scaler.deviation[index] ?? NaN))
    const truth = valueOf(row, scaler.target) > 0.5 ? "malignant" : "benign"
    const found = predict(layers, inputs) > 0 ? "malignant" : "benign"
    all[truth]++
    if (found === truth) right[truth]++
  }
  return {
    accuracy: (right.malignant + right.benign) / table.length,
    sensitivity: right.malignant / all.malignant,
    specificity: right.benign / all.benign,
    rows: table.length,
  }
}

interface Scaler {
  readonly columns: readonly string[]
  readonly target: string
  readonly mean: readonly number[]
  readonly deviation: readonly number[]
}

interface Tensor {
  readonly shape: readonly number[]
  readonly values: Float32Array
}

/** Linear layers with ReLU between them; the result is the logit of "malignant". */
function predict(layers: readonly { readonly weight: Tensor; readonly bias: Tensor }[], inputs: readonly number[]): number {
  let values = inputs
  layers.forEach(({ weight, bias }, depth) => {
    const previous = values
    values = Array.from(bias.values, (offset, unit) => {
      const sum = previous.reduce((total, value, index) => total + value * (weight.values[unit * previous.length + index] ?? NaN), offset)
      return depth < layers.length - 1 ? Math.max(0, sum) : sum
    })
  })
  return values[0] ?? NaN
}

/** Only what `train.py` writes: 32-bit floats. */
function parseSafetensors(file: Uint8Array): ReadonlyMap<string, Tensor> {
  const bytes = new Uint8Array(file)
  const headerLength = Number(new DataView(bytes.buffer).getBigUint64(0, true))
  const header = JSON.parse(Buffer.from(bytes.buffer, 8, headerLength).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  return new Map(
    Object.entries(header).map(([name, { dtype, shape, data_offsets: offsets }]) => {
      if (dtype !== "F32") throw new Error(`${name} is of type ${dtype}, expected F32`)
      const start = 8 + headerLength
      return [name, { shape, values: new Float32Array(bytes.buffer.slice(start + offsets[0], start + offsets[1])) }]
    }),
  )
}

function tensorOf(tensors: ReadonlyMap<string, Tensor>, name: string): Tensor {
  const tensor = tensors.get(name)
  if (tensor === undefined) throw new Error(`the model has no ${name}`)
  return tensor
}

function parseCsv(text: string): readonly Readonly<Record<string, string>>[] {
  const [head = "", ...lines] = text.trim().split(/\r?\n/)
  const names = head.split(",")
  return lines.map((line) => Object.fromEntries(line.split(",").map((field, index) => [names[index] ?? "", field])))
}

function valueOf(row: Readonly<Record<string, string>>, name: string): number {
  const value = Number(row[name])
  if (row[name] === undefined || row[name] === "" || Number.isNaN(value)) throw new Error(`the table has no number under ${name}`)
  return value
}

if (import.meta.main) {
  const [folder, csvPath] = process.argv.slice(2)
  if (folder === undefined || csvPath === undefined) {
    console.error("usage: node score.ts MODEL-FOLDER TEST.csv")
    process.exitCode = 2
  } else {
    const { accuracy, sensitivity, specificity, rows } = await scoreModel(folder, csvPath)
    const text = (part: number): string => part.toFixed(3)
    console.log(`accuracy ${text(accuracy)}, sensitivity ${text(sensitivity)}, specificity ${text(specificity)} on ${rows} patients`)
  }
}
