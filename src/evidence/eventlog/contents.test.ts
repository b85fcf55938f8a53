import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import { readContent, readVariable } from "./contents.ts"
import type { EventContent } from "./contents.ts"
import { utf16, variableData } from "./log-builder.testing.ts"
import { eventTypes } from "./types.ts"
import type { EventTypeName } from "./types.ts"

function contentOf(type: EventTypeName, data: Uint8Array, hashed = data): EventContent {
  const digests = new Map([["sha256", hash("sha256", hashed)]])
  return readContent({ index: 0, register: 0, type: eventTypes[type], digests, data, end: 0 }, "sha256")
}

const words = encodeUtf8("words")
const order = variableData("global", "X", Uint8Array.of(1))

/** Types of which the digest covers the data, and what becomes of it. */
const covered: readonly (readonly [EventTypeName, Uint8Array, string])[] = [
  ["EV_SEPARATOR", new Uint8Array(4), "separator 00000000"],
  ["EV_ACTION", words, "words"],
  ["EV_EFI_ACTION", words, "words"],
  ["EV_S_CRTM_VERSION", words, "words"],
  ["EV_EFI_GPT_EVENT", words, "partition table of 5 bytes"],
  ["EV_EFI_GPT_EVENT2", words, "partition table of 5 bytes"],
  ["EV_EVENT_TAG", words, "tagged event of 5 bytes"],
  ["EV_EFI_VARIABLE_DRIVER_CONFIG", order, "X = 01"],
  ["EV_EFI_VARIABLE_BOOT", order, "X = 01"],
  ["EV_EFI_VARIABLE_BOOT2", order, "X = 01"],
  ["EV_EFI_VARIABLE_AUTHORITY", order, "X = 01"],
  ["EV_IPL", words, "words"],
]
for (const [type, data, description] of covered)
  test(`readContent() certifies ${type} where its digest covers the data`, () => {
    const { certified, description: found } = contentOf(type, data)
    assert.deepEqual([certified, found], [true, description])
    assert.deepEqual(contentOf(type, data, encodeUtf8("other")), { certified: false, description: "" })
  })

test("readContent() certifies no other type, and nothing without a digest of the bank", () => {
  const certified = (Object.keys(eventTypes) as EventTypeName[]).filter((type) => contentOf(type, order).certified)
  assert.deepEqual(certified.toSorted(), covered.map(([type]) => type).toSorted())
  const event = { index: 0, register: 0, type: eventTypes.EV_IPL, digests: new Map(), data: words, end: 0 }
  assert.deepEqual(readContent(event, "sha256"), { certified: false, description: "" })
})

for (const prefix of ["grub_cmd: ", "kernel_cmdline: ", "module_cmdline: ", "grub_kernel_cmdline ", "grub_cmd "])
  test(`readContent() takes what stands behind "${prefix}" where the digest covers it`, () => {
    for (const end of ["", "\0"]) {
      assert.equal(contentOf("EV_IPL", encodeUtf8(`${prefix}linux /vmlinuz${end}`), encodeUtf8("linux /vmlinuz")).text, "linux /vmlinuz")
    }
  })

test("readContent() takes no text behind other words than GRUB's", () => {
  for (const prefix of ["grub_cmd; ", "Grub_cmd: ", "xernel_cmdline: ", "kernel: ", ""])
    assert.equal(contentOf("EV_IPL", encodeUtf8(`${prefix}linux /vmlinuz`), encodeUtf8("linux /vmlinuz?")).certified, false)
  assert.equal(contentOf("EV_IPL", encodeUtf8("grub_cmx: linux"), encodeUtf8("linux")).certified, false)
})

/** Certified bytes and the text that is made of them. */
const texts: readonly (readonly [string, Uint8Array, string])[] = [
  ["UTF-16 with NULs behind it", utf16("1.0\0\0"), "1.0"],
  ["one byte", Uint8Array.of(0x41), "A"],
  ["one character of UTF-16", utf16("A"), "A"],
  ["an odd number of bytes with a NUL", Uint8Array.of(0x41, 0, 0x42), "A\0B"],
  ["text with a NUL inside and two behind it", encodeUtf8("AB\0CD\0\0"), "AB\0CD"],
  ["UTF-8 with a mark of byte order", encodeUtf8("\ufeffAB"), "\ufeffAB"],
  ["bytes that are no UTF-8", Uint8Array.of(0xe9, 0x41), "éA"],
]
for (const [what, data, text] of texts)
  test(`readContent() reads ${what}`, () => {
    assert.equal(contentOf("EV_IPL", data).text, text)
  })

test("readVariable() keeps every character of a name", () => {
  assert.equal(readVariable(variableData("global", "\ufeffPK", Uint8Array.of(1)))?.name, "\ufeffPK")
})

test("readVariable() reads names and values of no length, and refuses lengths beyond the data", () => {
  assert.deepEqual(readVariable(variableData("global", "", new Uint8Array(0))), {
    vendorGuid: "61dfe48bca93d211aa0d00e098032b8c",
    name: "",
    value: new Uint8Array(0),
  })
  assert.equal(readVariable(variableData("global", "X", Uint8Array.of(1)).slice(0, -1)), undefined)
  assert.equal(readVariable(Uint8Array.from([...variableData("global", "X", Uint8Array.of(1)), 0])), undefined)
})
