import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { encodeVerifierKey } from "../log/note.ts"
import { ed25519PublicBytes } from "../pki/signatures.ts"
import { diffPolicies } from "./diff.ts"
import type { Policy } from "./document.ts"
import { explainPolicy, explanationText } from "./explain.ts"
import { policy, tdxDemand } from "./fixtures.testing.ts"
import { witnessDemandOf } from "./manager-witnesses.ts"
import { parsePolicy } from "./parse.ts"

function keyText(name: string, type: 1 | 4 = 4, publicKey = ed25519PublicBytes(generateKeyPairSync("ed25519").publicKey)): string {
  return encodeVerifierKey({ name, type, publicKey })
}

const [hospital, state] = [keyText("hospital.example/w"), keyText("state.example/w")]
const demanded = { keys: [hospital, state], atLeast: 1, maxAgeSeconds: 60 }

const attested = (witnesses?: unknown): Policy =>
  parsePolicy(
    encodeUtf8(JSON.stringify({ ...policy, manager: { accept: [{ tdx: tdxDemand }], ...(witnesses === undefined ? {} : { witnesses }) } })),
    "json",
  ).policy

test("a policy names witnesses of its manager's log, each once, as many as it demands", () => {
  assert.deepEqual(attested(demanded).manager, { accept: [{ tdx: tdxDemand }], witnesses: demanded })
  assert.ok(!("witnesses" in attested().manager))
  const publicKey = ed25519PublicBytes(generateKeyPairSync("ed25519").publicKey)
  for (const wrong of [
    null,
    {},
    { ...demanded, keys: [] },
    { ...demanded, atLeast: 0 },
    { ...demanded, atLeast: 3 },
    { ...demanded, maxAgeSeconds: 4 },
    { ...demanded, maxAgeSeconds: 86_401 },
    { ...demanded, more: 1 },
    { ...demanded, keys: [hospital, hospital] },
    // One operator under two names would count twice.
    { ...demanded, keys: [keyText("a.example/w", 4, publicKey), keyText("b.example/w", 4, publicKey)] },
    // The key of a log is none of a witness.
    { ...demanded, keys: [hospital, keyText("log.example", 1)] },
    { ...demanded, keys: [hospital.replace("+", "+0")] },
  ])
    assert.throws(() => attested(wrong), { code: "invalid-policy" }, JSON.stringify(wrong))
  const keyed = { ...policy, manager: { ...policy.manager, witnesses: demanded } }
  assert.throws(() => parsePolicy(encodeUtf8(JSON.stringify(keyed)), "json"), { code: "invalid-policy" })
})

test("witnessDemandOf() reads the keys", () => {
  const { witnesses, ...counts } = witnessDemandOf(demanded)
  assert.deepEqual(witnesses.map(encodeVerifierKey), [hospital, state])
  assert.deepEqual(counts, { atLeast: 1, maxAgeSeconds: 60 })
})

test("explainPolicy() says who must have seen the log, or that nobody has to", () => {
  assert.match(explanationText(explainPolicy(attested(demanded))), /log seen by 1 of hospital\.example\/w, state\.example\/w must have cosigned it/)
  assert.match(explanationText(explainPolicy(attested())), /log seen by nobody outside has to/)
  assert.match(explanationText(explainPolicy(policy)), /log seen by nobody can be demanded of a manager that proves nothing/)
})

test("diffPolicies() names what a change of witnesses does", () => {
  const words = (before: Policy, after: Policy): string => JSON.stringify(diffPolicies(before, after))
  assert.match(words(attested(demanded), attested()), /no witness has to see the manager's log any more/)
  assert.match(words(attested(), attested(demanded)), /the manager's log is seen by 1 of hospital/)
  assert.match(words(attested(demanded), attested({ ...demanded, atLeast: 2 })), /seen by 2 of hospital/)
  assert.doesNotMatch(words(attested(demanded), attested(demanded)), /witness/)
})
