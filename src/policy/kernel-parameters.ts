export interface KernelParameter {
  /** With every `-` as `_`: the kernel takes them for the same. */
  readonly name: string
  /** Undefined for a bare word. */
  readonly value: string | undefined
  /** As it stands on the line. */
  readonly text: string
}

export interface KernelCommandLine {
  /** What the kernel reads. */
  readonly parameters: readonly KernelParameter[]
  /** What stands behind a bare `--`: the kernel hands it to the first program and reads none of it. Linux kernel/params.c, parse_args(). */
  readonly initArguments: readonly string[]
}

/**
 * Splits a kernel command line as the kernel does: at blanks, a double quote keeping blanks together, the quotes around a value or a whole parameter
 * removed. Linux lib/cmdline.c, next_arg().
 */
export function parseKernelCommandLine(line: string): KernelCommandLine {
  const words: string[] = []
  let word = ""
  let isQuoted = false
  for (const character of line) {
    if (character === '"') isQuoted = !isQuoted
    if (!isQuoted && isBlank(character)) {
      if (word !== "") words.push(word)
      word = ""
    } else word += character
  }
  if (word !== "") words.push(word)
  const end = words.findIndex((text) => unquoted(text) === "--")
  const isRead = (index: number): boolean => end < 0 || index < end
  return {
    parameters: words.filter((_, index) => isRead(index)).map(parameterOf),
    initArguments: words.filter((_, index) => !isRead(index) && index !== end),
  }
}

function parameterOf(text: string): KernelParameter {
  const bare = unquoted(text)
  const equals = bare.indexOf("=")
  if (equals < 0) return { name: normalName(bare), value: undefined, text }
  return { name: normalName(bare.substring(0, equals)), value: unquoted(bare.substring(equals + 1)), text }
}

function unquoted(text: string): string {
  return text.startsWith('"') ? text.substring(1).replace(/"$/, "") : text
}

/** dash2underscore() of Linux kernel/params.c. */
function normalName(name: string): string {
  return name.replaceAll("-", "_")
}

/** As the kernel's isspace(). */
function isBlank(character: string): boolean {
  return /[ \t\n\v\f\r\u00a0]/.test(character)
}
