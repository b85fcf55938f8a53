/**
 * A bad world around real processes: machines that prove themselves wrongly to a running manager, TPMs that fail, disks that are full, and a manager that goes
 * away while a machine works for it.
 */
import assert from "node:assert/strict"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { createServer, connect, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { after, before, describe, test } from "node:test"
import { noSandbox } from "../agent/testing/sandbox-possible.testing.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import { viewOf } from "../bytes/view.ts"
import { type HostBundleDocument, sessionDigest } from "../evidence/bundle.ts"
import { parseEventLog } from "../evidence/eventlog/format.ts"
import { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import { noSoftwareTpm, type SoftwareTpm, startSoftwareTpm } from "../evidence/tpm/client/swtpm.testing.ts"
import { certifiedKey, endorsementKeyDigest, parseStoredCertificate } from "../evidence/tpm/endorsements.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { parsePemCertificates } from "../pki/certificate.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import type { Transport } from "../protocol/http-client.ts"
import { connectVerified, verifyManager } from "../protocol/manager-connection.ts"
import type { Challenge, ClaimRequest, RunView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity, type TlsIdentity } from "../protocol/tls.ts"
import { demandStatus, end, filesBelow, lastEvent } from "./process.testing.ts"
import { RealStudy, until } from "./study.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-bad-world-"))
after(() => rm(base, { recursive: true, force: true }))

describe("claims against a running manager", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  const references = captureReferences(machine)
  const tls = createTlsIdentity("host-1")
  let study: RealStudy
  let transport: Transport
  let hpkeKey = ""

  before(async () => {
    study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references })
    await study.agree()
    await study.queue()
    transport = await connectAs(tls)
    const begun = await transport.call(routes.beginEnrolment, { body: machine.enrolmentRequest("host-1") })
    await transport.call(routes.answerEnrolment, { params: { enrolment: begun.enrolment }, body: { secret: machine.activate(begun) } })
    hpkeKey = encodeBase64((await generateHpkeKeyPair()).publicKey)
  })
  after(async () => {
    transport[Symbol.dispose]()
    await study[Symbol.asyncDispose]()
  })

  async function connectAs(identity: TlsIdentity): Promise<Transport> {
    return connectVerified(await verifyManager(new URL(study.pin.url), study.pin, identity, { now: new Date() }), identity)
  }

  const challenge = (): Promise<Challenge> => transport.call(routes.requestChallenge, { body: { purpose: "claim", host: "host-1" } })

  function claimFor(given: Challenge, key = hpkeKey, tlsKey = tls.tlsKey): TpmClaim {
    const { purpose, nonce, manager, policy, job, run, lease } = given
    const session = {
      purpose,
      version: 1,
      manager,
      nonce,
      hpkeKey: key,
      tlsKey,
      akName: machine.akName,
      deviceEvidence: [],
      policy,
      job,
      run,
      lease,
    } as const
    return { challenge: given.challenge, hpkeKey, bundle: machine.bundle(sessionDigest(session)) }
  }

  type TpmClaim = ClaimRequest & { readonly bundle: HostBundleDocument }

  function withTpm(claim: TpmClaim, change: Partial<HostBundleDocument["tpm"]>): TpmClaim {
    return { ...claim, bundle: { ...claim.bundle, tpm: { ...claim.bundle.tpm, ...change } } }
  }

  function cut(text: string, bytes: number): string {
    const all = parseBase64(text)
    return encodeBase64(viewOf(all, 0, all.length - bytes))
  }

  const refused = (body: ClaimRequest, code: string, by = transport): Promise<void> =>
    assert.rejects(by.call(routes.claimRun, { body }), { name: "ProblemError", code })

  test("evidence of another challenge, for another key, over another connection", async () => {
    const yesterday = claimFor(await challenge())
    await refused({ ...yesterday, challenge: (await challenge()).challenge }, "wrong-nonce")
    const other = encodeBase64((await generateHpkeKeyPair()).publicKey)
    await refused(claimFor(await challenge(), other), "wrong-nonce")
    const stolen = claimFor(await challenge())
    using thief = await connectAs(createTlsIdentity("thief"))
    await refused(stolen, "challenge-unknown", thief)
    await thief.call(routes.requestChallenge, { body: { purpose: "claim", host: "host-1" } })
    await refused(stolen, "challenge-binding", thief)
  })

  test("evidence of another machine, though it is genuine", async () => {
    const { purpose, nonce, manager, policy, job, run, lease, challenge: id } = await challenge()
    const twin = new LaboratoryMachine(authority)
    const facts = { purpose, version: 1, manager, nonce, hpkeKey, tlsKey: tls.tlsKey, deviceEvidence: [], policy, job, run, lease } as const
    await refused({ challenge: id, hpkeKey, bundle: twin.bundle(sessionDigest({ ...facts, akName: machine.akName })) }, "wrong-binding")
  })

  test("logs that were cut, doubled or left out, and a signature of something else", async () => {
    const fresh = async (): Promise<{ claim: TpmClaim; eventLog: string; list: string }> => {
      const claim = claimFor(await challenge())
      return { claim, eventLog: claim.bundle.tpm.eventLog ?? "", list: claim.bundle.tpm.ima.list }
    }
    const one = await fresh()
    await refused(withTpm(one.claim, { eventLog: cut(one.eventLog, 3) }), "truncated")
    const two = await fresh()
    await refused(withTpm(two.claim, { ima: { from: 0, list: cut(two.list, 3) } }), "truncated")
    const three = await fresh()
    await refused(withTpm(three.claim, { ima: { from: 0, list: "" } }), "pcr-mismatch")
    const four = await fresh()
    const { eventLog: _, ...without } = four.claim.bundle.tpm
    await refused({ ...four.claim, bundle: { ...four.claim.bundle, tpm: without } }, "missing-piece")
    const five = await fresh()
    await refused(withTpm(five.claim, { signature: claimFor(await challenge()).bundle.tpm.signature }), "wrong-signature")
  })

  test("a challenge that was answered before; the run that it was for is granted once", async () => {
    const claim = claimFor(await challenge())
    const grant = await transport.call(routes.claimRun, { body: claim })
    assert.equal(grant.policy, study.digest)
    // Word for word again is the same question: its answer may have been lost. Anything else on the same challenge is a replay, and so is the claim of another.
    assert.deepEqual(await transport.call(routes.claimRun, { body: claim }), grant)
    const otherKey = encodeBase64((await generateHpkeKeyPair()).publicKey)
    await refused({ ...claim, hpkeKey: otherKey }, "challenge-used")
    await refused(withTpm(claim, { signature: claim.bundle.tpm.akPublic }), "challenge-used")
    using thief = await connectAs(createTlsIdentity("thief"))
    await refused(claim, "challenge-unknown", thief)
    const { stdout } = await demandStatus(["job", "list", "--json"], 0, study.clinic.environment)
    const [run, ...others] = lastEvent(stdout)["runs"] as readonly RunView[]
    assert.deepEqual([run?.state, run?.host, others.length], ["running", "host-1", 0])
    const shown = await demandStatus(["job", "show", run?.run ?? "", "--json"], 0, study.clinic.environment)
    assert.ok((lastEvent(shown.stdout)["refusals"] as RunView["refusals"]).length >= 8, "every refusal is there to be read")
    await demandStatus(["audit", "list"], 0, study.vendor.environment)
  })
})

