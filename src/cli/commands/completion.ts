import { Argument, type Command } from "commander"
import { buildProgram } from "../program.ts"
import type { Output } from "../output.ts"

export const shells = ["bash", "zsh", "fish"] as const

export function register(command: Command, output: Output): void {
  command
    .addArgument(new Argument("<shell>", "the shell to complete in").choices(shells))
    .addHelpText("after", "\nbash:  source <(perun completion bash)\nzsh:   source <(perun completion zsh)\nfish:  perun completion fish | source\n")
    .action(async (shell: (typeof shells)[number]) => output.raw(completionScript(shell, await buildProgram(undefined, output))))
}

/** The script that makes a shell complete the commands and options of `program`. */
export function completionScript(shell: (typeof shells)[number], program: Command): string {
  const tree = completionTree(program)
  switch (shell) {
    case "bash":
      return bashScript(tree)
    case "zsh":
      return `autoload -U +X bashcompinit && bashcompinit\n${bashScript(tree)}`
    case "fish":
      return fishScript(tree)
  }
}

/** Command path (words joined by a space) → words that may follow: sub-commands and long options. */
type CompletionTree = ReadonlyMap<string, readonly string[]>

function completionTree(program: Command): CompletionTree {
  const tree = new Map<string, readonly string[]>()
  const visit = (command: Command, path: string) => {
    const options = command.options.flatMap((option) => (option.long === undefined || option.long === null ? [] : [option.long]))
    tree.set(path, [...command.commands.map((child) => child.name()), ...options, "--help"])
    for (const child of command.commands) visit(child, path === "" ? child.name() : `${path} ${child.name()}`)
  }
  visit(program, "")
  return tree
}

/** The command is the longest known one that the line begins with; what follows are its arguments. */
function bashScript(tree: CompletionTree): string {
  const cases = [...tree].map(([path, words]) => `    "${path}") words="${words.join(" ")}" ;;`)
  const known = [...tree.keys()].filter((path) => path !== "").map((path) => `"${path}"`)
  return `_perun() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" word words=""
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$word" in -*) continue ;; esac
    case "\${path:+$path }$word" in ${known.join("|")}) path="\${path:+$path }$word" ;; *) break ;; esac
  done
  case "$path" in
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ \${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "$current"))
  return 0
}
complete -F _perun perun ./perun
`
}

function fishScript(tree: CompletionTree): string {
  const lines = [...tree].flatMap(([path, words]) => {
    const condition =
      path === ""
        ? "__fish_use_subcommand"
        : path
            .split(" ")
            .map((word) => `__fish_seen_subcommand_from ${word}`)
            .join("; and ")
    return words.map((word) =>
      word.startsWith("--") ? `complete -c perun -n "${condition}" -l ${word.slice(2)}` : `complete -c perun -f -n "${condition}" -a ${word}`,
    )
  })
  return `${lines.join("\n")}\n`
}
