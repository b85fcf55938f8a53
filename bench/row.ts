/** One line of a benchmark's result. */
export interface BenchRow {
  /** What was measured. */
  readonly name: string
  readonly value: number
  /** Unit of `value`, e.g. `MB/s` (1,000,000 bytes per second). */
  readonly unit: string
  /** `value` divided by that of `against`, measured in the same run. */
  readonly ratio?: number
  /** What `ratio` compares with. */
  readonly against?: string
  /** What was aimed at, in words, e.g. `>= 2x`. */
  readonly goal?: string
}
