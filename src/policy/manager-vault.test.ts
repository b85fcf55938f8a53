import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { checkPolicy } from "./check.ts"
import { diffPolicies } from "./diff.ts"
import type { Policy } from "./document.ts"
import { explainPolicy, explanationText } from "./explain.ts"
import { now, policy, references, tdxDemand } from "./fixtures.testing.ts"
import { managerVaultSchema, vaultDifferences, vaultWords, type ManagerVault, type VaultDemand } from "./manager-vault.ts"
import { parsePolicy } from "./parse.ts"

const keys = Object.values(policy.stakeholders).map(({ keys: [key] }) => key ?? "")
const names = Object.keys(policy.stakeholders)
const [keyA = "", keyB = ""] = keys
const stranger = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGQ8fStKst1/7DwYOM9xMr62eFhUsUv4tQ3f3rPsRJ2X"
const custodian = (name: string, key: string) => ({ name, key })
const shares: ManagerVault = { kind: "shares", threshold: 2, custodians: [custodian("a", keyA), custodian("b", keyB)] }
const wanted: VaultDemand = { shares: { threshold: 2, custodians: [keyA, keyB] } }

test("vaultDifferences() takes only kinds that are demanded", () => {
  const enclave = { kind: "tee-sealing", to: "mrenclave" } as const
  const signer = { kind: "tee-sealing", to: "mrsigner" } as const
  const table: readonly (readonly [ManagerVault, VaultDemand, boolean])[] = [
    [{ kind: "tpm" }, "tpm", true],
    [{ kind: "key-file" }, "tpm", false],
    [{ kind: "tpm" }, "shares", false],
    [shares, "shares", true],
    [shares, "tee-sealing", false],
    [enclave, "tee-sealing", true],
    [signer, "tee-sealing", false],
    [signer, "tee-sealing-mrsigner", true],
    [enclave, "tee-sealing-mrsigner", true],
    [{ kind: "key-file" }, "tee-sealing-mrsigner", false],
    [shares, wanted, true],
    [{ kind: "tpm" }, wanted, false],
  ]
  for (const [found, demand, isMet] of table)
    assert.equal(vaultDifferences(found, [demand]).length === 0, isMet, `${JSON.stringify(found)} ${JSON.stringify(demand)}`)
  assert.deepEqual(vaultDifferences({ kind: "tpm" }, ["shares", "tpm"]), [])
  assert.deepEqual(vaultDifferences({ kind: "key-file" }, ["shares", "tpm"]), ["vault: found key-file, expected shares or tpm"])
})

test("vaultDifferences() wants as many custodians to act together, and none that the policy does not name", () => {
  const three = { ...shares, custodians: [custodian("a", keyA), custodian("b", keyB), custodian("c", stranger)] }
  assert.deepEqual(vaultDifferences({ ...shares, threshold: 3 }, [wanted]), [])
  assert.match(vaultDifferences(three, [wanted]).join(), /found shares, 2 of .*expected shares, at least 2 of no others than/)
  assert.equal(vaultDifferences(shares, [{ shares: { threshold: 3, custodians: [keyA, keyB, stranger] } }]).length, 1)
})

test("managerVaultSchema refuses one share that is the whole key, and a single custodian", () => {
  assert.ok(managerVaultSchema.safeParse(shares).success)
  for (const wrong of [
    { ...shares, threshold: 1 },
    { ...shares, threshold: 17 },
    { ...shares, custodians: [custodian("a", keyA)] },
    { ...shares, custodians: Array.from({ length: 17 }, (_, index) => custodian(`c${index}`, keyA)) },
    { kind: "shares" },
    { kind: "key-file", key: "AAAA" },
    { kind: "tee-sealing", to: "mrtd" },
  ])
    assert.ok(!managerVaultSchema.safeParse(wrong).success, JSON.stringify(wrong))
})