/** TPM2_GetCapability, which answers even in failure mode. TPM 2.0 Library Part 1, 12.4. */
const getCapability = 0x17a

describe("a TPM that fails", { skip: noSoftwareTpm }, () => {
  let device: SoftwareTpm

  before(async () => void (device = await startSoftwareTpm({ certified: true })))
  after(async () => device[Symbol.asyncDispose]())

  /** A TPM in the place of the real one that answers each command by `answer`, or hangs up. */
  async function standIn(
    answer: (command: number, count: number) => "pass" | "failure" | "hang-up" | "nonsense",
  ): Promise<{ readonly path: string; readonly server: Server }> {
    const path = join(await mkdtemp(join(base, "t-")), "tpm")
    let count = 0
    const server = createServer((socket) => {
      const real = connect(device.location.unix)
      real.on("data", (bytes) => socket.write(bytes))
      real.on("error", () => socket.destroy())
      socket.on("error", () => real.destroy())
      socket.on("close", () => real.destroy())
      socket.on("data", (bytes) => {
        switch (answer(bytes.readUInt32BE(6), count++)) {
          case "pass":
            return real.write(bytes)
          case "failure":
            // TPM_ST_NO_SESSIONS, size, TPM_RC_FAILURE: self test or random generator gave up.
            return socket.write(Buffer.from("80010000000a00000101", "hex"))
          case "nonsense":
            return socket.write(Buffer.from("ffff0000000c000000000000", "hex"))
          case "hang-up":
            return socket.destroy()
        }
      })
    })
    await new Promise<void>((done) => server.listen(path, done))
    return { path, server }
  }

  async function commandsFail(path: string, status: number): Promise<void> {
    await demandStatus(["host", "show", "--tpm", `unix:${path}`], status, {})
    const manager = join(base, "manager-of-bad-tpm")
    await demandStatus(["manager", "init", manager, "--tpm", `unix:${path}`], status, {})
    assert.deepEqual(await filesBelow(manager), [])
  }

  test("with a random generator or self test that gave up (TPM_RC_FAILURE)", async () => {
    const { path, server } = await standIn((command) => (command === getCapability ? "pass" : "failure"))
    await commandsFail(path, 40)
    server.close()
  })

  test("that hangs up at the first command, and at the third", async () => {
    for (const at of [0, 2]) {
      const { path, server } = await standIn((_, count) => (count % 3 === at ? "hang-up" : "pass"))
      await commandsFail(path, 40)
      server.close()
    }
  })

  test("that answers with nonsense", async () => {
    const { path, server } = await standIn(() => "nonsense")
    await commandsFail(path, 10)
    server.close()
  })

  test("that is gone, and one that was killed", async () => {
    await using killed = await startSoftwareTpm()
    killed.process.kill("SIGKILL")
    await until("swtpm is dead", () => killed.process.signalCode !== null)
    await commandsFail(killed.location.unix, 40)
    await commandsFail(join(base, "no-such-tpm"), 40)
  })
})

