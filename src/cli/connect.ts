import type { Command } from "commander"
import { PerunError } from "../bytes/error.ts"
import { ManagerConnection } from "../client/connection.ts"
import type { Identity } from "../client/identity.ts"
import { ProblemError } from "../protocol/problem.ts"
import { followOwnLog } from "./checkpoints.ts"
import { chosenManager, demandPinnedResultKey, homeIdentity } from "./home.ts"
import { UsageError } from "./exit.ts"
import type { Output } from "./output.ts"

export interface ManagerOption {
  readonly manager?: string
}

/** Address of a manager as a person gives it. @throws {UsageError} */
export function parseManagerUrl(text: string): URL {
  const url = URL.parse(text)
  if (url?.protocol !== "https:") throw new UsageError(`the address of a manager is https://HOST:PORT, found ${text}`)
  return url
}

/** Adds `--manager URL` to a command that talks to one. */
export function withManagerOption(command: Command): Command {
  return command.option("--manager <url>", "address of the manager (default: the one pinned last)")
}

/**
 * Runs `use` with a connection to the pinned manager under the identity of this home. Says on every use what the manager did not prove, and holds its log against what this home saw of it
 * before. `hold: "warn"` is for what nothing may hold up.
 * @throws {ProtocolError} `wrong-manager` when it is not the pinned one; {LogError} `older-tree`, `forked`
 */
export async function withManager<T>(
  options: ManagerOption,
  output: Output,
  use: (connection: ManagerConnection, identity: Identity) => Promise<T>,
  { hold = "stop" }: { readonly hold?: "stop" | "warn" } = {},
): Promise<T> {
  const identity = await homeIdentity()
  const pin = await chosenManager(options.manager)
  using connection = await ManagerConnection.open(pin, identity)
  demandPinnedResultKey(pin, connection.description)
  const { accepted } = connection.manager
  if (accepted === undefined)
    output.warn(`${unattestedManager}: ${pin.url} proves nothing about itself; its operator could read what is deposited there`)
  else if (accepted.insecureLaboratory)
    output.warn(`${insecureLaboratory}: ${pin.url} proved itself by a TEE that chains to a laboratory root, whose holder can imitate it`)
  await followOwnLog(connection).catch((error: unknown) => {
    // Whom the manager does not know sees no log; the command itself says so.
    if (error instanceof ProblemError) return
    if (hold === "stop" || !(error instanceof PerunError)) throw error
    output.warn(error.message)
  })
  return await use(connection, identity)
}

/** What every screen says of a manager without evidence. */
export const unattestedManager = "UNATTESTED MANAGER"
/** What every screen says of a machine whose TPM chains to a laboratory root. */
export const insecureLaboratory = "INSECURE LABORATORY"
