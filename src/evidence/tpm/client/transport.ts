import { constants } from "node:fs"
import { open, type FileHandle } from "node:fs/promises"
import { connect, type Socket } from "node:net"
import { concatBytes } from "../../../bytes/compare.ts"
import { UnavailableError } from "../../../bytes/error.ts"
import { ByteReader } from "../../../bytes/reader.ts"

/**
 * A way to a TPM: one command in, one response out, one at a time (TpmConnection sees to that).
 * After any error the way is closed: a late response must never be taken for the answer to another command.
 */
export interface TpmTransport extends AsyncDisposable {
  /** For people, e.g. `/dev/tpmrm0`. */
  readonly name: string
  /**
   * Sends one whole command and gives the whole response, without judging it.
   * @throws {UnavailableError} `unavailable`, `timeout`, `permission-denied`, `unsupported`
   */
  transmit(command: Uint8Array, timeoutMilliseconds: number): Promise<Uint8Array>
}

/** Where a TPM is. `device`: a character device of the kernel's resource manager; the others: the data socket of a software TPM. */
export type TpmLocation = { readonly device: string } | { readonly unix: string } | { readonly host: string; readonly port: number }

/** The kernel's in-built resource manager: several programs may use it, and what a program left behind goes when it closes. */
export const defaultTpmLocation: TpmLocation = { device: "/dev/tpmrm0" }

/** TPM_BUFSIZE of the Linux driver, and above TPM_PT_MAX_RESPONSE_SIZE of the software TPM. */
export const maxResponseBytes = 4096

/** @throws {UnavailableError} `unavailable`, `timeout`, `permission-denied`, `unsupported` */
export async function openTransport(location: TpmLocation): Promise<TpmTransport> {
  return "device" in location ? await DeviceTransport.open(location.device) : await SocketTransport.open(location)
}

/**
 * The Linux character device: a command is one write, its response one read, and a read that takes less than the response loses the rest.
 * Linux, drivers/char/tpm/tpm-dev-common.c.
 */
class DeviceTransport implements TpmTransport {
  readonly name: string
  readonly #file: FileHandle
  #isClosed = false

  private constructor(name: string, file: FileHandle) {
    this.name = name
    this.#file = file
  }

  static async open(path: string): Promise<DeviceTransport> {
    try {
      return new DeviceTransport(path, await open(path, constants.O_RDWR))
    } catch (cause) {
      throw unavailable(path, cause)
    }
  }

  async transmit(command: Uint8Array, timeoutMilliseconds: number): Promise<Uint8Array> {
    if (this.#isClosed) throw closed(this.name)
    try {
      return await withTimeout(this.#exchange(command), timeoutMilliseconds, this.name)
    } catch (cause) {
      this.#isClosed = true
      // Not awaited: the close waits for the operation that hangs in the kernel.
      this.#file.close().catch(() => undefined)
      throw unavailable(this.name, cause)
    }
  }

  async #exchange(command: Uint8Array): Promise<Uint8Array> {
    const { bytesWritten } = await this.#file.write(command, 0, command.length, null)
    if (bytesWritten !== command.length) throw new UnavailableError("unavailable", `${this.name} took only part of a command`)
    const buffer = new Uint8Array(maxResponseBytes)
    const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, null)
    if (bytesRead === 0) throw new UnavailableError("unavailable", `no TPM: ${this.name} gave no response`)
    return new ByteReader(this.name, buffer).bytes(bytesRead, "response")
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.#file.close()
  }
}

/** The data socket of swtpm: a stream of commands one way and of responses the other; sizes are in the headers. */
class SocketTransport implements TpmTransport {
  readonly name: string
  readonly #socket: Socket
  #received: Uint8Array = new Uint8Array(0)
  #waiting: { readonly resolve: (response: Uint8Array) => void; readonly reject: (error: Error) => void } | undefined
  #broken: Error | undefined

