import { z } from "zod"
import { digestOfJson, isDigest, type Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeBase64, parseUtf8 } from "../bytes/text.ts"

/** Values that a job is given besides its inputs: a password, a token, a seed. Programs find them where they look for such things anyway, and know nothing of Perun. */

/** What a policy says of a value. */
export type Secret = MadeSecret | ImportedSecret

/** A value that the manager draws; no party ever sees it. */
export interface MadeSecret {
  readonly made: {
    /** Random bytes, 16 to 64. */
    readonly bytes: number
    /** Text in which programs get them. */
    readonly as: "hex" | "base64"
    /** One value for all runs under the policy, so that one can read what another left; or a new one for each. */
    readonly per: "policy" | "run"
  }
}

/** A value that a party brings; nobody else sees it. */
export interface ImportedSecret {
  readonly owner: string
  /** What `secretCommitment` gives: the value is fixed before anybody signs, and not told. */
  readonly commitment: Digest
}

/** How a job is given a value. */
export type SecretUse =
  | { readonly environment: string }
  /** Absolute path of a file that holds it, for reading. */
  | { readonly file: string }
  /** Stands in the place of every argument of `run` that is exactly this text. */
  | { readonly argument: string }

export const maxSecretBytes = 65_536
/** Of a value in the environment or among the arguments. */
const maxTextBytes = 4096

export function secretSchema(name: z.ZodType<string>): z.ZodType<Secret> {
  const digest = z.custom<Digest>(isDigest, { error: 'expected "sha256:" and 64 lower-case hexadecimal digits' })
  return z.union([
    z.strictObject({
      made: z.strictObject({ bytes: z.int().min(16).max(64), as: z.enum(["hex", "base64"]), per: z.enum(["policy", "run"]) }),
    }),
    z.strictObject({ owner: name, commitment: digest }),
  ])
}

export function secretUseSchema(identifier: z.ZodType<string>, line: z.ZodType<string>, argument: z.ZodType<string>): z.ZodType<SecretUse> {
  return z.union([z.strictObject({ environment: identifier }), z.strictObject({ file: line }), z.strictObject({ argument })])
}

/** A party's value with the salt that keeps its commitment from being guessed. */
export interface SaltedSecret {
  /** 32 random bytes, lower-case hexadecimal. */
  readonly salt: string
  readonly value: Uint8Array
}

export function secretCommitment({ salt, value }: SaltedSecret): Digest {
  return digestOfJson({ perun: 1, purpose: "secret", salt, value: encodeBase64(value) })
}

/**
 * Demands that a value can be given in these ways: environment and arguments are text without NUL, of at most 4096 bytes.
 * @throws {MalformedError}
 */
export function demandFits(name: string, value: Uint8Array, uses: readonly SecretUse[]): void {
  if (value.length === 0 || value.length > maxSecretBytes)
    throw new MalformedError("malformed", `${value.length} bytes, expected 1 to ${maxSecretBytes}`, { path: name })
  if (uses.every((use) => "file" in use)) return
  if (value.length > maxTextBytes)
    throw new MalformedError("too-large", `${value.length} bytes, at most ${maxTextBytes} fit the environment or an argument`, { path: name })
  if (parseUtf8(value, name).includes("\0"))
    throw new MalformedError("malformed", "holds a NUL, which no environment or argument can", { path: name })
}

/** How a job is given a value, in a few words. */
export function useWords(use: SecretUse): string {
  if ("environment" in use) return `in the environment as ${use.environment}`
  return "file" in use ? `in the file ${use.file}` : `as the argument ${use.argument}`
}
