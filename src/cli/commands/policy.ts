import type { Command } from "commander"
import type { Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  void command
  void output
}