describe("a full disk", { skip: process.getuid?.() === 0 ? false : "skipped: needs root to mount a small disk" }, () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  const disk = join(base, "disk")
  let study: RealStudy

  before(async () => {
    study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references: captureReferences(machine) })
    await study.submit()
    await mkdir(disk)
    assert.equal(spawnSync("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", disk]).status, 0)
    await writeFile(join(disk, "filler"), Buffer.alloc(1 << 20)).catch(() => undefined) // Until it is full.
  })
  after(async () => {
    spawnSync("umount", [disk])
    await study[Symbol.asyncDispose]()
  })

  test("policy sign and policy init leave nothing there", async () => {
    const { environment } = study.clinic
    await demandStatus(["policy", "sign", study.policyFile, "--offline", "--yes", "--out", join(disk, "approval.json"), "--json"], 50, environment)
    await demandStatus(["policy", "init", "--study", "x", "--out", join(disk, "draft.yaml")], 50, environment)
    assert.deepEqual(await readdir(disk), ["filler"])
  })

  test("audit list does not forget the checkpoint that it had", async () => {
    const home = join(disk, "home")
    spawnSync("mount", ["-o", "remount,size=1m", disk])
    spawnSync("cp", ["-a", study.clinic.home, home])
    await demandStatus(["audit", "list"], 0, { PERUN_HOME: home })
    const seen = await readFile(join(home, "checkpoints.json"), "utf8")
    await study.sign(study.clinic)
    await writeFile(join(disk, "filler2"), Buffer.alloc(2 << 20)).catch(() => undefined) // Until it is full.
    await demandStatus(["audit", "list", "--json"], 50, { PERUN_HOME: home })
    assert.equal(await readFile(join(home, "checkpoints.json"), "utf8"), seen)
  })
})

/** Why no whole host can stand here. Its kernel's logs are put in place in a mount namespace of its own: no option of the agent says where they lie. */
const noHost: string | false = noSoftwareTpm !== false ? noSoftwareTpm : noSandbox !== false ? noSandbox : whyNoNamespace()

function whyNoNamespace(): string | false {
  const trial = spawnSync("unshare", ["--mount", "sh", "-c", "mount --make-rprivate / && mount -t tmpfs none /sys/kernel/security"])
  return trial.status === 0 ? false : "skipped: this machine does not let a test mount over /sys/kernel/security"
}

