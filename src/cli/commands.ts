import type { Command } from "commander"
import type { Output } from "./output.ts"

/** Adds a group's sub-commands, options and actions to its command. */
export type Register = (command: Command, output: Output) => void

export interface Group {
  readonly name: string
  readonly summary: string
  /** Loads the group's file; kept lazy so that a command starts fast. */
  load(): Promise<Register>
}

/** Every command of the program, in the order of `--help`. */
export const groups: readonly Group[] = [
  {
    name: "identity",
    summary: "create and show the identity that signs for you",
    load: async () => (await import("./commands/identity.ts")).register,
  },
  {
    name: "completion",
    summary: "print a completion script for bash, zsh or fish",
    load: async () => (await import("./commands/completion.ts")).register,
  },
]
