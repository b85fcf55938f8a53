import { isIPv4, isIPv6 } from "node:net"
import { ProtocolError } from "../protocol/errors.ts"

/**
 * How often each network may ask for something in a window of time. Keys cost a stranger nothing, addresses do: what anyone may ask for is counted by the
 * address that a connection comes from. Forgotten with the process.
 */
export class NetworkBudget {
  readonly #spent = new Map<string, { readonly since: number; count: number }>()
  readonly #monotonic: () => number
  readonly #limits: { readonly most: number; readonly windowMilliseconds: number }

  constructor(monotonic: () => number, limits: { readonly most: number; readonly windowMilliseconds: number }) {
    this.#monotonic = monotonic
    this.#limits = limits
  }

  /** @throws {ProtocolError} `too-many-requests` */
  spend(address: string | undefined, amount = 1): void {
    const network = networkOf(address)
    const now = this.#monotonic()
    const { most, windowMilliseconds } = this.#limits
    const known = this.#spent.get(network)
    if (known !== undefined && now - known.since < windowMilliseconds) {
      if (known.count + amount > most)
        throw new ProtocolError("too-many-requests", `more than ${most} of these in ${windowMilliseconds / 1000} s from the network of ${network}`)
      known.count += amount
      return
    }
    // Set anew, so that the map stays in the order of the windows' starts.
    this.#spent.delete(network)
    this.#spent.set(network, { since: now, count: amount })
    for (const [other, { since }] of this.#spent) {
      if (now - since < windowMilliseconds && this.#spent.size <= maxNetworks) break
      this.#spent.delete(other)
    }
  }
}

/** Networks that are remembered at once; with more, the oldest begins anew, which hurts nobody else. */
const maxNetworks = 65_536

/** What one party has of the internet: an IPv4 address, the /64 of an IPv6 address. */
export function networkOf(address: string | undefined): string {
  const [, mapped] = /^::ffff:([0-9.]+)$/i.exec(address ?? "") ?? []
  if (mapped !== undefined && isIPv4(mapped)) return mapped
  if (address === undefined || !isIPv6(address)) return address ?? "unknown"
  const [head = "", tail] = (address.split("%")[0] ?? "").toLowerCase().split("::")
  const groups = head === "" ? [] : head.split(":")
  if (tail !== undefined) {
    const behind = tail === "" ? [] : tail.split(":")
    while (groups.length + behind.length < 8) groups.push("0")
    groups.push(...behind)
  }
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/64`
}
