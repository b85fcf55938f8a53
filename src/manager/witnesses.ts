import { setTimeout as sleep } from "node:timers/promises"
import type { Digest } from "../bytes/digest.ts"
import { MalformedError, PerunError, UnavailableError } from "../bytes/error.ts"
import { encodeBase64, encodeUtf8, parseUtf8 } from "../bytes/text.ts"
import { cosignedAt, encodeWitnessRequest, parseCheckpoint, type WitnessDemand } from "../log/checkpoint.ts"
import { LogError } from "../log/errors.ts"
import { encodeSignatureLine, type NoteKey, parseSignatureLines, parseVerifierKey, signaturesOf } from "../log/note.ts"
import { witnessDemandOf } from "../policy/manager-witnesses.ts"
import type { ManagerTime } from "./clock.ts"
import type { ManagerContext } from "./context.ts"
import type { PublishedLog } from "./log.ts"
import type { Store } from "./store.ts"
import { overNetwork, type PostTransport } from "./time-source.ts"

/** A witness (C2SP tlog-witness) that this manager asks, known by its key. */
export interface WitnessSource {
  /** Where it is asked, `http(s)://…`, without the `/add-checkpoint` of the specification. */
  readonly url: string
  readonly key: NoteKey
  readonly post: PostTransport
}

/** `URL=KEY`, as `manager serve --witness` takes it. @throws {MalformedError} */
export function parseWitnessSource(text: string, post: PostTransport = overNetwork): WitnessSource {
  const [, address = "", keyText = ""] = /^([^=]+)=(.+)$/.exec(text) ?? []
  const url = URL.canParse(address) ? new URL(address) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "")
    throw new MalformedError("malformed", `found ${text}, expected http(s)://…=KEY`, { path: "witness" })
  const key = parseVerifierKey(keyText, "witness")
  if (key.type !== 4) throw new MalformedError("malformed", "the key is not that of a witness (perun witness show)", { path: "witness" })
  return { url: url.href.replace(/\/$/, ""), key, post }
}

/** How old a cosignature grows before the witness is asked again although nothing has happened. */
const refreshMilliseconds = 60_000
/** A witness that failed is left alone for this long, or strangers could make this manager ask without end. */
const retryMilliseconds = 2000
/** Longest that somebody who asks for a checkpoint waits for witnesses. */
const showMilliseconds = 1500
/** How far a witness's clock may be from the manager's. */
const clockSkewSeconds = 60
const maxAnswerBytes = 65_536

/** One witness, with what it has cosigned for this process. Nothing of it is kept: after a start it has to see the log anew, which one that was set back does not survive. */
class Witness {
  readonly source: WitnessSource
  /** Size of the tree that it cosigned last, as it said itself. */
  #known = 0
  #cosigned: { readonly size: number; readonly line: string; readonly at: number } | undefined
  #failure: { readonly error: LogError; readonly at: number } | undefined
  #asking: Promise<void> | undefined

  constructor(source: WitnessSource) {
    this.source = source
  }

  get cosigned(): { readonly size: number; readonly line: string } | undefined {
    return this.#cosigned
  }
  get failure(): LogError | undefined {
    return this.#failure?.error
  }

  /** Whether it has cosigned a tree of `size` entries or more, within so many milliseconds. */
  hasSeen(size: number, maxAgeMilliseconds: number, monotonic: number): boolean {
    return this.#cosigned !== undefined && this.#cosigned.size >= size && monotonic - this.#cosigned.at <= maxAgeMilliseconds
  }

