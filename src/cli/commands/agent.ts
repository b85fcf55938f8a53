import type { Command } from "commander"
import { runAgent } from "../../agent/main.ts"
import type { TpmLocation } from "../../evidence/tpm/client/transport.ts"
import { RefusedError } from "../exit.ts"
import { interruptSignal } from "../interrupt.ts"
import type { Output } from "../output.ts"
import { parseTpmLocation } from "../tpm-location.ts"
import { registerAgentUnit } from "./unit.ts"

export function register(command: Command, output: Output): void {
  command
    .command("run")
    .requiredOption("--config <file>", 'JSON: {"perun":1,"host":NAME,"manager":{"url":…,"key":…}}')
    .option("--tpm <where>", "device, unix:PATH or tcp:HOST:PORT (default: /dev/tpmrm0)", parseTpmLocation)
    .option("--once", "end after the first run or refusal")
    .description("prove this machine to the manager, take runs that it may take, do them in the sandbox; root, on a machine of level administered")
    .action(async (options: { config: string; tpm?: TpmLocation; once?: true }) => {
      using interrupt = interruptSignal()
      const outcome = await runAgent({
        config: options.config,
        ...(options.tpm === undefined ? {} : { tpm: options.tpm }),
        ...(options.once === true ? { once: true } : {}),
        ...(output.json ? { log: (event, facts) => output.event({ event, ...facts }) } : {}),
        stop: interrupt.signal,
      })
      interrupt.signal.throwIfAborted()
      output.event({ ok: outcome === "succeeded", outcome })
      if (outcome !== undefined && outcome !== "succeeded") throw new RefusedError(`the run was not done: ${outcome}`)
    })
  registerAgentUnit(command, output)
}
