import { Hono } from "hono"
import { concatBytes } from "../bytes/compare.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { routes } from "../protocol/routes.ts"
import { parseMessage, parseShape } from "../protocol/wire.ts"
import type { PeerBindings } from "./api.ts"
import { bodyChunks, jsonResponse } from "./http.ts"
import type { VaultLock } from "./lock.ts"
import { type Observed, observeCalls, problemAnswer, type Watching } from "./observed-app.ts"

type Env = { Bindings: PeerBindings; Variables: Observed }

/** What a manager answers while its vault is locked: whether it is, what it is, and shares taken. Everything else is `locked` (503). */
export function createLockedApp(lock: VaultLock, watching: Watching): Hono<Env> {
  const { health, lockState, unlockManager } = routes
  const app = new Hono<Env>()
  app.use(observeCalls(watching))
  app.get(health.path, (c) => {
    c.set("route", "health")
    demandLocked(lock)
    return jsonResponse({ ok: false, state: "locked" })
  })
  app.get(lockState.path, async (c) => {
    c.set("route", "lockState")
    demandLocked(lock)
    const { nonce } = parseShape(lockState.query, c.req.query())
    return jsonResponse(await lock.show(nonce, c.env.peerAddress))
  })
  app.post(unlockManager.path, async (c) => {
    c.set("route", "unlockManager")
    const parts: Uint8Array[] = []
    for await (const chunk of bodyChunks(c.req.raw, unlockManager.maxBodyBytes)) parts.push(chunk)
    const request = parseMessage(unlockManager.body, concatBytes(...parts), unlockManager.maxBodyBytes)
    return jsonResponse(await lock.take(request, c.env.peerAddress))
  })
  app.notFound((c) => {
    demandLocked(lock)
    const { present, shares } = lock.description
    return problemAnswer(
      c,
      new ProtocolError(
        "locked",
        `the manager is locked: ${present} of the ${shares.threshold} custodians that it takes have unlocked it (perun manager unlock)`,
      ),
    )
  })
  app.onError((error, c) => problemAnswer(c, error))
  return app
}

/** Connections from before end at a key that the manager no longer has. */
function demandLocked(lock: VaultLock): void {
  if (lock.isUnlocked) throw new ProtocolError("wrong-state", "this manager was unlocked meanwhile; connect again")
}