  /** Asks until it has seen the log so, or does not answer so; one question at a time, which all who wait share. */
  async see(log: WatchedLog, size: number, maxAgeMilliseconds: number): Promise<void> {
    for (let asked = 0; asked < 3 && !this.hasSeen(size, maxAgeMilliseconds, log.monotonic());) {
      if (this.#asking === undefined) {
        if (this.#failure !== undefined && log.monotonic() - this.#failure.at < retryMilliseconds) return
        this.#asking = this.#ask(log).finally(() => {
          this.#asking = undefined
        })
        asked++
      }
      await this.#asking
    }
  }

  async #ask(log: WatchedLog): Promise<void> {
    try {
      // Its word on what it has seen counts once, so that it cannot keep this manager busy.
      if ((await this.#offer(log)) === "other-size") await this.#offer(log)
      this.#failure = undefined
    } catch (error) {
      if (!(error instanceof PerunError)) throw error
      const { name } = this.source.key
      const failure = error instanceof LogError ? error : new LogError("not-witnessed", `the witness ${name}: ${error.message}`, { cause: error })
      if (this.#failure?.error.message !== failure.message) log.warn(failure.message)
      this.#failure = { error: failure, at: log.monotonic() }
    }
  }

  async #offer(log: WatchedLog): Promise<"cosigned" | "other-size"> {
    const { key, url, post } = this.source
    const { size, checkpoint, proof } = log.goesOnFrom(this.#known)
    const sentAt = log.monotonic()
    const body = encodeUtf8(encodeWitnessRequest({ oldSize: this.#known, proof, checkpoint }))
    const answer = await post(`${url}/add-checkpoint`, body, "text/plain", maxAnswerBytes)
    const text = parseUtf8(answer.body, "answer")
    if (answer.status === 409 && /^(?:0|[1-9][0-9]{0,15})\n?$/.test(text)) {
      const seen = Number(text)
      if (seen > size)
        throw new LogError(
          "older-tree",
          `the witness ${key.name} has seen ${seen} entries of this log, and it has ${size}: this manager was set back, or another one goes on in its name; nothing is given out that rests on this witness`,
        )
      if (seen === this.#known && seen === size)
        throw new LogError(
          "forked",
          `the witness ${key.name} has seen another log of ${seen} entries in this one's name; nothing is given out that rests on this witness`,
        )
      this.#known = seen
      return "other-size"
    }
    if (answer.status === 422)
      throw new LogError(
        "forked",
        `the witness ${key.name} has seen another log of ${this.#known} entries in this one's name; nothing is given out that rests on this witness`,
      )
    if (answer.status !== 200) throw new UnavailableError("unavailable", `answered with status ${answer.status}: ${text.trim().substring(0, 200)}`)
    const { note } = parseCheckpoint(checkpoint)
    const signatures = parseSignatureLines(text)
    const time = cosignedAt({ text: note.text, signatures }, key).at(-1)
    const own = signaturesOf(signatures, key).at(-1)
    if (time === undefined || own === undefined) throw new UnavailableError("unavailable", "answered without its own cosignature")
    const difference = Math.abs(time - log.wallSeconds())
    if (difference > clockSkewSeconds)
      throw new UnavailableError("unavailable", `its clock is ${difference} s from this manager's, at most ${clockSkewSeconds} s are put up with`)
    this.#known = size
    this.#cosigned = { size, line: encodeSignatureLine(own), at: sentAt }
    return "cosigned"
  }
}

interface WatchedLog {
  /** The log as it is now, as a witness that has seen `older` entries is asked about it. */
  goesOnFrom(older: number): { readonly size: number; readonly checkpoint: string; readonly proof: readonly Uint8Array[] }
  monotonic(): number
  wallSeconds(): number
  warn(line: string): void
}

/** The witnesses of a manager's log: asked to cosign it as it grows, and demanded of by policies. */
export class Witnesses {
  readonly #witnesses: readonly Witness[]
  readonly #store: Pick<Store, "logHead" | "logConsistency">
  readonly #log: PublishedLog
  readonly #watched: WatchedLog

  constructor(
    sources: readonly WitnessSource[],
    {
      store,
      log,
      time,
      warn,
    }: { readonly store: Store; readonly log: PublishedLog; readonly time: ManagerTime; readonly warn: (line: string) => void },
  ) {
    this.#witnesses = sources.map((source) => new Witness(source))
    this.#store = store
    this.#log = log
    this.#watched = {
      goesOnFrom: (older) => {
        const { size } = store.logHead
        // From an empty tree, and from more than there is, nothing is proved.
        const proof = older === 0 || older >= size ? [] : store.logConsistency(older)
        return { size, checkpoint: log.checkpointBySelf(), proof }
      },
      monotonic: () => time.monotonicMilliseconds(),
      wallSeconds: () => Math.floor(time.now().getTime() / 1000),
      warn,
    }
  }

  /** Keys with the size of the log that each has cosigned, for the operator; undefined where it has not yet. */
  get states(): readonly { readonly name: string; readonly size: number | undefined; readonly failure: string | undefined }[] {
    return this.#witnesses.map(({ source, cosigned, failure }) => ({ name: source.key.name, size: cosigned?.size, failure: failure?.message }))
  }

  /** Lets every witness see the log as it is now, for those who look at its checkpoint, and waits a moment for them. Never fails for one that is silent or objects. */
  async show(): Promise<void> {
    const { size } = this.#store.logHead
    const works = this.#witnesses.map((witness) => this.#see(witness, size, refreshMilliseconds))
    if (works.length === 0) return
    const moment = new AbortController()
    await Promise.race([Promise.all(works), sleep(showMilliseconds, undefined, { ref: false, signal: moment.signal }).catch(() => undefined)])
    moment.abort()
  }

  /**
   * Demands that enough of a policy's witnesses have seen the log up to `size` entries.
   * @throws {LogError} `not-witnessed`, `older-tree`, `forked`: nothing may be given out then; asking again later may help
   */
  async demand({ witnesses, atLeast, maxAgeSeconds }: WitnessDemand, size: number): Promise<void> {
    const named = new Set(witnesses.map(({ publicKey }) => encodeBase64(publicKey)))
    const asked = this.#witnesses.filter(({ source }) => named.has(encodeBase64(source.key.publicKey)))
    const maxAge = maxAgeSeconds * 1000
    // Not all of them: one that is slow holds nothing up that enough others have seen.
    const seen = (): number => asked.filter((witness) => witness.hasSeen(size, maxAge, this.#watched.monotonic())).length
    await enough(
      asked.map((witness) => this.#see(witness, size, maxAge)),
      () => seen() >= atLeast,
    )
    if (seen() >= atLeast) return
    const told = asked.flatMap(({ failure }) => (failure === undefined ? [] : [failure]))
    const proved = told.find(({ code }) => code !== "not-witnessed")
    const absent = witnesses.length - asked.length
    throw new LogError(
      "not-witnessed",
      [
        `${seen()} of ${witnesses.length} witnesses have seen the log of ${size} entries in the last ${maxAgeSeconds} s, the policy demands ${atLeast}`,
        ...(absent === 0 ? [] : [`this manager does not ask ${absent} of them (perun manager serve --witness)`]),
        ...(proved === undefined ? told.map(({ message }) => message) : [proved.message]),
      ].join("; "),
    )
  }

  async #see(witness: Witness, size: number, maxAgeMilliseconds: number): Promise<void> {
    await witness.see(this.#watched, size, maxAgeMilliseconds)
    const { cosigned } = witness
    if (cosigned !== undefined) this.#log.keepCosignature(witness.source.key, cosigned)
  }
}

/** Resolves when `isEnough`, looked at whenever one of the works ends, or when all have ended. */
async function enough(works: readonly Promise<void>[], isEnough: () => boolean): Promise<void> {
  if (isEnough()) return
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const look = (): void => {
    if (isEnough()) resolve()
  }
  for (const work of works) work.then(look, reject)
  void Promise.allSettled(works).then(() => resolve())
  await promise
}

/**
 * Demands what a policy does of witnesses: that they have seen the log up to `size` entries; without one, as it is now. Does nothing where the policy names none; says whether it did, for time may have
 * passed in which consent ended.
 * @throws {LogError} `not-witnessed`
 */
export async function demandWitnesses(context: ManagerContext, policy: Digest, size = context.store.logHead.size): Promise<boolean> {
  const { manager } = context.documents.policy(context.store, policy)
  if (!("accept" in manager) || manager.witnesses === undefined) return false
  await context.witnesses.demand(witnessDemandOf(manager.witnesses), size)
  return true
}
