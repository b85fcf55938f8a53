import { PerunError } from "../bytes/error.ts"

/** Why what a log says of itself is not believed. The meaning of each code stands here once. */
export const logCodes = {
  "wrong-proof": "the proof does not lead from the leaf or the older tree to the tree's root",
  "wrong-checkpoint": "the checkpoint is not signed by the log's key, or is of another log",
  "older-tree": "the log is shorter than it was when it was seen before: it was cut or set back",
  forked: "the log is not the one that was seen before: another history stands in its place",
  "not-witnessed": "fewer witnesses than demanded have cosigned the checkpoint, or not lately enough",
} as const satisfies Record<string, string>

export type LogCode = keyof typeof logCodes

export class LogError extends PerunError<LogCode> {}
