import { homedir } from "node:os"
import { join } from "node:path"
import * as z from "zod"
import { readFileBounded, writeFileDurably } from "../bytes/durable.ts"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import { loadIdentity, type Identity } from "../client/identity.ts"
import { canonicalJson } from "../bytes/json.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { teeRequirementSchema, type TeeRequirement } from "../policy/tee.ts"
import { UsageError } from "./exit.ts"

/** The folder of one party on this machine: `PERUN_HOME`, else `$XDG_CONFIG_HOME/perun`, else `~/.config/perun`. */
export function homeFolder(): string {
  const { PERUN_HOME: given, XDG_CONFIG_HOME: xdg } = process.env
  if (given !== undefined && given !== "") return given
  return join(xdg !== undefined && xdg !== "" ? xdg : join(homedir(), ".config"), "perun")
}

export function identityFolder(): string {
  return join(homeFolder(), "identity")
}

/** Loads the identity of this home, with advice when there is none. */
export async function homeIdentity(): Promise<Identity> {
  try {
    return await loadIdentity(identityFolder())
  } catch (error) {
    if (error instanceof UnavailableError && error.code === "unavailable")
      throw new UsageError(`no identity in ${identityFolder()}; make one with: perun identity create NAME`)
    throw error
  }
}

/** A manager that this party trusts: where it is, which key it must show, and what its TEE must prove. */
export interface ManagerPin {
  readonly url: string
  /** SSH text of the manager's Ed25519 key. */
  readonly key: string
  /** Absent for an UNATTESTED MANAGER. */
  readonly accept?: readonly TeeRequirement[]
  /** Key of its attestation results as it was seen when it was pinned (base64 of SubjectPublicKeyInfo); absent in pins that were written by hand. */
  readonly resultKey?: string
}

const pinsSchema = z.strictObject({
  perun: z.literal(1),
  default: z.string(),
  managers: z.array(
    z.strictObject({
      url: z.string(),
      key: z.string(),
      accept: z.array(teeRequirementSchema).min(1).exactOptional(),
      resultKey: z.string().exactOptional(),
    }),
  ),
})

const pinsFile = () => join(homeFolder(), "managers.json")

/** The managers that were pinned by `manager trust`; empty when none was. */
export async function loadManagerPins(): Promise<readonly ManagerPin[]> {
  let bytes: Uint8Array
  try {
    bytes = await readFileBounded(pinsFile(), 1 << 20)
  } catch (error) {
    if (error instanceof UnavailableError && error.code === "unavailable") return []
    throw error
  }
  const result = pinsSchema.safeParse(parseJson(bytes, { maxBytes: 1 << 20 }))
  if (!result.success) throw new MalformedError("malformed", "not a list of managers", { path: pinsFile() })
  const { managers, default: first } = result.data
  return [...managers.filter((pin) => pin.url === first), ...managers.filter((pin) => pin.url !== first)]
}

/**
 * Pins a manager and makes it the default. A different key for a known address is refused: it is another manager, or someone in between.
 * @throws {UsageError} when another key is pinned for this address and `replace` is false
 */
export async function trustManager(pin: ManagerPin, replace: boolean): Promise<void> {
  const known = await loadManagerPins()
  const before = known.find((other) => other.url === pin.url)
  if (before !== undefined && before.key !== pin.key && !replace) {
    throw new UsageError(`another key is pinned for ${pin.url}: ${before.key}; if the parties agreed on the new one, add --replace`)
  }
  if (before !== undefined && !replace && canonicalJson(before.accept ?? null) !== canonicalJson(pin.accept ?? null)) {
    throw new UsageError(`other demands on its proof are pinned for ${pin.url}; if the parties agreed on the new ones, add --replace`)
  }
  if (before?.resultKey !== undefined && before.key === pin.key && before.resultKey !== pin.resultKey && !replace) {
    throw new UsageError(
      `another result key is pinned for ${pin.url}, which a manager never changes; if the parties agreed on the new one, add --replace`,
    )
  }
  const managers = [...known.filter((other) => other.url !== pin.url), pin]
  await writeFileDurably(pinsFile(), `${JSON.stringify({ perun: 1, default: pin.url, managers }, null, 2)}\n`)
}

/** The manager to talk to: the address given, else the default one. Its key must have been pinned. */
export async function chosenManager(url: string | undefined): Promise<ManagerPin> {
  const pins = await loadManagerPins()
  const pin = url === undefined ? pins[0] : pins.find((other) => other.url === url)
  if (pin !== undefined) return pin
  throw new UsageError(
    url === undefined
      ? "no manager is known here; pin one with: perun manager trust URL KEY, or --policy FILE"
      : `the manager ${url} is not pinned here; do it with: perun manager trust ${url} KEY, or --policy FILE`,
  )
}

/**
 * A manager's keys are made once, with its folder. One that shows another result key than it was pinned with is not what it was.
 * @throws {ProtocolError} `wrong-manager`
 */
export function demandPinnedResultKey(pin: ManagerPin, { resultKey }: { readonly resultKey: string }): void {
  if (pin.resultKey !== undefined && pin.resultKey !== resultKey)
    throw new ProtocolError("wrong-manager", `found result key ${resultKey}, pinned ${pin.resultKey}`, { path: "description.resultKey" })
}
