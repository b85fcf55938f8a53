import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeHex, encodeUtf8 } from "../../../bytes/text.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash } from "../../../pki/signatures.ts"
import { encodePublicArea } from "../public-area.ts"
import { TpmConnection } from "./connection.ts"
import { attestationTemplates, endorsementProfiles, openAttestationKey } from "./keys.ts"

/** TCG EK Credential Profile 2.5, 2.2.1.4 and annex B; TCG TPM v2.0 Provisioning Guidance, 7.8. */
const profiles: readonly (readonly [string, number, number | undefined, number, number | undefined])[] = [
  ["L-1", 0x01c00002, 0x01c00003, 0x01c00004, 0x81010001],
  ["L-2", 0x01c0000a, 0x01c0000b, 0x01c0000c, 0x81010002],
  ["H-1", 0x01c00012, undefined, 0x01c00013, undefined],
  ["H-2", 0x01c00014, undefined, 0x01c00015, undefined],
  ["H-3", 0x01c00016, undefined, 0x01c00017, 0x81010016],
  ["H-6", 0x01c0001c, undefined, 0x01c0001d, undefined],
]

test("endorsementProfiles has indexes and handles where the profile puts them", () => {
  assert.deepEqual(
    endorsementProfiles.map(({ name, certificateIndex, nonceIndex, templateIndex, persistentHandle }) => [
      name,
      certificateIndex,
      nonceIndex,
      templateIndex,
      persistentHandle,
    ]),
    profiles,
  )
})

test("endorsementProfiles has the policies of annex B", () => {
  const low = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
  const high256 = "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"
  const high384 = "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
  assert.deepEqual(
    endorsementProfiles.map(({ template }) => encodeHex(template.authPolicy)),
    [low, low, high256, high256, high384, high384],
  )
})

test("attestationTemplates stay as they are: another template is another key, and every host would have to enrol again", () => {
  assert.deepEqual(
    attestationTemplates.map((template) => encodeHex(hash("sha256", encodePublicArea(template)))),
    attestationTemplateDigests,
  )
  const label = encodeHex(hash("sha256", encodeUtf8("perun attestation key 1")))
  for (const template of attestationTemplates) assert.ok(encodeHex(encodePublicArea(template)).includes(label))
})

const attestationTemplateDigests = [
  "4fe763f35da5e52f083fe7f091c4dc9203104275f99f92adc204ea62f8eaa4a9",
  "685fab58193c5fcb7efe035cb375cb0b414e34f62f5a740c5c848cddaa64347d",
]

/** A TPM that answers with the n-th response code. */
function refusing(...codes: readonly number[]): { readonly tpm: TpmConnection; readonly types: readonly number[] } {
  const types: number[] = []
  const transport = {
    name: "refusing",
    transmit: async (request: Uint8Array) => {
      // tag 2, size 4, code 4, handle 4, authorization size 4 and 9 bytes, sensitive 6, size of the template 2, then its type
      const reader = new ByteReader("request", request)
      reader.bytes(35, "in front")
      const code = codes[types.length] ?? 0x101
      types.push(reader.u16be("type"))
      return new ByteWriter().u16be(0x8001).u32be(10).u32be(code).take()
    },
    [Symbol.asyncDispose]: async () => undefined,
  }
  return { tpm: new TpmConnection(transport), types }
}

test("openAttestationKey() tries RSA where the TPM lacks the curve, and nothing where it fails otherwise", async () => {
  for (const lacking of [0x2a6, 0x2c4]) {
    const { tpm, types } = refusing(lacking, lacking)
    await assert.rejects(openAttestationKey(tpm), { code: "unsupported" })
    assert.deepEqual(types, [0x0023, 0x0001])
  }
  const { tpm, types } = refusing(0x101)
  await assert.rejects(openAttestationKey(tpm), { code: "failure" })
  assert.equal(types.length, 1)
})
