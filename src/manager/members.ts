import { closeSync, fstatSync, openSync, readFileSync, statSync, type BigIntStats } from "node:fs"
import { fromSystemError, readFileBounded, writeFileDurably } from "../bytes/durable.ts"
import { MalformedError, PerunError } from "../bytes/error.ts"
import { withFileLock } from "../bytes/file-lock.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { parseSshPublicKey } from "../pki/ssh-key.ts"

/**
 * The members file: whose keys the operator lets propose policies. It guards the manager's disk and lists against strangers; it is no part of what protects
 * artifact keys, which go by signatures over policies alone.
 */
export interface Member {
  /** Canonical text `type base64`. */
  readonly key: string
  /** What stands behind the key, for people; may be empty. */
  readonly comment: string
}

/** Some 2,500 keys: one manager has tens. */
const maxFileBytes = 262_144

const heading = `# Members: whose keys may propose policies to this manager. One SSH public key a line, # begins a comment, no options.
# Read anew when it changes. To add a key: perun manager admit
`

/**
 * Reads the form of OpenSSH's authorized_keys, narrower: one `type base64 [comment]` a line, no options. A key that stands twice counts once.
 * `path` names the text in errors.
 * @throws {MalformedError} `malformed` with the line's number
 */
export function parseMembers(text: string, path: string): readonly Member[] {
  const members = new Map<string, Member>()
  for (const [index, line] of text.split("\n").entries()) {
    const words = line.trim()
    if (words === "" || words.startsWith("#")) continue
    const member = parseMember(words, `${path} line ${index + 1}`)
    if (!members.has(member.key)) members.set(member.key, member)
  }
  return [...members.values()]
}

/** A members file's text. */
export function encodeMembers(members: readonly Member[]): string {
  return heading + members.map(lineOf).join("")
}

/** @throws {MalformedError}; {UnavailableError} when it is not there or cannot be read */
export async function loadMembers(path: string): Promise<readonly Member[]> {
  return parseMembers(parseUtf8(await readFileBounded(path, maxFileBytes), path), path)
}

/**
 * Adds members to a file, which keeps its other lines; who is in it already is not added again. Gives those that were added. The old or the new file is
 * there after a crash. Of two at once the second waits, on the lock file beside, and adds to what the first wrote.
 * @throws {MalformedError} for a file that is broken, which is left as it is, or would become too large; {UnavailableError}
 */
export async function admitMembers(path: string, members: readonly Member[]): Promise<readonly Member[]> {
  return withFileLock(`${path}.lock`, () => addMembers(path, members))
}

async function addMembers(path: string, members: readonly Member[]): Promise<readonly Member[]> {
  const text = parseUtf8(await readFileBounded(path, maxFileBytes), path)
  const known = new Set(parseMembers(text, path).map(({ key }) => key))
  const added = members.filter(({ key }, index) => !known.has(key) && members.findIndex((other) => other.key === key) === index)
  if (added.length === 0) return []
  const next = (text === "" || text.endsWith("\n") ? text : `${text}\n`) + added.map(lineOf).join("")
  if (Buffer.byteLength(next) > maxFileBytes) throw new MalformedError("too-large", `more than ${maxFileBytes} bytes of members`, { path })
  await writeFileDurably(path, next)
  return added
}

/** The members of a running manager: the file as it stands now, or as it last stood when it could be read. */
export class MembersFile {
  readonly #path: string
  readonly #say: (line: string) => void
  #keys: ReadonlySet<string>
  #seen: string

  private constructor(path: string, say: (line: string) => void, read: ReadFile) {
    this.#path = path
    this.#say = say
    this.#keys = read.keys
    this.#seen = read.seen
  }

  /** `say` gets one line when a changed file cannot be read. @throws {MalformedError}; {UnavailableError} */
  static load(path: string, say: (line: string) => void): MembersFile {
    return new MembersFile(path, say, readMembers(path))
  }

  has(key: string): boolean {
    this.refresh()
    return this.#keys.has(key)
  }

  get size(): number {
    this.refresh()
    return this.#keys.size
  }

  /** Looks whether the file is another than the one read last, and reads it. */
  refresh(): void {
    const seen = lookAt(this.#path)
    if (seen === this.#seen) return
    this.#seen = seen
    try {
      const read = readMembers(this.#path)
      this.#keys = read.keys
      this.#seen = read.seen
    } catch (error) {
      if (!(error instanceof PerunError)) throw error
      this.#say(`the members file cannot be used, the ${this.#keys.size} members read before stay in force: ${error.message}`)
    }
  }
}

interface ReadFile {
  readonly keys: ReadonlySet<string>
  /** Which state of the file it was. */
  readonly seen: string
}

function readMembers(path: string): ReadFile {
  try {
    const file = openSync(path, "r")
    try {
      const stats = fstatSync(file, { bigint: true })
      if (stats.size > maxFileBytes) throw new MalformedError("too-large", `${stats.size} bytes, at most ${maxFileBytes} are read`, { path })
      const text = parseUtf8(new Uint8Array(readFileSync(file)), path)
      return { keys: new Set(parseMembers(text, path).map(({ key }) => key)), seen: markOf(stats) }
    } finally {
      closeSync(file)
    }
  } catch (error) {
    throw fromSystemError(error, path)
  }
}

function lookAt(path: string): string {
  try {
    return markOf(statSync(path, { bigint: true }))
  } catch (error) {
    // Whatever is in the way is said when it is read.
    return String(error)
  }
}

function markOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(" ")
}

function parseMember(line: string, path: string): Member {
  try {
    const { text } = parseSshPublicKey(line)
    return { key: text, comment: line.substring(text.length).trim() }
  } catch (cause) {
    if (!(cause instanceof PerunError)) throw cause
    // The line is not repeated: somebody may have put a private key there.
    const message = optionsForm.test(line) ? "options before a key are not understood; a line begins with the key's type" : cause.message
    throw new MalformedError("malformed", message, { path, cause })
  }
}

/** A key's type and the base64 of its length prefix, with something in front. */
const optionsForm = /\s(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+\s+AAAA/

function lineOf({ key, comment }: Member): string {
  return `${key}${comment === "" ? "" : ` ${comment}`}\n`
}
