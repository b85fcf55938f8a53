import { generateKeyPairSync } from "node:crypto"
import { PerunError, UnavailableError } from "../bytes/error.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { generateHpkeKeyPair, type HpkeKeyPair } from "../protocol/hpke.ts"
import { withRetry, type Answer, type Transport } from "../protocol/http-client.ts"
import { connectVerified, verifyManager, type VerifiedManager } from "../protocol/manager-connection.ts"
import type { Challenge, ChallengeRequest, WireFinding } from "../protocol/messages.ts"
import { ProblemError } from "../protocol/problem.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity, type TlsIdentity } from "../protocol/tls.ts"
import { manifestSigner, type ManifestSigner } from "../sealing/manifest.ts"
import { challengeSession, demandPieces, openReleasedKeys, verifyGrant, type ReleasedToJob, type SessionKeys, type VerifiedGrant } from "./claim.ts"
import type { AgentConfig } from "./config.ts"
import { AgentError } from "./error.ts"
import type { Attester } from "./evidence/attest.ts"
import { keepLease, type LeaseClock } from "./lease.ts"
import type { AgentLog } from "./log.ts"
import { executeRun, type RunExchange } from "./run.ts"

export interface AgentWorld {
  readonly attester: Attester
  readonly log: AgentLog
  readonly clock: LeaseClock
  /** From 0 to 1, exclusive. */
  readonly random: () => number
}

/** How a claim went: `nothing` to do, `refused`, or a run that ended. */
export type Outcome = "nothing" | "refused" | "succeeded" | "failed" | "stopped"

/**
 * A host's agent: asks its manager for work, proves the machine, runs what it is given, again and again, until `stop` aborts. Its TLS key and the key that
 * signs output manifests live as long as this process; keys of runs as long as the run.
 */
export class HostAgent {
  readonly #config: AgentConfig
  readonly #world: AgentWorld
  readonly #identity: TlsIdentity
  readonly #signer: ManifestSigner
  readonly #stop: AbortSignal

  constructor(config: AgentConfig, world: AgentWorld, stop: AbortSignal) {
    this.#config = config
    this.#world = world
    this.#stop = stop
    this.#identity = createTlsIdentity(config.host)
    this.#signer = manifestSigner(generateKeyPairSync("ed25519").privateKey)
  }

