/** Where a long piece of work stands. */
export interface Progress {
  /** What is being done, one short line for people. */
  readonly step: string
  /** Units done and in all; `total` is an estimate. */
  readonly done: number
  readonly total: number
}

export type OnProgress = (progress: Progress) => void
