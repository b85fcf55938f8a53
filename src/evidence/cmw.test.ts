import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { derElement, tags } from "../pki/der.ts"
import { encodeCmwExtension, parseCmwExtension } from "./cmw.ts"
import { testParserLaws } from "./testing/parser-laws.ts"

const collection = {
  type: "urn:example:kind",
  records: { a: { type: "application/x.example", value: Uint8Array.of(0, 1, 255), indicator: 4 } },
}

testParserLaws({
  name: "parseCmwExtension",
  parse: parseCmwExtension,
  encode: encodeCmwExtension,
  samples: [encodeCmwExtension(collection), encodeCmwExtension({ type: "urn:example:none", records: {} })],
})

const json = (text: string): Uint8Array => derElement(tags.utf8String, encodeUtf8(text))

test("parseCmwExtension() reads a collection that another program wrote, with spaces and in any order", () => {
  // The record of RFC 9999's JSON example, in a collection.
  const text = '{ "b": ["application/vnd.example.rats-conceptual-msg", "I0faVQ", 4], "__cmwc_t": "tag:example.com,2024:composite-attester" }'
  assert.deepEqual(parseCmwExtension(json(text)), {
    type: "tag:example.com,2024:composite-attester",
    records: { b: { type: "application/vnd.example.rats-conceptual-msg", value: Uint8Array.of(0x23, 0x47, 0xda, 0x55), indicator: 4 } },
  })
})

test("parseCmwExtension() refuses the other choice, other forms of a record and what has two readings", () => {
  const refused = [
    derElement(tags.octetString, Uint8Array.of(0xa0)),
    derElement(tags.octetString, encodeUtf8('{"__cmwc_t":"urn:a"}')),
    json('["application/x.example","AAH_",4]'),
    json('{"a":["application/x.example","AAH_",4]}'),
    json('{"__cmwc_t":7,"a":["application/x.example","AAH_",4]}'),
    json('{"__cmwc_t":"urn:a","a":["application/x.example","AAH_"]}'),
    json('{"__cmwc_t":"urn:a","a":["application/x.example","AAH_",4,4]}'),
    json('{"__cmwc_t":"urn:a","a":["","AAH_",4]}'),
    json('{"__cmwc_t":"urn:a","a":["application/x.example","AAH_",0]}'),
    json('{"__cmwc_t":"urn:a","a":["application/x.example","AAH_",32]}'),
    json('{"__cmwc_t":"urn:a","a":["application/x.example","AAH/",4]}'),
    json('{"__cmwc_t":"urn:a","a":["application/x.example","AAE=",4]}'),
    json('{"__cmwc_t":"urn:a","a":{"__cmwc_t":"urn:b"}}'),
    json('{"__cmwc_t":"urn:a","__cmwc_t":"urn:b"}'),
    json(`{"__cmwc_t":"urn:a",${Array.from({ length: 9 }, (_, at) => `"r${at}":["application/x.example","AAH_",4]`).join()}}`),
  ]
  for (const [at, value] of refused.entries()) assert.throws(() => parseCmwExtension(value), { name: "MalformedError" }, `case ${at}`)
})
