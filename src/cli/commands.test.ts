import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { test } from "node:test"
import type { Command } from "commander"
import { groups } from "./commands.ts"
import { completionScript, shells } from "./commands/completion.ts"
import { Output, printable } from "./output.ts"
import { buildProgram } from "./program.ts"

const output = new Output({ json: true })
const program = await buildProgram(undefined, output)
const leaves = leavesOf(program, [])

/** What users are told to type; a command that went or was renamed breaks them. */
const promised = [
  ...["identity create", "identity show", "seal", "open"],
  ...["policy init", "policy check", "policy explain", "policy diff", "policy sign", "policy submit", "policy status", "policy withdraw"],
  ...[
    "artifact deposit",
    "artifact list",
    "manager init",
    "manager serve",
    "manager admit",
    "manager members",
    "manager status",
    "host enrol",
    "host list",
    "host retire",
    "agent run",
  ],
  ...["job list", "job watch", "job cancel", "output list", "output vote", "output fetch", "evidence verify", "evidence conformance"],
  ...["reference build", "reference show", "reference diff", "lab setup", "lab build", "lab boot", "lab console", "lab stop", "demo", "completion"],
]

test("every group loads and has a summary", () => {
  assert.deepEqual(
    program.commands.map((command) => command.name()),
    groups.map(({ name }) => name),
  )
  for (const { name, summary } of groups) assert.notEqual(summary, "", name)
})

test("every promised command is there", () => {
  const names = leaves.map(({ path }) => path.join(" "))
  assert.deepEqual(
    promised.filter((name) => !names.includes(name)),
    [],
  )
})

test("every command says what it does and what each of its arguments and options is", () => {
  for (const { path, command } of leaves) {
    const name = path.join(" ")
    assert.notEqual(command.description(), "", name)
    assert.ok(command.description().length <= 200, `${name}: a description is one sentence`)
    for (const argument of command.registeredArguments) assert.notEqual(argument.description, "", `${name} ${argument.name()}`)
    for (const option of command.options) assert.notEqual(option.description, "", `${name} ${option.flags}`)
    assert.ok(
      command.options.some(({ long }) => long === "--json"),
      `${name} takes --json`,
    )
  }
})

test("every command's --help ends well and names the command", async () => {
  for (const { path } of leaves) {
    const fresh = await buildProgram(path, output)
    let text = ""
    for (const command of withParents(fresh, path)) command.configureOutput({ writeOut: (part) => (text += part) })
    await assert.rejects(fresh.parseAsync([...path, "--help"], { from: "user" }), { code: "commander.helpDisplayed", exitCode: 0 }, path.join(" "))
    assert.ok(text.startsWith(`Usage: perun ${path.join(" ")}`), text)
    const usage = text.split("\n\n")[0] ?? ""
    const command = withParents(fresh, path).at(-1)
    for (const { flags, mandatory } of command?.options ?? []) assert.equal(usage.includes(flags), mandatory, `${path.join(" ")} ${flags}`)
    assert.doesNotMatch(text, /default: \[\]/)
  }
})

test("completion scripts hold every command and option", () => {
  for (const shell of shells) {
    const script = completionScript(shell, program)
    for (const { path, command } of leaves) {
      const words = [...path, ...command.options.flatMap(({ long }) => (long === null || long === undefined ? [] : [long]))]
      for (const word of words) assert.ok(script.includes(word.replace(/^--(?=.)/, shell === "fish" ? "-l " : "--")), `${shell}: ${word}`)
    }
  }
})

test("the completion script for bash is bash and completes", (t) => {
  const script = completionScript("bash", program)
  const syntax = spawnSync("bash", ["-n"], { input: script, encoding: "utf8" })
  if (syntax.error !== undefined) return t.skip("no bash")
  assert.equal(syntax.status, 0, syntax.stderr)
  assert.ok(bashAnswers(script, ["perun", "la"]).includes("lab"))
  assert.deepEqual(bashAnswers(script, ["perun", "reference", "b"]), ["build"])
  assert.ok(bashAnswers(script, ["perun", "lab", "boot", "--f"]).includes("--foreground"))
  // Options and their values are no part of the command.
  assert.ok(bashAnswers(script, ["perun", "lab", "boot", "--folder", "x", "--for"]).includes("--foreground"))
})

test("the completion script for fish stands under the shell where there is one", (t) => {
  const syntax = spawnSync("fish", ["--no-execute", "/dev/stdin"], { input: completionScript("fish", program), encoding: "utf8" })
  if (syntax.error !== undefined) return t.skip("no fish")
  assert.equal(syntax.status, 0, syntax.stderr)
})

test("printable() lets no text of others steer the terminal", () => {
  const text = printable("a\u001b[2Jb\nc\u202ed\u0085\r")
  assert.match(text, /^ab.c.d..$/u)
  assert.ok(!/[\p{Cc}\u202e]/u.test(text), JSON.stringify(text))
  assert.equal(printable("\u001b[=3h\u001b[?25l\u001b[1;31mperun\u001b[ q"), "perun")
})

interface Leaf {
  readonly path: readonly string[]
  readonly command: Command
}

function leavesOf(command: Command, path: readonly string[]): readonly Leaf[] {
  return command.commands.flatMap((child) => {
    const at = [...path, child.name()]
    return child.commands.length === 0 ? [{ path: at, command: child }] : leavesOf(child, at)
  })
}

function withParents(command: Command, path: readonly string[]): readonly Command[] {
  const [first, ...rest] = path
  const child = command.commands.find((other) => other.name() === first)
  return child === undefined ? [command] : [command, ...withParents(child, rest)]
}

/** What bash would offer for a command line whose last word is being typed. */
function bashAnswers(script: string, words: readonly string[]): readonly string[] {
  const line = `${script}\nCOMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}; _perun; printf '%s\\n' "\${COMPREPLY[@]}"`
  const { status, stdout, stderr } = spawnSync("bash", ["--norc", "--noprofile"], { input: line, encoding: "utf8", cwd: "/" })
  assert.equal(status, 0, stderr)
  return stdout.split("\n").filter((word) => word !== "")
}
