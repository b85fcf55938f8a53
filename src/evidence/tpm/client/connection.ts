import { setTimeout as sleep } from "node:timers/promises"
import { PerunError } from "../../../bytes/error.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { commandCodes, type CommandName } from "./constants.ts"
import { explainResponseCode, responseError, TpmError } from "./errors.ts"
import { authorizeCommand, openResponse, type SessionUse } from "./sessions.ts"
import { openTransport, type TpmLocation, type TpmTransport } from "./transport.ts"

/** Something in the TPM that a command works on: its handle, and the name that authorizations are computed over. */
export interface TpmEntity {
  readonly handle: number
  /** nameAlg ‖ digest for objects and NV indexes; the four bytes of the handle for everything else. */
  readonly name: Uint8Array
}

export interface TpmCommand {
  readonly command: CommandName
  readonly handles?: readonly TpmEntity[]
  /** In the order of the handles that need authorization, then sessions that only encrypt. */
  readonly sessions?: readonly SessionUse[]
  readonly parameters?: Uint8Array
}

export interface TpmAnswer {
  /** The response's handle area, for the commands that have one; else 0. */
  readonly handle: number
  /** The response's parameters, checked and in the clear. */
  readonly parameters: Uint8Array
}

/** TPM 2.0 Library Part 3: the commands of this client whose responses carry a handle. */
const handleCommands: ReadonlySet<CommandName> = new Set<CommandName>(["CreatePrimary", "Load", "StartAuthSession"])

const tagNoSessions = 0x8001
const tagSessions = 0x8002

/** Creating an RSA key takes a slow chip tens of seconds; the Linux driver waits up to five minutes for such a command. */
const slowMilliseconds = 300_000
/** Everything else; TPM2_DURATION_LONG is 2 s in the Linux driver, and a busy resource manager lets others go first. */
const usualMilliseconds = 30_000
const slowCommands: ReadonlySet<CommandName> = new Set<CommandName>(["CreatePrimary", "Create"])

/** Tries of a command that the TPM answers with a passing code, and the first pause; the pause doubles: about ten seconds in all. */
const maxTries = 10
const firstPauseMilliseconds = 20

/** A TPM to which one command at a time is sent. */
export class TpmConnection implements AsyncDisposable {
  readonly #transport: TpmTransport
  #last: Promise<unknown> = Promise.resolve()

  constructor(transport: TpmTransport) {
    this.#transport = transport
  }

  /** @throws {UnavailableError} `unavailable`, `timeout`, `permission-denied` with one line that says why there is no TPM */
  static async open(location: TpmLocation): Promise<TpmConnection> {
    return new TpmConnection(await openTransport(location))
  }

  /** For people: where the TPM is. */
  get name(): string {
    return this.#transport.name
  }

  /**
   * Sends one command after those before it, and again while the TPM says that it will soon be ready.
   * @throws {TpmError} for a refusal or a response that is not the TPM's; {UnavailableError} for a TPM that is gone; {MalformedError} for a response of wrong form
   */
  async execute(command: TpmCommand): Promise<TpmAnswer> {
    const turn = this.#last.then(() => this.#executeWithRetries(command))
    // The next command waits for this one, whatever becomes of it.
    this.#last = turn.catch(() => undefined)
    return await turn
  }

  async #executeWithRetries(command: TpmCommand): Promise<TpmAnswer> {
    for (let attempt = 1; ; attempt++) {
      const result = await this.#transact(command)
      if (typeof result !== "number") return result
      if (!explainResponseCode(result).passing || attempt === maxTries) throw responseError(command.command, result)
      await sleep(firstPauseMilliseconds * 2 ** (attempt - 1))
    }
  }

  /** One exchange: the answer, or the response code of a refusal. Sessions roll their nonces for each. */
  async #transact({ command, handles = [], sessions = [], parameters = new Uint8Array(0) }: TpmCommand): Promise<TpmAnswer | number> {
    const code = commandCodes[command]
    const body = new ByteWriter()
    for (const { handle } of handles) body.u32be(handle)
    if (sessions.length === 0) {
      body.bytes(parameters)
    } else {
      const names = handles.map(({ name }) => name)
      const authorized = authorizeCommand(code, names, parameters, sessions)
      body.u32be(authorized.authorizations.length).bytes(authorized.authorizations).bytes(authorized.parameters)
    }
    const tag = sessions.length === 0 ? tagNoSessions : tagSessions
    const message = new ByteWriter()
      .u16be(tag)
      .u32be(body.length + 10)
      .u32be(code)
      .bytes(body.take())
      .take()
    const timeout = slowCommands.has(command) ? slowMilliseconds : usualMilliseconds
    const response = new ByteReader(command, await this.#transport.transmit(message, timeout))
    return await this.#readResponse(command, code, tag, sessions, response)
  }

  async #readResponse(
    command: CommandName,
    code: number,
    tag: number,
    sessions: readonly SessionUse[],
    response: ByteReader,
  ): Promise<TpmAnswer | number> {
    const answeredTag = response.u16be("tag")
    const responseSize = response.u32be("responseSize")
    const responseCode = response.u32be("responseCode")
    if (responseSize !== response.offset + response.remaining)
      throw response.error("malformed", "responseSize", `says ${responseSize} bytes, found ${response.offset + response.remaining}`)
    if (responseCode !== 0) {
      response.finish()
      return responseCode
    }
    if (answeredTag !== tag) throw new TpmError("forged-response", `${command}: the response has no authorization, or one that nobody asked for`)
    const handle = handleCommands.has(command) ? response.u32be("handle") : 0
    try {
      if (sessions.length === 0) return { handle, parameters: response.rest("parameters") }
      const parameters = response.bytes(response.u32be("parameterSize"), "parameters")
      return { handle, parameters: openResponse(command, code, parameters, response, sessions) }
    } catch (error) {
      // What a response that cannot be believed has created must not stay in the TPM's few slots.
      if (handle !== 0) await ignoreRefusal(this.#transact(flushCommand(handle)))
      throw error
    }
  }

  /** Frees a transient object or a session; for the end of a scope, so it does not hide the error that ended the scope. */
  async flush(handle: number): Promise<void> {
    await ignoreRefusal(this.execute(flushCommand(handle)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last
    await this.#transport[Symbol.asyncDispose]()
  }
}

function flushCommand(handle: number): TpmCommand {
  return { command: "FlushContext", parameters: new ByteWriter().u32be(handle).take() }
}

/** A TPM that is gone holds nothing, and a handle that is gone needs no flush. */
async function ignoreRefusal(work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!(error instanceof PerunError)) throw error
  }
}
