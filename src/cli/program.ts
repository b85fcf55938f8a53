import { Command, Help } from "commander"
import { readFileSync } from "node:fs"
import { groups } from "./commands.ts"
import type { Output } from "./output.ts"

export const version = (JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }).version

/** The command tree with the group that `args` name; all of them when `args` is undefined (completion, documentation). */
export async function buildProgram(args: readonly string[] | undefined, output: Output): Promise<Command> {
  const program = new Command("perun")
    .description("Train and serve one model from data and code that none of the parties may see.")
    .version(version, "--version")
    .option("--json", "print JSON lines instead of text")
    .enablePositionalOptions()
  const asked = args?.find((arg) => !arg.startsWith("-"))
  const wanted = asked === "help" ? args?.filter((arg) => !arg.startsWith("-"))[1] : asked
  for (const group of groups) {
    const command = program.command(group.name).description(group.summary)
    if (args === undefined || group.name === wanted) {
      const register = await group.load()
      register(command, output)
    }
  }
  strictly(program, output)
  return program
}

/** Every command takes `--json`, throws instead of exiting, prints errors in one line, and shows in its usage what it cannot do without. */
function strictly(command: Command, output: Output): void {
  command.exitOverride()
  command.configureHelp({ optionDescription: (option) => new Help().optionDescription(option).replace(/ \(default: \[\]\)$/, "") })
  const required = command.options.filter(({ mandatory }) => mandatory).map(({ flags }) => flags)
  if (required.length > 0) {
    const words = command.registeredArguments.map((argument) => (argument.required ? `<${argument.name()}>` : `[${argument.name()}]`))
    command.usage([...required, "[options]", ...words].join(" "))
  }
  command.configureOutput({
    writeErr: (text) => {
      if (!output.json) process.stderr.write(text)
    },
    outputError: (text, write) =>
      write(
        `perun: ${text
          .replace(/^error: /, "")
          .trim()
          .replace(/\s*\n\s*/g, " ")} (add --help for the usage)\n`,
      ),
  })
  for (const child of command.commands) {
    if (child.commands.length === 0) child.option("--json", "print JSON lines instead of text")
    strictly(child, output)
  }
}
