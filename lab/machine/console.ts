import { open } from "node:fs/promises"
import { setTimeout as sleep } from "node:timers/promises"

/** What a machine wrote to its serial port, read from the file that QEMU appends to. */
export class ConsoleFile {
  readonly path: string
  #text = ""
  #offset = 0

  constructor(path: string) {
    this.path = path
  }

  /** Everything so far, without carriage returns. At most 16 MiB are kept in the file's order; a machine that writes more is cut there. */
  async text(): Promise<string> {
    const file = await open(this.path, "r").catch(() => undefined) // QEMU has not made it yet.
    if (file === undefined) return this.#text
    try {
      const buffer = new Uint8Array(1 << 16)
      while (this.#offset < maxConsoleBytes) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, this.#offset)
        if (bytesRead === 0) break
        this.#offset += bytesRead
        // Latin-1: the console is untrusted bytes for people to read, and a split UTF-8 sequence must not stop the wait.
        this.#text += Buffer.from(buffer.buffer, 0, bytesRead).toString("latin1").replaceAll("\r", "")
      }
    } finally {
      await file.close()
    }
    return this.#text
  }

  /** The first match of text or pattern, or undefined when `ended` says that no more will come. */
  async find(wanted: string | RegExp, until: () => boolean): Promise<string | undefined> {
    for (;;) {
      const last = until()
      const text = await this.text()
      const found = typeof wanted === "string" ? (text.includes(wanted) ? wanted : undefined) : wanted.exec(text)?.[0]
      if (found !== undefined || last) return found
      await sleep(pollMs)
    }
  }
}

const pollMs = 50
const maxConsoleBytes = 16 << 20