  private constructor(name: string, socket: Socket) {
    this.name = name
    this.#socket = socket
    socket.on("data", (chunk: Buffer) => this.#receive(chunk))
    socket.on("error", (error) => this.#break(error))
    socket.on("close", () => this.#break(new UnavailableError("unavailable", `no TPM: ${name} closed the connection`)))
  }

  static async open(location: { readonly unix: string } | { readonly host: string; readonly port: number }): Promise<SocketTransport> {
    const name = "unix" in location ? location.unix : `${location.host}:${location.port}`
    const socket = "unix" in location ? connect(location.unix) : connect(location.port, location.host)
    const connected = new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve)
      socket.once("error", reject)
    })
    try {
      await withTimeout(connected, connectTimeoutMilliseconds, name)
    } catch (cause) {
      socket.destroy()
      throw unavailable(name, cause)
    }
    return new SocketTransport(name, socket)
  }

  async transmit(command: Uint8Array, timeoutMilliseconds: number): Promise<Uint8Array> {
    if (this.#broken !== undefined) throw unavailable(this.name, this.#broken)
    const response = new Promise<Uint8Array>((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#socket.write(command)
    })
    try {
      return await withTimeout(response, timeoutMilliseconds, this.name)
    } catch (cause) {
      const error = unavailable(this.name, cause)
      this.#break(error)
      throw error
    }
  }

  #receive(chunk: Uint8Array): void {
    if (this.#waiting === undefined) return this.#break(new UnavailableError("unavailable", `${this.name} sent bytes that nobody asked for`))
    this.#received = concatBytes(this.#received, chunk)
    const sizeBytes = announcedSize(this.#received)
    if (sizeBytes !== undefined && sizeBytes > maxResponseBytes)
      return this.#break(
        new UnavailableError("unavailable", `${this.name} announced a response of ${sizeBytes} bytes, at most ${maxResponseBytes} are allowed`),
      )
    if (sizeBytes === undefined || this.#received.length < sizeBytes) return
    const response = this.#received
    this.#received = new Uint8Array(0)
    this.#waiting.resolve(response)
    this.#waiting = undefined
  }

  #break(error: Error): void {
    this.#broken ??= error
    this.#socket.destroy()
    this.#waiting?.reject(error)
    this.#waiting = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const isGone = new Promise<void>((resolve) => {
      if (this.#socket.destroyed) return resolve()
      this.#socket.once("close", () => resolve())
      // Ends the connection after what is still to be sent; the software TPM then waits for the next one.
      this.#socket.end(() => this.#socket.destroy())
    })
    await isGone
  }
}

/** responseSize of the header, once it has arrived. */
function announcedSize(received: Uint8Array): number | undefined {
  if (received.length < 6) return undefined
  const reader = new ByteReader("response", received)
  reader.u16be("tag")
  return reader.u32be("responseSize")
}

/** A local socket answers at once or not at all. */
const connectTimeoutMilliseconds = 5000

async function withTimeout<T>(work: Promise<T>, milliseconds: number, name: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new UnavailableError("timeout", `no TPM: ${name} did not answer within ${milliseconds} ms`)), milliseconds)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

function closed(name: string): UnavailableError {
  return new UnavailableError("unavailable", `no TPM: ${name} is closed`)
}

/** One clear line for whatever the operating system said. */
function unavailable(name: string, cause: unknown): UnavailableError {
  if (cause instanceof UnavailableError) return cause
  const word = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "unknown error"
  const [code, text] = systemErrors[word] ?? ["unavailable", `fails with ${word}`]
  return new UnavailableError(code, `no TPM: ${name} ${text}`, { cause })
}

const systemErrors: Readonly<Record<string, readonly ["unavailable" | "timeout" | "permission-denied", string]>> = {
  ENOENT: ["unavailable", "does not exist"],
  ENXIO: ["unavailable", "has no device behind it"],
  ENODEV: ["unavailable", "has no device behind it"],
  EACCES: ["permission-denied", "may not be opened by this user"],
  EPERM: ["permission-denied", "may not be opened by this user"],
  EBUSY: ["unavailable", "is in use by another program"],
  ECONNREFUSED: ["unavailable", "has no TPM listening"],
  ECONNRESET: ["unavailable", "broke the connection"],
  EPIPE: ["unavailable", "is gone"],
  EIO: ["unavailable", "is gone"],
  ETIME: ["timeout", "did not answer in time"],
}
