import { PerunError } from "../src/bytes/error.ts"

/**
 * What can go wrong in the laboratory. `program-failed`: a tool such as mke2fs ended badly; `machine-ended`: a machine stopped before what was awaited;
 * `console-timeout`: the awaited console text did not come; `build-failed`: the image would not be what it must be; `busy`: another builder holds the lock; `not-refused`, `not-granted`: a scenario's machine was judged otherwise than it must be.
 */
export type LabErrorCode =
  "program-failed" | "missing-packages" | "machine-ended" | "console-timeout" | "build-failed" | "busy" | "not-refused" | "not-granted"

export class LabError extends PerunError<LabErrorCode> {}
