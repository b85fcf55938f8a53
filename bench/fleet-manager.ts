/** The manager's side of bench/fleet.ts, in a process of its own. */
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Digest } from "../src/bytes/digest.ts"
import { encodeBase64 } from "../src/bytes/text.ts"
import { encodeSizedPublicArea } from "../src/evidence/tpm/public-area.ts"
import { makeAgent } from "../src/manager/study.testing.ts"
import { TlsFront } from "../src/manager/tls-front.ts"
import { createTlsIdentity } from "../src/protocol/tls.ts"
import { type FleetReady, type FleetWords, fleetLines, leaseOf } from "./fleet.ts"
import { makeStudy } from "./manager.ts"

const folder = mkdtempSync(join(tmpdir(), "perun-bench-fleet-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))
const [{ tlsKeys }] = (await once(process, "message")) as [FleetWords]
const seconds = 600
const { study, machine, digest } = await makeStudy(folder, {
  lines: fleetLines,
  change: (policy) => {
    const { train } = policy.jobs
    if (train === undefined) throw new TypeError("internal: the study has its job")
    return { ...policy, jobs: { train: { ...train, lease: { seconds } } } }
  },
})
// One host is enrolled and claims as hosts do; what the manager then holds of it is what it holds of all.
const first = await makeAgent()
await study.enrol(first)
await study.queue(digest)
const grant = await study.claim(first)
const [host, run, lease, bootLog] = [
  study.store.get("hosts", "host-1"),
  study.store.get("runs", grant.run),
  study.store.get("leases", grant.lease.id),
  study.store.get("bootLogs", grant.lease.id),
]
if (host === undefined || run === undefined || lease === undefined || bootLog === undefined) throw new TypeError("internal: the host works")
for (let from = 0; from < tlsKeys.length; from += 500)
  study.store.transact(new Date(study.clock.wall), (tx) => {
    for (const [place, tlsKey] of tlsKeys.slice(from, from + 500).entries()) {
      const number = from + place
      const [id, name] = [leaseOf(number), `host-${number}`]
      const runId = `f${id.slice(1)}`
      tx.put("hosts", name, { ...host, host: name })
      tx.put("runs", runId, { ...run, run: runId, lease: id, host: name, number: number + 10 })
      tx.put("leases", id, { ...lease, lease: id, run: runId, host: name, tlsKey: tlsKey as Digest })
      tx.put("bootLogs", id, { ...bootLog, lease: id })
    }
  })
study.restart()
const tls = createTlsIdentity("manager")
const front = await TlsFront.listen({ tls, fetch: study.manager.app.fetch }, tls.certificatePem, { host: "127.0.0.1", port: 0 })
setInterval(() => study.manager.tick(), 1000)
process.send?.({
  url: front.url,
  manager: study.manager.description.instance,
  akPem: String(machine.ak.privateKey.export({ format: "pem", type: "pkcs8" })),
  akPublic: encodeBase64(encodeSizedPublicArea(machine.ak.area)),
  hpkeKey: encodeBase64(first.hpke.publicKey),
} satisfies FleetReady)
