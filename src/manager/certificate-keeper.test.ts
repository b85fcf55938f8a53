import assert from "node:assert/strict"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { connect, type ConnectionOptions } from "node:tls"
import { labTdRequirement, startLabTd } from "../../lab/devices/td.ts"
import { digestOf } from "../bytes/digest.ts"
import { UnavailableError } from "../bytes/error.ts"
import { connectVerified, verifyManager, verifyManagerByCertificate } from "../protocol/manager-connection.ts"
import { fetchPeerCertificate } from "../protocol/http-client.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { CertificateKeeper } from "./certificate-keeper.ts"
import { openOwnTee } from "./own-tee.ts"
import { serveManager } from "./server.ts"
import { initManager } from "./state.ts"

/** A keeper on a clock of the test's. */
function keeper(): {
  readonly kept: CertificateKeeper
  readonly world: { now: number; silent: boolean; made: number }
  readonly installed: number[]
  readonly lines: string[]
  readonly tick: () => Promise<void>
} {
  const world = { now: 0, silent: false, made: 0 }
  const installed: number[] = []
  const lines: string[] = []
  const certify = async () => {
    if (world.silent) throw new UnavailableError("unavailable", "no device")
    return { der: Uint8Array.of(++world.made), notBefore: 0, notAfter: 1000 }
  }
  const kept = new CertificateKeeper(
    certify,
    (line) => lines.push(line),
    () => world.now,
  )
  return { kept, world, installed, lines, tick: async () => kept.tick((der) => installed.push(der[0] ?? 0)) }
}

test("CertificateKeeper renews when half of a certificate's life is over, once", async () => {
  const { kept, world, installed, tick } = keeper()
  assert.deepEqual(await kept.renew(), Uint8Array.of(1))
  world.now = 499
  await tick()
  assert.deepEqual(installed, [])
  world.now = 500
  await Promise.all([tick(), tick(), tick()])
  assert.deepEqual(installed, [2])
  world.now = 1000
  await tick()
  assert.deepEqual(installed, [2, 3])
})

test("CertificateKeeper says that the device is silent, leaves the old certificate and tries again later", async () => {
  const { kept, world, installed, lines, tick } = keeper()
  await kept.renew()
  Object.assign(world, { now: 500, silent: true })
  await tick()
  await tick()
  assert.deepEqual([installed.length, lines.length], [0, 1])
  assert.match(lines[0] ?? "", /cannot be renewed: no device/)
  Object.assign(world, { now: 60_499, silent: false })
  await tick()
  assert.deepEqual(installed, [])
  world.now = 60_500
  await tick()
  assert.deepEqual(installed, [2])
})

test("CertificateKeeper has nothing to keep for a manager without a TEE", async () => {
  const kept = new CertificateKeeper(
    async () => undefined,
    () => undefined,
    () => 1e12,
  )
  assert.equal(await kept.renew(), undefined)
  await kept.tick(() => assert.fail("nothing to install"))
})

test("serveManager() shows a certificate with evidence, and a new one over the same key when it is time, without a connection broken", async (context) => {
  const base = await mkdtemp(join(tmpdir(), "perun-certificate-"))
  context.after(() => rm(base, { recursive: true, force: true }))
  const [folder, collateral] = [join(base, "manager"), join(base, "collateral.json")]
  const program = { runtime: "a".repeat(96), source: "b".repeat(96), packages: "c".repeat(96) }
  await using td = await startLabTd(program)
  await writeFile(collateral, td.collateral)
  await initManager({ folder, laboratoryRoots: [], vault: { kind: "key-file" } })
  await using running = await serveManager({ folder, host: "127.0.0.1", port: 0, ownTee: await openOwnTee(td.url, collateral) })
  const url = new URL(running.url)
  const accept = [{ tdx: labTdRequirement(program, td.authority.root) }]
  const identity = createTlsIdentity("client")
  const verified = await verifyManager(url, { accept }, identity, { now: new Date() })
  using transport = connectVerified(verified, identity)
  await transport.call(routes.health, {})

  const first = await fetchPeerCertificate({ url, identity })
  assert.ok((await verifyManagerByCertificate(url, accept, identity, { now: new Date() })).isFresh)
  const start = performance.now()
  const later = start + 1_980_000
  context.mock.method(performance, "now", () => later)
  let second = first
  for (let count = 0; count < 100 && digestOf(second) === digestOf(first); count++) {
    await sleep(100)
    second = await fetchPeerCertificate({ url, identity })
  }
  assert.notEqual(digestOf(second), digestOf(first))
  const renewed = await verifyManagerByCertificate(url, accept, identity, { now: new Date() })
  assert.equal(renewed.description.tlsKey, verified.description.tlsKey)
  assert.equal((await transport.call(routes.health, {})).ok, true)
  using again = connectVerified(verified, identity)
  assert.equal((await again.call(routes.health, {})).ok, true)
  // What the first certificate's server demanded still holds.
  const old: ConnectionOptions = { host: "127.0.0.1", port: Number(url.port), rejectUnauthorized: false, maxVersion: "TLSv1.2" }
  await assert.rejects(new Promise((resolve, reject) => connect(old).once("secureConnect", resolve).once("error", reject)))
})
