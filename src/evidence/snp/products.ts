import { ByteReader } from "../../bytes/reader.ts"
import { EvidenceError } from "../errors.ts"
import type { CpuId, TcbVersion } from "./format.ts"

/** Product lines of EPYC processors with SEV-SNP, as AMD's key service names them; each has a root of its own. Bergamo and Siena go by Genoa. */
export type SnpProduct = keyof typeof snpProducts

export type TcbComponent = "fmc" | "bootLoader" | "tee" | "snp" | "microcode"

/** Security patch levels by component; `fmc` on Turin only. */
export type Tcb = Readonly<Partial<Record<TcbComponent, number>>>

interface ProductRow {
  readonly family: number
  /** Ranges of models, ends included. */
  readonly models: readonly (readonly [number, number])[]
  /** Bytes of TCB_VERSION in order; null is reserved. AMD 56860, tables 3 and 4. */
  readonly tcb: readonly (TcbComponent | null)[]
  /** Significant bytes of CHIP_ID; the rest is zero. */
  readonly chipIdBytes: number
  /** Security patch levels in endorsement key certificates, below 1.3.6.1.4.1.3704.1.3; null must be zero. AMD 57230, 3.1. */
  readonly certifiedLevels: Readonly<Record<number, TcbComponent | null>>
  /** structVersion in endorsement key certificates. */
  readonly structVersion: number
}

const beforeTurin = {
  tcb: ["bootLoader", "tee", null, null, null, null, "snp", "microcode"],
  chipIdBytes: 64,
  certifiedLevels: { 1: "bootLoader", 2: "tee", 3: "snp", 4: null, 5: null, 6: null, 7: null, 8: "microcode" },
  structVersion: 0,
} as const satisfies Partial<ProductRow>

export const snpProducts = {
  Milan: { family: 0x19, models: [[0x00, 0x0f]], ...beforeTurin },
  Genoa: {
    family: 0x19,
    models: [
      [0x10, 0x1f],
      [0xa0, 0xaf],
    ],
    ...beforeTurin,
  },
  Turin: {
    family: 0x1a,
    models: [[0x00, 0x11]],
    tcb: ["fmc", "bootLoader", "tee", "snp", null, null, null, "microcode"],
    chipIdBytes: 8,
    certifiedLevels: { 1: "bootLoader", 2: "tee", 3: "snp", 5: null, 6: null, 7: null, 8: "microcode", 9: "fmc" },
    structVersion: 1,
  },
} as const satisfies Readonly<Record<string, ProductRow>>

export const snpProductNames = Object.keys(snpProducts) as SnpProduct[]

/** @throws {EvidenceError} `unsupported` for a processor that is not in the table */
export function productOfCpu({ family, model }: CpuId): SnpProduct {
  const product = snpProductNames.find(
    (name) => snpProducts[name].family === family && snpProducts[name].models.some(([first, last]) => model >= first && model <= last),
  )
  if (product === undefined)
    throw new EvidenceError("unsupported", `processor family 0x${family.toString(16)}, model 0x${model.toString(16)}`, {
      path: "ATTESTATION_REPORT.CPUID",
    })
  return product
}

/** Security patch levels out of a TCB_VERSION. @throws {MalformedError} `malformed` when a reserved byte is not zero */
export function tcbOf(product: SnpProduct, version: TcbVersion, field: string): Tcb {
  const reader = new ByteReader("ATTESTATION_REPORT", version)
  const tcb: Partial<Record<TcbComponent, number>> = {}
  for (const component of snpProducts[product].tcb) {
    const level = reader.u8(field)
    if (component !== null) tcb[component] = level
    else if (level !== 0) throw reader.error("malformed", field, "reserved byte is not zero")
  }
  reader.finish()
  return tcb
}

/** True when no component of `a` is above that of `b`; both of one product. */
export function isTcbAtMost(product: SnpProduct, a: Tcb, b: Tcb): boolean {
  return componentsOf(product).every((component) => (a[component] ?? 0) <= (b[component] ?? 0))
}

/** Text for people: `bootLoader 3, tee 0, snp 8, microcode 115`. */
export function describeTcb(product: SnpProduct, tcb: Tcb): string {
  return componentsOf(product)
    .map((component) => `${component} ${tcb[component] ?? 0}`)
    .join(", ")
}

export function componentsOf(product: SnpProduct): readonly TcbComponent[] {
  const row: ProductRow = snpProducts[product]
  return row.tcb.filter((component) => component !== null)
}
