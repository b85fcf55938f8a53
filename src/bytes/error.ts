/**
 * The root of every error that bad input or the outside world may cause. A room declares its own subclass with a closed union of codes.
 * Text is lower case, without a full stop, and never holds a secret.
 */
export class PerunError<Code extends string = string> extends Error {
  /** Stable word for programs; tests assert this, never the text. */
  readonly code: Code
  /** Dotted path of the field at fault, e.g. `TPMS_ATTEST.extraData`; empty where no field is at fault. */
  readonly path: string

  constructor(code: Code, message: string, options: { readonly path?: string; readonly cause?: unknown } = {}) {
    super(
      options.path === undefined || options.path === "" ? message : `${options.path}: ${message}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    )
    this.name = new.target.name
    this.code = code
    this.path = options.path ?? ""
  }
}

/** What can be wrong with the form of bytes or text, before anyone asks what they mean. */
export type MalformedCode = "truncated" | "trailing-bytes" | "too-large" | "malformed" | "duplicate" | "unknown-field"

/** Input whose form is wrong. */
export class MalformedError extends PerunError<MalformedCode> {}

/** The world outside is silent or out of order: network, device, another program. Trying again later may help. */
export class UnavailableError extends PerunError<"unavailable" | "timeout" | "unsupported" | "disk-full" | "permission-denied" | "port-in-use"> {}
