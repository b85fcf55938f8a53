import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { promisify } from "node:util"

// The Wisconsin diagnostic breast cancer table (569 patients, 30 features), as Debian's and Ubuntu's python3-sklearn ships it, split for four parties:
//   node examples/breast-cancer/export-data.ts FOLDER
// writes FOLDER/{clinic-a,clinic-b}/records.csv and FOLDER/consortium/test.csv. The table is not part of this repository.

const run = promisify(execFile)

/** Where each party's table was written, and how many patients it holds. */
export interface ExportedTables {
  readonly clinicA: ExportedTable
  readonly clinicB: ExportedTable
  readonly consortium: ExportedTable
}

export interface ExportedTable {
  readonly path: string
  readonly rows: number
}

/**
 * Writes the three tables below `folder`: a fifth of each diagnosis for the consortium's test, the rest in halves for the clinics, by a fixed seed.
 * `cache` is a folder that keeps the table between calls; without one the package is fetched anew where python3-sklearn is not installed.
 */
export async function exportTables(folder: string, cache?: string): Promise<ExportedTables> {
  const table = parseTable(await readFile(await findTable(cache), "utf8"))
  const parts = splitTable(table)
  return {
    clinicA: await writeTable(join(folder, "clinic-a", "records.csv"), parts.clinicA),
    clinicB: await writeTable(join(folder, "clinic-b", "records.csv"), parts.clinicB),
    consortium: await writeTable(join(folder, "consortium", "test.csv"), parts.consortium),
  }
}

/** A patient: 30 features as the table writes them, and whether the tumour is malignant. */
interface Row {
  readonly features: readonly string[]
  readonly malignant: boolean
}

/** The package's table starts with `569,30,malignant,benign`; in its last column 0 is malignant. */
export function parseTable(text: string): readonly Row[] {
  const [head, ...lines] = text.trim().split(/\r?\n/)
  if (head !== "569,30,malignant,benign" || lines.length !== 569) throw new Error("breast_cancer.csv is not the table that was expected")
  return lines.map((line) => {
    const fields = line.split(",")
    const target = fields.pop()
    if (fields.length !== columns.length || (target !== "0" && target !== "1")) throw new Error("breast_cancer.csv has a line of another form")
    return { features: fields, malignant: target === "0" }
  })
}

export function splitTable(rows: readonly Row[]): { clinicA: readonly Row[]; clinicB: readonly Row[]; consortium: readonly Row[] } {
  const parts = { clinicA: new Array<Row>(), clinicB: new Array<Row>(), consortium: new Array<Row>() }
  const random = generator(2026)
  for (const malignant of [true, false]) {
    const group = shuffled(
      rows.filter((row) => row.malignant === malignant),
      random,
    )
    const testRows = Math.round(group.length / 5)
    group.forEach((row, index) => {
      if (index < testRows) parts.consortium.push(row)
      else if ((index - testRows) % 2 === 0) parts.clinicA.push(row)
      else parts.clinicB.push(row)
    })
  }
  return { clinicA: shuffled(parts.clinicA, random), clinicB: shuffled(parts.clinicB, random), consortium: shuffled(parts.consortium, random) }
}

async function writeTable(path: string, rows: readonly Row[]): Promise<ExportedTable> {
  await mkdir(dirname(path), { recursive: true })
  const lines = [[...columns, "malignant"].join(","), ...rows.map(({ features, malignant }) => [...features, malignant ? 1 : 0].join(","))]
  await writeFile(path, lines.join("\n") + "\n")
  return { path, rows: rows.length }
}

/** Path of the table: installed, kept from an earlier call, or taken out of the package without installing it. */
async function findTable(cache: string | undefined): Promise<string> {
  if (existsSync(join("/", pathInPackage))) return join("/", pathInPackage)
  if (cache === undefined) return fetchTable(await mkdtemp(join(tmpdir(), "perun-breast-cancer-")))
  const kept = join(resolve(cache), "breast_cancer.csv")
  return existsSync(kept) ? kept : fetchTable(resolve(cache))
}

async function fetchTable(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true })
  const work = await mkdtemp(join(folder, "package-"))
  try {
    await run("apt-get", ["-q", "-o", "APT::Sandbox::User=root", "download", "python3-sklearn"], { cwd: work }).catch((cause: unknown) => {
      throw new Error("cannot fetch the package python3-sklearn; run 'apt-get update' first, or install it", { cause })
    })
    const archive = (await readdir(work)).find((name) => name.endsWith(".deb"))
    if (archive === undefined) throw new Error("apt-get download left no package")
    await run("dpkg-deb", ["--extract", archive, "root"], { cwd: work })
    const kept = join(folder, "breast_cancer.csv")
    await rename(join(work, "root", pathInPackage), kept)
    return kept
  } finally {
    await rm(work, { recursive: true })
  }
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ item }) => item)
}

/** Mulberry32: a small generator whose numbers are the same everywhere. */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const pathInPackage = "usr/lib/python3/dist-packages/sklearn/datasets/data/breast_cancer.csv"

const measures = [
  "radius",
  "texture",
  "perimeter",
  "area",
  "smoothness",
  "compactness",
  "concavity",
  "concave_points",
  "symmetry",
  "fractal_dimension",
]

/** In the table's order: the mean of each measure over a sample's cells, its standard error, and the mean of its three largest. */
export const columns: readonly string[] = ["mean", "error", "worst"].flatMap((statistic) => measures.map((measure) => `${statistic}_${measure}`))

if (import.meta.main) {
  const folder = process.argv[2]
  if (folder === undefined) {
    console.error("usage: node export-data.ts FOLDER")
    process.exitCode = 2
  } else {
    for (const { path, rows } of Object.values(await exportTables(folder, join(folder, ".cache")))) console.log(`${path}: ${rows} patients`)
  }
}
