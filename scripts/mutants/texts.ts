/**
 * Tells Stryker which parts of the program are words for people: the text, path and cause of an error, the field names that a reader puts into errors.
 * Tests assert codes, never text, so mutants there say nothing. Everything else is mutated, the strings of tables and comparisons included.
 */

/** The part of a Babel path that is looked at. */
interface Path {
  readonly node: Node
  readonly parent: Node | undefined
  readonly listKey: string | undefined
  readonly key: string | number | undefined | null
}

interface Node {
  readonly type: string
  readonly callee?: Node
  readonly property?: Node
  readonly id?: Node
  /** Of a member of an object. */
  readonly key?: Node
  readonly name?: string
}

function reasonToIgnore({ node, parent, listKey, key }: Path): string | undefined {
  const isText = node.type === "StringLiteral" || node.type === "TemplateLiteral"
  if (isText && key === "init" && pathNames.has(parent?.id?.name ?? "")) return fieldName
  if (isText && key === "value" && textMembers.has(parent?.key?.name ?? "")) return words
  if (listKey !== "arguments" || parent?.callee === undefined || typeof key !== "number") return undefined
  const callee = nameOf(parent.callee)
  if (parent.type === "NewExpression" && callee.endsWith("Error")) {
    const isWithoutCode = callee === "Error" || callee === "TypeError"
    return isWithoutCode || key > 0 ? errorText : undefined
  }
  if (!isText) return undefined
  const first = textArguments.get(callee)
  return first !== undefined && key >= first ? words : fieldReaders.has(callee) ? fieldName : undefined
}

/** Name of a function, a method or a private method. */
function nameOf(callee: Node): string {
  const last = callee.type === "MemberExpression" ? callee.property : callee
  return last?.name ?? last?.id?.name ?? ""
}

const errorText = "text of an error"
const fieldName = "name of a field in errors"
const words = "words for people"
const pathNames: ReadonlySet<string> = new Set(["path", "field"])
/** ByteReader and its methods that take the field's name. */
const fieldReaders: ReadonlySet<string> = new Set(
  "ByteReader DerReader u8 u16be u16le u32be u32le u64be u64le peekU8 bytes view boundedBytes rest sub readAll".split(" "),
)
/** Members that hold a sentence. */
const textMembers: ReadonlySet<string> = new Set(["meaning", "advice", "message", "fix", "error", "expected"])
/** Functions that take texts and paths for people, from this argument on. */
const textArguments: ReadonlyMap<string, number> = new Map([
  ["asEvidence", 0],
  ["refuse", 0],
  ["any", 0],
  ["oid", 0],
  ["enter", 1],
  ["element", 1],
  ["bitStringOctets", 1],
  ["within", 2],
  ["readSized", 2],
  ["readHash", 1],
  ["error", 1],
  ["finding", 1],
  ["problem", 2],
  ["unknown", 1],
  ["regex", 1],
  ["refine", 1],
  ["needQuirk", 2],
  ["parseHex", 1],
  ["parseUtf8", 1],
  ["parseBase64", 1],
  ["parseBase64Url", 1],
  ["readDer", 0],
  ["readDerLength", 1],
  ["bounded", 2],
  // evidence/dcap and what reads Intel's forms: names of fields and paths into documents
  ["boolean", 0],
  ["octets", 2],
  ["readHex", 2],
  ["readReserved", 2],
  ["readExactly", 2],
  ["readRows", 1],
  ["required", 1],
  ["objectOf", 1],
  ["textOf", 2],
  ["numberOf", 2],
  ["listOf", 2],
  ["hexOf", 2],
  ["timeOf", 2],
  ["wordOf", 2],
  ["readLevel", 1],
  ["readTcb2", 1],
  ["readTcb3", 1],
  ["decodeDocument", 1],
  ["findSvnLevel", 2],
  ["notRevoked", 1],
  ["checkSerials", 2],
  ["verifyCrl", 3],
  ["malformed", 0],
  ["unsupported", 0],
  ["wrongBinding", 0],
  ["wrongCertificate", 0],
])

export const strykerPlugins = [{ kind: "Ignore", name: "texts", value: { shouldIgnore: reasonToIgnore } }]
