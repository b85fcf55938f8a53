import assert from "node:assert/strict"
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { AlreadyExistsError } from "../bytes/durable.ts"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { createIdentity, loadIdentity } from "./identity.ts"

const root = await mkdtemp(join(tmpdir(), "perun-identity-"))
after(() => rm(root, { recursive: true }))
const malformed = (error: unknown) => error instanceof MalformedError && error.code === "malformed"

test("createIdentity() makes what loadIdentity() reads, with secrets for the owner only", async () => {
  const folder = join(root, "a")
  const made = await createIdentity(folder, { name: "clinic-a" })
  const loaded = await loadIdentity(folder)
  assert.equal(loaded.key, made.key)
  assert.match(loaded.recipient, /^age1pq1/)
  assert.equal((await stat(join(folder, "identity.pem"))).mode & 0o777, 0o600)
  assert.equal((await stat(join(folder, "recipient.age"))).mode & 0o777, 0o600)
})

test("createIdentity() never replaces an identity", async () => {
  const folder = join(root, "b")
  await createIdentity(folder, { name: "b", recipient: "x25519" })
  const before = await readFile(join(folder, "identity.pem"), "utf8")
  await assert.rejects(createIdentity(folder, { name: "b" }), AlreadyExistsError)
  assert.equal(await readFile(join(folder, "identity.pem"), "utf8"), before)
})

test("createIdentity() refuses names that policies could not use", async () => {
  for (const name of ["", "A", "1a", "a b", "a".repeat(64), "a\n"]) await assert.rejects(createIdentity(join(root, "c"), { name }), malformed)
})

test("loadIdentity() refuses files that do not belong together", async () => {
  const one = join(root, "d")
  const other = join(root, "e")
  await createIdentity(one, { name: "d" })
  await createIdentity(other, { name: "e" })
  for (const name of ["identity.pem", "recipient.age"]) {
    const kept = await readFile(join(one, name))
    await copyFile(join(other, name), join(one, name))
    await assert.rejects(loadIdentity(one), malformed)
    await writeFile(join(one, name), "nonsense")
    await assert.rejects(loadIdentity(one), malformed)
    await writeFile(join(one, name), kept)
  }
  await loadIdentity(one)
})

test("loadIdentity() says when there is none", async () => {
  await assert.rejects(loadIdentity(join(root, "none")), (error: unknown) => error instanceof UnavailableError)
})
