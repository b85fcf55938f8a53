import type { Command } from "commander"
import { realpathSync } from "node:fs"
import { resolve } from "node:path"
import { vaultOfFolder } from "../../manager/state.ts"
import { Output } from "../output.ts"
import { UsageError } from "../exit.ts"
import { parseListen } from "../listen-address.ts"
import { agentUnit, managerUnit } from "../systemd-unit.ts"

const program = realpathSync(resolve(import.meta.dirname, "../../../perun"))

/** Prints a unit that starts `manager serve` with the words behind `--`. */
export function registerManagerUnit(command: Command, output: Output): void {
  command
    .command("unit")
    .argument("<folder>", "folder that perun manager init made")
    .argument("[words...]", "after --: further words for perun manager serve, as they will stand in the unit")
    .option("--user <name>", "user that the manager runs as and that owns the folder", "perun")
    .description("print a hardened systemd unit for perun manager serve (> /etc/systemd/system/perun-manager.service)")
    .action(async (folder: string, words: readonly string[], { user }: { user: string }) => {
      if (!/^[a-z_][a-z0-9_-]{0,31}$/.test(user)) throw new UsageError(`${user} is no name of a user`)
      await checkServeWords([folder, ...words])
      const vault = await vaultOfFolder(folder)
      const valueOf = (option: string): string | undefined => {
        const at = words.findLastIndex((word) => word === option || word.startsWith(`${option}=`))
        return at < 0 ? undefined : words[at]?.startsWith(`${option}=`) === true ? words[at].slice(option.length + 1) : words[at + 1]
      }
      const own = resolve(folder)
      const log = valueOf("--log")
      const backups = valueOf("--backups")
      const tee = valueOf("--tee")
      const metrics = valueOf("--metrics")
      if (metrics !== undefined) parseListen(metrics, "--metrics")
      if (tee === "gramine" || vault.kind === "tee-sealing")
        throw new UsageError("a manager in an SGX enclave is started by gramine-sgx: its unit runs that, and is not printed here")
      const { port } = parseListen(valueOf("--listen") ?? "127.0.0.1:7443")
      // A vault that is sealed to a TPM, and Azure's evidence, use the kernel's where none is named.
      const tpm = valueOf("--tpm") ?? (tee === "azure" || vault.kind === "tpm" ? "/dev/tpmrm0" : undefined)
      output.raw(
        unitOrUsage(() =>
          managerUnit({
            description: `Perun policy manager of ${own}`,
            command: [program, "manager", "serve", own, ...words.map((word, at) => absolute(words, word, at))],
            // The log's folder too: it is opened anew after it was moved away.
            writable: [own, ...(backups === undefined ? [] : [resolve(backups)]), ...(log === undefined || log === "-" ? [] : [resolve(log, "..")])],
            user,
            devices: tpm?.startsWith("/dev/") === true ? [tpm] : [],
            writesConfigfs: tee === "tsm",
            bindsLowPort: port < 1024,
            reopensLog: log !== undefined,
          }),
        ),
      )
    })
}

/** Prints a unit that starts `agent run`. */
export function registerAgentUnit(command: Command, output: Output): void {
  command
    .command("unit")
    .requiredOption("--config <file>", "as perun agent run takes it")
    .option("--tpm <where>", "device, unix:PATH or tcp:HOST:PORT (default: /dev/tpmrm0)")
    .description("print a systemd unit for perun agent run (> /etc/systemd/system/perun-agent.service)")
    .action(({ config, tpm }: { config: string; tpm?: string }) => {
      const words = ["--config", resolve(config), ...(tpm === undefined ? [] : ["--tpm", tpm])]
      output.raw(unitOrUsage(() => agentUnit({ description: "Perun agent", command: [program, "agent", "run", ...words], writable: [] })))
    })
}

const optionsWithPaths: ReadonlySet<string> = new Set(["--backups", "--log", "--collateral", "--time-root"])

/** A service starts in `/`: paths of files are made absolute. */
function absolute(words: readonly string[], word: string, at: number): string {
  const before = words[at - 1]
  if (before !== undefined && optionsWithPaths.has(before) && word !== "-") return resolve(word)
  const [, option, path] = /^(--[a-z-]+)=(.+)$/.exec(word) ?? []
  return option !== undefined && path !== undefined && optionsWithPaths.has(option) && path !== "-" ? `${option}=${resolve(path)}` : word
}

/** The words are read as `manager serve` would read them, so that a wrong one is told now. @throws {CommanderError} */
async function checkServeWords(words: readonly string[]): Promise<void> {
  const { buildProgram } = await import("../program.ts")
  const tree = await buildProgram(["manager"], new Output({ json: false }))
  const serve = tree.commands.find((each) => each.name() === "manager")?.commands.find((each) => each.name() === "serve")
  if (serve === undefined) throw new TypeError("internal: no command manager serve")
  await serve.action(() => undefined).parseAsync([...words], { from: "user" })
}

function unitOrUsage(make: () => string): string {
  try {
    return make()
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new UsageError(error.message)
  }
}