  /**
   * Works until `stop` aborts, or with `once` until the first run or refusal, whose outcome it returns.
   * @throws {ProtocolError} `wrong-manager`, `wrong-tls-key`: somebody else answers, which waiting does not mend
   */
  async work(): Promise<Outcome | undefined> {
    let failures = 0
    while (!this.#stop.aborted) {
      try {
        const manager = await this.#verifyManager()
        using transport = connectVerified(manager, this.#identity)
        for (;;) {
          const { outcome, pauseSeconds } = await this.#claimOnce(transport, manager)
          failures = 0
          if (this.#config.once === true && outcome !== "nothing") return outcome
          await this.#world.clock.sleep(pauseSeconds, this.#stop)
          if (this.#stop.aborted) return undefined
        }
      } catch (error) {
        if (this.#stop.aborted) return undefined
        if (!mayMend(error)) throw error
        this.#world.log("trouble", factsOf(error))
        failures++
        await this.#world.clock.sleep(backOffSeconds(failures, this.#world.random()), this.#stop)
      }
    }
    return undefined
  }

  async #verifyManager(): Promise<VerifiedManager> {
    const { url, ...trust } = this.#config.manager
    const manager = await verifyManager(new URL(url), trust, this.#identity, { now: new Date(), signal: this.#stop })
    const { accepted } = manager
    const label = accepted === undefined ? "UNATTESTED MANAGER" : accepted.insecureLaboratory ? "INSECURE LABORATORY" : "attested"
    this.#world.log("manager-verified", { label, instance: manager.description.instance, ...(accepted === undefined ? {} : { tee: accepted.kind }) })
    return manager
  }

  async #claimOnce(transport: Transport, manager: VerifiedManager): Promise<{ readonly outcome: Outcome; readonly pauseSeconds: number }> {
    const hpke = await generateHpkeKeyPair()
    try {
      const answer = await this.#challenge(transport, manager, { purpose: "claim", host: this.#config.host })
      if (answer.kind === "message") return { outcome: await this.#claim(transport, manager, answer.message, hpke), pauseSeconds: 0 }
      const pauseSeconds = answer.retryAfterSeconds ?? idleSeconds
      this.#world.log("waiting", { seconds: pauseSeconds })
      return { outcome: "nothing", pauseSeconds }
    } catch (error) {
      if (isTooLate(error)) {
        this.#world.log("trouble", factsOf(error))
        return { outcome: "nothing", pauseSeconds: idleSeconds }
      }
      if (!isRefusal(error)) throw error
      // What was refused stays so until somebody changes the machine or the policy.
      this.#world.log("claim-refused", factsOf(error))
      return { outcome: "refused", pauseSeconds: refusedSeconds }
    } finally {
      hpke.privateKey.fill(0)
    }
  }

  /** A challenge; a host that the manager does not know yet enrols first. */
  async #challenge(transport: Transport, manager: VerifiedManager, request: ChallengeRequest): Promise<Answer<Challenge>> {
    try {
      return await this.#ask(transport, manager, request)
    } catch (error) {
      if (!(error instanceof ProblemError) || error.code !== "not-enrolled") throw error
    }
    await this.#world.attester.enrol(
      this.#config.host,
      { manager: manager.description.instance, tlsKey: this.#identity.tlsKey },
      {
        begin: (body) => transport.call(routes.beginEnrolment, { body, signal: this.#stop }),
        answer: (enrolment, body) => transport.call(routes.answerEnrolment, { params: { enrolment }, body, signal: this.#stop }),
      },
    )
    this.#world.log("enrolled", { host: this.#config.host })
    return this.#ask(transport, manager, request)
  }

  async #claim(transport: Transport, manager: VerifiedManager, challenge: Challenge, hpke: HpkeKeyPair): Promise<Outcome> {
    const { attester, clock, log } = this.#world
    const keys: SessionKeys = { hpkeKey: encodeBase64(hpke.publicKey), tlsKey: this.#identity.tlsKey }
    const { pieces, imaFrom } = challenge
    const { bundle, session } = await attester.attest({ session: challengeSession(challenge, keys), pieces, imaFrom, withBootLog: true })
    const startedAt = clock.now()
    const body = { challenge: challenge.challenge, hpkeKey: keys.hpkeKey, bundle }
    // The same claim again gives the same answer, so one that was lost on its way costs no run.
    const answer = await this.#persist(() => transport.call(routes.claimRun, { body, signal: this.#stop }), this.#stop, claimAttempts)
    const grant = verifyGrant(answer, challenge, { session, manager })
    const released = await openReleasedKeys(grant, hpke.privateKey)
    log("claim-granted", { run: grant.run, job: grant.jobName, policy: grant.policyDigest, leaseSeconds: grant.lease.seconds })
    return this.#runUnderLease(transport, manager, grant, released, keys, startedAt)
  }

  async #runUnderLease(
    transport: Transport,
    manager: VerifiedManager,
    grant: VerifiedGrant,
    released: ReleasedToJob,
    keys: SessionKeys,
    startedAt: number,
  ): Promise<Outcome> {
    const { clock, log } = this.#world
    const over = new AbortController()
    const lost = new AbortController()
    const end = AbortSignal.any([lost.signal, this.#stop])
    const lease = keepLease(
      {
        clock,
        startedAt,
        seconds: grant.lease.seconds,
        renew: (signal) => this.#renew(transport, manager, grant, keys, signal),
        mayPass,
        onRenewed: (seconds) => log("lease-renewed", { seconds }),
        onTrouble: (error) => log("lease-trouble", factsOf(error)),
      },
      AbortSignal.any([over.signal, this.#stop]),
    ).catch((error: unknown) => {
      log("lease-lost", factsOf(error))
      lost.abort(error)
    })
    try {
      const exchange = this.#exchange(transport, grant)
      const { scratch: scratchBase = defaultScratch } = this.#config
      const report = await executeRun(grant, released, { exchange, log, scratchBase, signer: this.#signer, now: () => clock.now() }, end)
      await this.#persist(() => transport.call(routes.finishRun, { params: { run: grant.run }, body: report, signal: end }), end)
      log("run-finished", { run: grant.run, status: report.status, ...(report.status === "failed" ? { reason: report.reason } : {}) })
      return report.status
    } catch (error) {
      // A refused report means that the manager has ended the run by itself.
      if (!end.aborted && !(error instanceof ProblemError)) throw error
      const reason = lost.signal.aborted ? "lease-lost" : error instanceof ProblemError ? error.code : "agent stopped"
      log("run-finished", { run: grant.run, status: "stopped", reason })
      return "stopped"
    } finally {
      over.abort()
      await lease
    }
  }

  async #renew(transport: Transport, manager: VerifiedManager, grant: VerifiedGrant, keys: SessionKeys, signal: AbortSignal): Promise<number> {
    const answer = await this.#ask(transport, manager, { purpose: "renew", host: this.#config.host, lease: grant.lease.id }, signal)
    if (answer.kind === "nothing") throw new UnavailableError("unavailable", "no challenge for a renewal")
    const challenge = answer.message
    if (
      challenge.policy !== grant.policyDigest ||
      challenge.run !== grant.run ||
      challenge.lease !== grant.lease.id ||
      challenge.job !== grant.jobName
    )
      throw new AgentError("wrong-grant", "the challenge is for another run or policy", { path: "challenge" })
    demandPieces(grant.policy, grant.job, challenge)
    const { pieces, imaFrom } = challenge
    const { bundle } = await this.#world.attester.attest({ session: challengeSession(challenge, keys), pieces, imaFrom, withBootLog: false })
    const body = { challenge: challenge.challenge, hpkeKey: keys.hpkeKey, bundle }
    const { seconds } = await transport.call(routes.renewLease, { params: { lease: grant.lease.id }, body, signal })
    return Math.min(seconds, grant.job.lease.seconds)
  }

  /** @throws {AgentError} `wrong-grant` for a challenge of another purpose or manager */
  async #ask(transport: Transport, manager: VerifiedManager, body: ChallengeRequest, signal: AbortSignal = this.#stop): Promise<Answer<Challenge>> {
    const answer = await transport.ask(routes.requestChallenge, { body, signal })
    if (answer.kind === "message" && answer.message.purpose !== body.purpose)
      throw new AgentError("wrong-grant", "the challenge is for another purpose", { path: "challenge.purpose" })
    if (answer.kind === "message" && answer.message.manager !== manager.description.instance)
      throw new AgentError("wrong-grant", "the challenge is another manager's", { path: "challenge.manager" })
    return answer
  }

  #exchange(transport: Transport, grant: VerifiedGrant): RunExchange {
    const params = { run: grant.run }
    return {
      getBlob: (digest, path, maxBytes, signal) => this.#persist(() => transport.getBlobFile(digest, path, { maxBytes, signal }), signal),
      putBlob: (digest, path, signal) => this.#persist(() => transport.putBlobFile(digest, path, signal), signal),
      reportOutput: async (body, signal) => {
        await this.#persist(() => transport.call(routes.reportOutput, { params, body, signal }), signal)
      },
      reportMetrics: async (values, signal) => {
        await transport.call(routes.reportMetrics, { params, body: { values }, signal })
      },
    }
  }

  /** Tries again until the lease ends, or so many times. */
  #persist<T>(attempt: () => Promise<T>, signal: AbortSignal, attempts = Infinity): Promise<T> {
    const { clock, random } = this.#world
    const sleep = async (milliseconds: number): Promise<void> => {
      await clock.sleep(milliseconds / 1000, signal)
      signal.throwIfAborted()
    }
    return withRetry(attempt, { attempts, baseMilliseconds: 500, maxMilliseconds: 5000, signal, random, sleep })
  }
}

/** Silence and overload pass; everything else that a manager answers is an answer. */
function mayPass(error: unknown): boolean {
  if (error instanceof ProblemError) return error.status === 429 || error.status >= 500
  return error instanceof UnavailableError && (error.code === "unavailable" || error.code === "timeout")
}

/** Somebody else was faster, the challenge grew old or the lease ran out on its way here: nothing was judged, and the next claim may go well. */
function isTooLate(error: unknown): boolean {
  return error instanceof ProblemError && tooLateCodes.has(error.code)
}

const tooLateCodes: ReadonlySet<string> = new Set(["wrong-state", "challenge-expired", "challenge-unknown", "lease-ended"])

/** The manager judged this machine, or this machine judged the grant, and the answer is no. */
function isRefusal(error: unknown): boolean {
  return (error instanceof ProblemError && error.status >= 400 && error.status < 500 && error.status !== 429) || error instanceof AgentError
}

/** Whether asking anew later makes sense: somebody else's key in the manager's place does not go away by itself. */
function mayMend(error: unknown): boolean {
  return error instanceof PerunError && error.code !== "wrong-manager" && error.code !== "wrong-tls-key"
}

function factsOf(error: unknown): Readonly<Record<string, string | readonly string[]>> {
  if (!(error instanceof PerunError)) return { code: "internal" }
  const findings = error instanceof ProblemError ? error.findings.map(findingText) : []
  return { code: error.code, message: error.message, ...(findings.length === 0 ? {} : { findings }) }
}

function findingText({ code, subject, found, expected }: WireFinding): string {
  return `${code} ${subject}: found ${found}, expected ${expected}`
}

/** 1, 2, 4 … seconds, at most 30, spread over the upper half. */
function backOffSeconds(failures: number, random: number): number {
  return Math.min(30, 2 ** (failures - 1)) * (0.5 + random / 2)
}

const idleSeconds = 5
const claimAttempts = 4
const refusedSeconds = 30
const defaultScratch = "/run/perun"
