import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { generateAgeIdentity, recipientOf } from "./keys.ts"
import { manifestDigest, parseSignedManifest, verifyManifest } from "./manifest.ts"
import type { ArtifactManifest, ManifestSigner, SignedManifest } from "./manifest.ts"
import { testSigner, withCode } from "./test-fixtures.ts"

const recipient = await recipientOf(await generateAgeIdentity("x25519"))
const digest = digestOf(new Uint8Array(3))

function manifestOf(signer: ManifestSigner, more: Partial<ArtifactManifest> = {}): ArtifactManifest {
  return {
    perun: 1,
    kind: "dataset",
    owner: signer.owner,
    name: "records-a",
    recipient,
    shards: [{ digest, sizeBytes: 300 }],
    index: { digest, sizeBytes: 300, saltedDigest: digest },
    files: { count: 1, bytes: 5 },
    ...more,
  }
}

async function sign(manifest: ArtifactManifest, signer: ManifestSigner): Promise<SignedManifest> {
  return { manifest, signature: await signer.sign(manifestDigest(manifest)) }
}

test("verifyManifest() gives the manifest that its owner signed", async () => {
  const signer = testSigner()
  const signed = await sign(manifestOf(signer), signer)
  const parsed = parseSignedManifest(JSON.stringify(signed))
  assert.deepEqual(verifyManifest(parsed, { digest: manifestDigest(signed.manifest), owners: ["ssh-ed25519 x", signer.owner] }), signed.manifest)
})

test("verifyManifest() refuses another manifest, another owner, and every changed field", async () => {
  const [signer, other] = [testSigner(), testSigner()]
  const signed = await sign(manifestOf(signer), signer)
  assert.throws(() => verifyManifest(signed, { digest }), withCode("wrong-manifest"))
  assert.throws(() => verifyManifest(signed, { owners: [] }), withCode("wrong-manifest"))
  assert.throws(() => verifyManifest(signed, { owners: [other.owner] }), withCode("wrong-manifest"))
  const byOther = await sign(manifestOf(signer), other)
  assert.throws(() => verifyManifest(byOther), withCode("wrong-manifest"))
  for (const change of [
    { name: "records-b" },
    { kind: "code" as const },
    { owner: other.owner },
    { shards: [] },
    { files: { count: 2, bytes: 5 } },
  ]) {
    assert.throws(() => verifyManifest({ ...signed, manifest: manifestOf(signer, change) }), withCode("wrong-manifest"))
  }
})

test("parseSignedManifest() refuses documents of another form", async () => {
  const signer = testSigner()
  const signed = await sign(manifestOf(signer), signer)
  const with_ = (change: object) => JSON.stringify({ ...signed, manifest: { ...signed.manifest, ...change } })
  for (const change of [
    { perun: 2 },
    { name: "../x" },
    { name: "" },
    { kind: "film" },
    { shards: [{ digest: "sha256:00", sizeBytes: 1 }] },
    { files: { count: -1, bytes: 0 } },
  ]) {
    assert.throws(() => parseSignedManifest(with_(change)), withCode("malformed"), JSON.stringify(change))
  }
  assert.throws(() => parseSignedManifest(with_({ extra: 1 })), withCode("unknown-field"))
  assert.throws(() => parseSignedManifest(JSON.stringify(signed).replace('"perun":1', '"perun":1,"perun":1')), withCode("duplicate"))
  assert.throws(() => parseSignedManifest("{}"), withCode("malformed"))
})
