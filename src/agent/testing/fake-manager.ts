import { createServer, type Server } from "node:https"
import { readFile } from "node:fs/promises"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { TLSSocket } from "node:tls"
import { join } from "node:path"
import type { Digest } from "../../bytes/digest.ts"
import { encodeBase64, parseBase64 } from "../../bytes/text.ts"
import { signManagerDescription } from "../../protocol/manager-description.ts"
import type { Challenge, ClaimRequest, ManagerDescription } from "../../protocol/messages.ts"
import { createTlsIdentity, peerTlsKey } from "../../protocol/tls.ts"
import { indexFileName, shardFileName } from "../../sealing/blobs.ts"
import { sessionDigest } from "../../evidence/bundle.ts"
import { challengeSession } from "../claim.ts"
import type { OpenSession } from "../evidence/attest.ts"
import { makeChallenge, makeGrant, type Study } from "./study.ts"

/** What the test manager does on a route instead of the honest thing; undefined goes on with that. */
export type Misbehave = (call: string) => { readonly status: number; readonly code?: string; readonly retryAfter?: number } | undefined

/**
 * For tests: speaks the host's part of the API over real TLS and hands out one run of a study. It believes every quote; judging evidence is the business of other
 * tests.
 */
export class FakeManager implements AsyncDisposable {
  readonly study: Study
  /** Every call, `METHOD /path` with identifiers left out. */
  readonly calls: string[] = []
  /** Bodies by call. */
  readonly bodies = new Map<string, unknown[]>()
  readonly url: string
  misbehave: Misbehave = () => undefined
  enrolled = false
  handedOut = false
  /** Changes a challenge before it is sent. */
  changeChallenge: (challenge: Challenge) => Challenge = (challenge) => challenge
  /** Changes the grant before it is sent. */
  changeGrant: (grant: object) => object = (grant) => grant
  readonly #server: Server
  readonly #description: ManagerDescription
  readonly #blobs = new Map<Digest, Uint8Array>()

  private constructor(study: Study, server: Server, port: number, description: ManagerDescription) {
    this.study = study
    this.#server = server
    this.#description = description
    this.url = `https://127.0.0.1:${port}`
  }

  static async start(study: Study): Promise<FakeManager> {
    const tls = createTlsIdentity("manager")
    const server = createServer({ key: tls.privateKeyPem, cert: tls.certificatePem, requestCert: true, rejectUnauthorized: false })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const address = server.address()
    const description: ManagerDescription = {
      perun: 1,
      instance: makeChallenge(study.policy).manager,
      key: study.manager.key,
      tlsKey: tls.tlsKey,
      depositKey: encodeBase64(new Uint8Array(1216)),
      logKey: study.manager.key,
      resultKey: "AAAA",
      configuration: `sha256:${"0".repeat(64)}`,
      vault: { kind: "key-file" },
      evidence: null,
      time: null,
    }
    const manager = new FakeManager(study, server, typeof address === "object" && address !== null ? address.port : 0, description)
    for (const { folder, signed } of Object.values(study.inputs)) {
      const { shards, index } = signed.manifest
      for (const [number, { digest }] of shards.entries()) manager.#blobs.set(digest, await readFile(join(folder, shardFileName(number))))
      manager.#blobs.set(index.digest, await readFile(join(folder, indexFileName)))
    }
    server.on("request", (request, response) => void manager.#answer(request, response))
    return manager
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /** How often a call came. */
  count(call: string): number {
    return this.calls.filter((other) => other === call).length
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? ""
    const call = `${request.method} ${path.replaceAll(/\/(?:[0-9a-f]{32}|sha256(?::|%3A)[0-9a-f]{64})/g, "/*")}`
    const chunks: Uint8Array[] = []
    for await (const chunk of request) chunks.push(chunk as Uint8Array)
    const bytes = Buffer.concat(chunks)
    this.calls.push(call)
    const fault = this.misbehave(call)
    if (fault !== undefined) return this.#send(response, fault.status, fault.status === 204 ? undefined : problem(fault), fault.retryAfter)
    if (call.startsWith("GET /v1/blobs")) return void response.end(this.#blobs.get(decodeURIComponent(path.split("/").at(-1) ?? "") as Digest))
    if (call.startsWith("HEAD /v1/blobs")) return this.#send(response, 404)
    if (call.startsWith("PUT /v1/blobs")) return this.#send(response, 201)
    const body: unknown = bytes.length === 0 ? undefined : JSON.parse(bytes.toString())
    this.bodies.set(call, [...(this.bodies.get(call) ?? []), body])
    const { status, message } = await this.#handle(call, body, peerTlsKey(request.socket as TLSSocket))
    this.#send(response, status, message)
  }

  async #handle(call: string, body: unknown, tlsKey: Digest | undefined): Promise<{ readonly status: number; readonly message?: unknown }> {
    switch (call) {
      case "GET /v1/manager":
        return { status: 200, message: signManagerDescription(this.#description, this.study.manager.privateKey) }
      case "POST /v1/challenges": {
        if (!this.enrolled) return { status: 403, message: problem({ status: 403, code: "not-enrolled" }) }
        const { purpose } = body as { readonly purpose: Challenge["purpose"] }
        if (purpose === "claim" && this.handedOut) return { status: 204 }
        return { status: 200, message: this.changeChallenge(makeChallenge(this.study.policy, purpose)) }
      }
      case "POST /v1/claims": {
        const { hpkeKey } = body as ClaimRequest
        this.handedOut = true
        const challenge = makeChallenge(this.study.policy)
        const session = tpmSession(challengeSession(challenge, { hpkeKey, tlsKey: tlsKey ?? challenge.policy }))
        return { status: 200, message: this.changeGrant(await makeGrant(this.study, challenge, session, parseBase64(hpkeKey))) }
      }
      case "POST /v1/leases/*/renew":
        return { status: 200, message: { seconds: 60 } }
      case "POST /v1/runs/*/outputs":
        return { status: 200, message: { output: "9".repeat(32) } }
      case "POST /v1/runs/*/metrics":
      case "POST /v1/runs/*/finish":
        return { status: 200, message: {} }
      default:
        return { status: 404, message: problem({ status: 404, code: "not-found" }) }
    }
  }

  #send(response: ServerResponse, status: number, message?: unknown, retryAfter?: number): void {
    response.statusCode = status
    if (retryAfter !== undefined) response.setHeader("retry-after", String(retryAfter))
    response.end(message === undefined ? undefined : JSON.stringify(message))
  }
}

/** Session digest of the test machine, which shows a TPM alone. */
export function tpmSession(session: OpenSession): Uint8Array {
  return sessionDigest({ ...session, akName: "000b" + "7".repeat(64), deviceEvidence: [] })
}

function problem({ status, code = "internal" }: { readonly status: number; readonly code?: string }): object {
  return { type: "about:blank", title: code, status, code, detail: "test" }
}
