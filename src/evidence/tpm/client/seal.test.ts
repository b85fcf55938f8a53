import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeHex, encodeUtf8 } from "../../../bytes/text.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash } from "../../../pki/signatures.ts"
import { encodePcrSelections } from "../format.ts"
import type { PcrSelection } from "../format.ts"
import { parsePublicArea } from "../public-area.ts"
import { TpmConnection } from "./connection.ts"
import { capDigest, encodeSealedBytes, parseSealedBytes, pcrPolicy, sealToPcrs } from "./seal.ts"
import { noSoftwareTpm, startSoftwareTpm } from "./swtpm.testing.ts"

const selection: PcrSelection = { bank: "sha256", pcrs: [0, 10] }
const part = encodeUtf8("part")

function blob(selections: readonly PcrSelection[], privateBytes = part): Uint8Array {
  return new ByteWriter().sized16be(part).sized16be(encodePcrSelections(selections)).sized16be(privateBytes).sized16be(part).take()
}

test("parseSealedBytes() wants exactly one bank", () => {
  assert.deepEqual(parseSealedBytes(blob([selection])), { parentName: part, selection, privateBytes: part, publicBytes: part })
  assert.deepEqual(encodeSealedBytes(parseSealedBytes(blob([selection]))), blob([selection]))
  for (const selections of [[], [selection, { bank: "sha384", pcrs: [0] } as const]])
    assert.throws(() => parseSealedBytes(blob(selections)), { code: "malformed" })
})

test("parseSealedBytes() takes parts of up to 1024 bytes", () => {
  assert.equal(parseSealedBytes(blob([selection], new Uint8Array(1024))).privateBytes.length, 1024)
  assert.throws(() => parseSealedBytes(blob([selection], new Uint8Array(1025))), { code: "too-large" })
})

test("pcrPolicy() wants a value for every register", () => {
  const zero = new Uint8Array(32)
  assert.equal(pcrPolicy(selection, new Map([[0, zero], [10, zero]])).length, 32) // prettier-ignore
  assert.throws(() => pcrPolicy(selection, new Map([[0, zero]])), TypeError)
})

test("capDigest() has the size of its bank, and stays as it is", () => {
  assert.equal(encodeHex(capDigest("sha256")), encodeHex(hash("sha256", encodeUtf8("perun cap"))))
  assert.equal(capDigest("sha384").length, 48)
})

test("sealToPcrs() leaves no other way than the registers, and no other place than this TPM", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  await using tpm = await TpmConnection.open(software.location)
  const { attributes, authPolicy } = parsePublicArea((await sealToPcrs(tpm, part, selection)).publicBytes)
  assert.deepEqual(attributes, new Set(["fixedTPM", "fixedParent", "noDA"]))
  assert.equal(authPolicy.length, 32)
})
