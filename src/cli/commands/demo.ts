import type { Command } from "commander"
import { confirm } from "../confirm.ts"
import { RefusedError } from "../exit.ts"
import { interruptSignal } from "../interrupt.ts"
import type { Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  command
    .option("--folder <folder>", "where everything goes; what an earlier demo left there is replaced", "demo")
    .option("--yes", "install what is missing without asking")
    .action(async (options: { folder: string; yes?: true }) => {
      const { setUpLab } = await import("../../../lab/setup.ts")
      await setUpLab({ say: (line) => output.warn(line), confirm: () => confirm(options.yes) })
      const { runDemo } = await import("../../../lab/scenarios/demo.ts")
      using interrupt = interruptSignal()
      const result = await runDemo({ folder: options.folder, output, signal: interrupt.signal })
      output.event(result)
      if (!result.ok) throw new RefusedError("the demo ran, but not as it should: see its table")
    })
}