test("vaultWords() says of a key file and of a signer's sealing key who can read them", () => {
  assert.match(vaultWords({ kind: "key-file" }), /whoever reads this machine's disk/)
  assert.match(vaultWords({ kind: "tee-sealing", to: "mrsigner" }), /every enclave of this signer/)
  assert.match(vaultWords(shares), /^nowhere on disk: 2 of a, b/)
})

const demanding = (vault?: unknown): Policy =>
  parsePolicy(encodeUtf8(JSON.stringify({ ...policy, manager: { accept: [{ tdx: tdxDemand }], ...(vault === undefined ? {} : { vault }) } })), "json")
    .policy

test("parsePolicy() takes demands on the manager's vault, and no key file among them", () => {
  assert.deepEqual(demanding(["tpm", wanted]).manager, { accept: [{ tdx: tdxDemand }], vault: ["tpm", wanted] })
  for (const vault of [
    [],
    "tpm",
    ["key-file"],
    [{ shares: {} }],
    [{ shares: { threshold: 1, custodians: [keyA, keyB] } }],
    [{ shares: { threshold: 2, custodians: [keyA] } }],
    [{ shares: { threshold: 2, custodians: ["a", "b"] } }],
    [{ shares: { threshold: 2, custodians: [keyA, keyB], more: 1 } }],
    null,
  ])
    assert.throws(() => demanding(vault), { code: "invalid-policy" }, JSON.stringify(vault))
  const keyed = { ...policy, manager: { ...policy.manager, vault: ["tpm"] } }
  assert.throws(() => parsePolicy(encodeUtf8(JSON.stringify(keyed)), "json"), { code: "invalid-policy" })
})

test("checkPolicy() refuses demands on the vault that stand twice, or that nobody can meet", () => {
  const found = (vault: readonly VaultDemand[]): readonly string[] =>
    checkPolicy(demanding(vault), { time: now, references }).map(({ code, field }) => `${code} ${field}`)
  assert.deepEqual(found(["tpm", wanted]), [])
  assert.deepEqual(found(["tpm", "tpm"]), ["duplicate manager.vault.1"])
  assert.deepEqual(found([{ shares: { threshold: 2, custodians: [keyA, keyA] } }]), ["duplicate manager.vault.0.shares.custodians.1"])
  assert.deepEqual(found([{ shares: { threshold: 3, custodians: [keyA, keyB] } }]), ["wrong-value manager.vault.0.shares.threshold"])
  assert.deepEqual(found([{ shares: { threshold: 2, custodians: [keyA, `${stranger.slice(0, -4)}AAAA=`] } }]).length, 1)
})

test("explainPolicy() says what the manager's operator needs to read the vault key", () => {
  const words = (vault?: readonly VaultDemand[]): string =>
    explanationText(explainPolicy(demanding(vault)))
      .split("\n")
      .find((line) => line.includes("manager's operator")) ?? ""
  assert.match(words(), /never, unless they can read its disk, where its vault key may lie: this policy does not say where it must not$/)
  assert.match(
    words([wanted]),
    new RegExp(`never, unless 2 of ${names[0]}, ${names[1]} help them, or they made its folder outside its TEE and kept its keys$`),
  )
  assert.match(words([{ shares: { threshold: 2, custodians: [keyA, stranger] } }]), /never, unless 2 of \S+, ssh-ed25519 AAAA\S+ help them/)
  assert.match(words(["shares"]), /whom this policy does not name/)
  assert.match(
    words(["tpm", "tee-sealing-mrsigner"]),
    /its TPM is one that they can ask or imitate, or they hold the key that its enclave is signed with/,
  )
  assert.match(words(["tee-sealing"]), /they break the enclave/)
})

test("diffPolicies() says that other demands are made on the manager's vault", () => {
  const [change, ...more] = diffPolicies(demanding(["shares"]), demanding(["shares", "tpm"])).fields
  assert.match(change?.words ?? "", /where the manager's vault key comes from/)
  assert.deepEqual(more, [])
})
