import { MalformedError } from "../../bytes/error.ts"
import { encodeUtf8, parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { fieldsOfTemplate } from "./templates.ts"
import type { TemplateField } from "./templates.ts"

/**
 * The binary form of a list that was kept as text (`ascii_runtime_measurements`): for vectors and people. Not for verification of a machine: names may
 * hold newlines and spaces, so the text is ambiguous. Template digests are SHA-1.
 * @throws {MalformedError} `malformed` for other lines and templates than digest, name and at most one field of bytes behind them
 */
export function binaryFromAscii(text: string): Uint8Array {
  const writer = new ByteWriter()
  for (const [index, line] of text.replace(/\n$/, "").split("\n").entries()) writeLine(writer, line, `ima[${index}]`)
  return writer.take()
}

/** PCR, template digest, template, then the fields, one space between. */
function writeLine(writer: ByteWriter, line: string, path: string): void {
  const match = /^ *([0-9]{1,2}) ([0-9a-f]{40}) ([^ ]+) (.*)$/.exec(line)
  const [, pcr = "", digest = "", template = "", rest = ""] = match ?? []
  if (match === null) throw new MalformedError("malformed", "not a line of an IMA list", { path })
  const fields = fieldsOfTemplate(template)
  const name = encodeUtf8(template)
  writer.u32le(Number(pcr)).bytes(parseHex(digest, path)).u32le(name.length).bytes(name)
  const data = new ByteWriter()
  for (const [place, value] of splitFields(fields, rest, path).entries()) writeField(data, template, fields[place], value, path)
  if (template !== "ima") writer.u32le(data.length)
  writer.bytes(data.take())
}

/** The digest holds no space; a third field is hexadecimal and holds none either; what lies between is the name. */
function splitFields(fields: readonly TemplateField[], rest: string, path: string): readonly string[] {
  const first = rest.indexOf(" ")
  const last = rest.lastIndexOf(" ")
  if (first <= 0 || fields.length > 3) throw new MalformedError("malformed", "template has another form as text", { path })
  const digest = rest.substring(0, first)
  if (fields.length === 2) return [digest, rest.substring(first + 1)]
  if (last <= first) throw new MalformedError("malformed", "a field is missing", { path })
  return [digest, rest.substring(first + 1, last), rest.substring(last + 1)]
}

function writeField(writer: ByteWriter, template: string, field: TemplateField | undefined, value: string, path: string): void {
  switch (field) {
    case "d": {
      const digest = parseHex(value, path)
      if (template !== "ima") writer.u32le(digest.length)
      writer.bytes(digest)
      return
    }
    case "n": {
      const name = encodeUtf8(value)
      writer.u32le(name.length).bytes(name)
      return
    }
    case "d-ng":
    case "d-ngv2": {
      const colon = value.lastIndexOf(":")
      const prefix = encodeUtf8(`${value.substring(0, colon + 1)}\0`)
      const digest = parseHex(value.substring(colon + 1), path)
      writer
        .u32le(prefix.length + digest.length)
        .bytes(prefix)
        .bytes(digest)
      return
    }
    case "n-ng": {
      const name = encodeUtf8(`${value}\0`)
      writer.u32le(name.length).bytes(name)
      return
    }
    case "sig":
    case "buf": {
      const bytes = parseHex(value, path)
      writer.u32le(bytes.length).bytes(bytes)
      return
    }
    default:
      throw new MalformedError("malformed", "template has another form as text", { path })
  }
}