describe("a manager that goes away while a machine works", { skip: noHost }, () => {
  let device: SoftwareTpm
  let study: RealStudy
  let machine: LaboratoryMachine
  const leaseSeconds = 10

  before(async () => {
    device = await startSoftwareTpm({ certified: true })
    machine = new LaboratoryMachine(new LaboratoryAuthority())
    await using tpm = await HostTpm.open(device.location)
    await extendRegisters(tpm, machine)
    const { ekCertificates } = await tpm.collectEndorsement()
    const [certificate] = ekCertificates
    const [issuer] = parsePemCertificates(await readFile(join(device.folder, "ca", "issuercert.pem"), "utf8"))
    assert.ok(certificate !== undefined && issuer !== undefined)
    study = await RealStudy.start({
      root: issuer.der,
      endorsementKey: endorsementKeyDigest(certifiedKey(parseStoredCertificate(certificate).certificate).key),
      references: captureReferences(machine),
      job: { run: ["/bin/sleep", "300"], lease: { seconds: leaseSeconds } },
    })
    await study.agree()
  })
  after(async () => {
    await study[Symbol.asyncDispose]()
    await device[Symbol.asyncDispose]()
  })

  /** `perun agent run` on a machine whose kernel shows the logs of `machine`. */
  async function startAgent(): Promise<{ readonly agent: ChildProcess; readonly events: readonly string[] }> {
    const logs = join(study.folder, "security")
    await mkdir(join(logs, "tpm0"), { recursive: true })
    await mkdir(join(logs, "ima"))
    await writeFile(join(logs, "tpm0", "binary_bios_measurements"), machine.eventLog)
    await writeFile(join(logs, "ima", "binary_runtime_measurements"), machine.imaList(0))
    await writeFile(join(logs, "ima", "runtime_measurements_count"), `${machine.imaExtends.length}\n`)
    // The job's user has to pass through to its files.
    await chmod(study.folder, 0o711)
    const config = join(study.folder, "agent.json")
    await mkdir(join(study.folder, "scratch"))
    await writeFile(config, JSON.stringify({ perun: 1, host: "host-1", manager: study.pin, scratch: join(study.folder, "scratch") }))
    const place = 'mount --make-rprivate / && mount --bind "$0" /sys/kernel/security && exec "$@"'
    const main = resolve(import.meta.dirname, "main.ts")
    const agent = spawn(
      "unshare",
      [
        ...["--mount", "sh", "-c", place, logs, process.execPath, "--disable-warning=ExperimentalWarning", main],
        ...["agent", "run", "--config", config, "--tpm", `unix:${device.location.unix}`, "--json"],
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    )
    const events: string[] = []
    createInterface({ input: agent.stdout ?? process.stdin }).on("line", (line) => events.push(line))
    return { agent, events }
  }

  async function runs(): Promise<readonly RunView[]> {
    const { stdout } = await demandStatus(["job", "list", "--json"], 0, study.clinic.environment)
    return lastEvent(stdout)["runs"] as readonly RunView[]
  }

  test("a short time: the agent tries again and keeps its lease; for good: the job ends with the lease; back again: all is there", async () => {
    const first = await study.queue()
    const { agent, events } = await startAgent()
    const count = (event: string): number => events.filter((line) => line.includes(`"event":"${event}"`)).length
    const seen = (event: string, times = 1): Promise<void> => until(`${times} of ${event}`, () => count(event) >= times)
    try {
      await seen("job-started")
      // Back before the lease is over.
      await study.stopManager()
      await until("the agent notices", () => count("lease-trouble") > 0 || count("lease-renewed") > 0)
      await study.startManager()
      const renewed = count("lease-renewed")
      await seen("lease-renewed", renewed + 1)
      assert.equal(count("lease-lost"), 0)
      assert.equal((await runs()).find(({ run }) => run === first)?.state, "running")

      await study.stopManager()
      const gone = performance.now()
      await seen("lease-lost")
      assert.ok(performance.now() - gone < (leaseSeconds + 2) * 1000, "not later than the lease")
      assert.ok(count("lease-trouble") >= 2, "it was tried again")
      await seen("run-finished")
      await seen("scratch-wiped")
      assert.deepEqual(await readdir(join(study.folder, "scratch", "scratch")), [])

      await study.startManager()
      await until("the run is ended", async () => (await runs()).find(({ run }) => run === first)?.state === "ended")
      await demandStatus(["audit", "list"], 0, study.clinic.environment)
      const { stdout } = await demandStatus(["policy", "status", study.policyFile], 0, study.clinic.environment)
      assert.match(stdout, /^state +active$/m)
      assert.match(stdout, /^deposited +records, trainer$/m)

      const second = await study.queue()
      await seen("job-started", 2)
      assert.equal((await runs()).find(({ run }) => run === second)?.state, "running")
    } catch (error) {
      console.error(events.join("\n"))
      throw error
    } finally {
      await end(agent)
    }
    assert.equal(agent.exitCode, 130)
    assert.equal(count("scratch-wiped"), 2)
  })
})

/** Brings a TPM's registers to where a machine's logs lead, as firmware and kernel do. */
async function extendRegisters(tpm: HostTpm, machine: LaboratoryMachine): Promise<void> {
  for (const { register, type, digests } of parseEventLog(machine.eventLog).events) {
    const digest = digests.get("sha256")
    if (type !== 3 && digest !== undefined) await tpm.pcrExtend(register, "sha256", digest)
  }
  for (const digest of machine.imaExtends) await tpm.pcrExtend(10, "sha256", digest)
}
