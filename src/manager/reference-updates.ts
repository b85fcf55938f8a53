import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { verifyStatement, type StatementSignature } from "../pki/statement.ts"
import { stakeholderOfKey } from "../policy/approval.ts"
import { checkPolicy } from "../policy/check.ts"
import { artifactOwners, own, type Policy } from "../policy/document.ts"
import { PolicyError } from "../policy/errors.ts"
import { parseReferenceValue, type Reference, referenceDigest } from "../policy/reference.ts"
import {
  acceptedReferences,
  beyondScope,
  delegations,
  type ReferencePiece,
  referencePieces,
  referencePlace,
  type ReplacedReferences,
  updateDigest,
} from "../policy/reference-updates.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { PolicyView, ReferenceUpdateRequest, ReferenceUpdateView } from "../protocol/messages.ts"
import { type ManagerContext, type Reader, type StakeholderCaller, transact } from "./context.ts"
import { demandRoomForDocuments, sizeOf } from "./documents.ts"
import { appendReceipt } from "./receipts.ts"
import type { RecordOf } from "./records.ts"
import { demandActive, demandStakeholder, readStanding, signerOf } from "./standing.ts"

/** Updates of one place, ever. Each may hold 32 MB. */
const maxUpdates = 32

type UpdateRecord = RecordOf<"referenceUpdates">

/** Updates of one place, oldest first; those that were taken back do not count. */
function updatesOf(reader: Reader, policy: Digest, machine: string, piece: ReferencePiece): readonly UpdateRecord[] {
  return allUpdatesOf(reader, policy)
    .filter((record) => record.machine === machine && record.piece === piece)
    .filter(({ withdrawn }) => withdrawn === undefined)
}

function allUpdatesOf(reader: Reader, policy: Digest): readonly UpdateRecord[] {
  const records = reader.list("referenceUpdates").filter((record) => record.policy === policy)
  return records.toSorted((a, b) => a.number - b.number)
}

/** Documents that a place may be held against now, newest first. */
function accepted(
  context: ManagerContext,
  reader: Reader,
  digest: Digest,
  policy: Policy,
  machine: string,
  piece: ReferencePiece,
): readonly Digest[] {
  const place = referencePlace(policy, machine, piece)
  if (place === undefined) return []
  const updates = updatesOf(reader, digest, machine, piece).map(({ reference, at }) => ({ reference, at: Date.parse(at) }))
  return acceptedReferences(place, updates, context.time.now().getTime())
}

/** What a run's machine may be held against now: each pair of documents that stand, newest first. One pair, of nothing replaced, for a machine without a TPM. */
export function candidatesFor(context: ManagerContext, reader: Reader, digest: Digest, job: string): readonly ReplacedReferences[] {
  const policy = context.documents.policy(reader, digest)
  const machine = own(policy.jobs, job)?.machine ?? ""
  const standing = (piece: ReferencePiece): readonly ReplacedReferences[] => {
    const named = referencePlace(policy, machine, piece)?.reference
    const documents = accepted(context, reader, digest, policy, machine, piece)
    return documents.length === 0 ? [{}] : documents.map((document) => (document === named ? {} : { [piece]: document }))
  }
  return standing("boot").flatMap((boot) => standing("ima").map((ima) => ({ ...boot, ...ima })))
}

/** Whether documents that a machine was granted under still stand. */
export function stillStands(context: ManagerContext, reader: Reader, digest: Digest, job: string, { boot, ima }: ReplacedReferences): boolean {
  return candidatesFor(context, reader, digest, job).some((candidate) => candidate.boot === boot && candidate.ima === ima)
}

/**
 * Takes a delegate's document for one place of an active policy. The same again changes nothing.
 * @throws {PkiError} for a signature that does not verify; {PolicyError} `invalid-reference`
 * @throws {ProtocolError} `not-found`, `not-permitted`, `policy-…`, `wrong-state`, `limit-exceeded`
 */
export function updateReference(
  context: ManagerContext,
  caller: StakeholderCaller,
  digest: Digest,
  request: ReferenceUpdateRequest,
): ReferenceUpdateView {
  const { machine, piece, replaces, signature } = request
  const { policy } = readStanding(context, context.store, digest)
  demandStakeholder(policy, caller)
  const place = referencePlace(policy, machine, piece)
  if (place === undefined) throw new ProtocolError("not-found", `the policy has no ${piece} reference of a machine ${machine}`)
  const { updates: delegation } = place
  if (delegation === undefined)
    throw new ProtocolError("not-permitted", `nobody may update the ${piece} reference of ${machine}; sign a successor policy`, { path: "machine" })
  const reference = parseReferenceValue(request.reference)
  const named = referenceDigest(reference)
  if (named !== digestOfJson(request.reference)) throw new TypeError("internal: parsing changed the reference")
  const update = updateDigest({ policy: digest, machine, piece, replaces, reference: named })
  const by = stakeholderOfKey(policy, verifyStatement("reference", update, signature))
  if (by !== delegation.by)
    throw new ProtocolError("not-permitted", `only ${delegation.by} may update the ${piece} reference of ${machine}`, { path: "signature.key" })
  const storedBytes = sizeOf(request.reference)
  return transact(context, (tx) => {
    const standing = readStanding(context, tx, digest)
    demandActive(standing)
    if (standing.withdrawn.has(by)) throw new ProtocolError("policy-withdrawn", `${by} has withdrawn from this policy`)
    const known = tx.get("referenceUpdates", update)
    if (known?.withdrawn !== undefined) throw new ProtocolError("wrong-state", `this update was taken back by ${known.withdrawn.by}, for good`)
    if (known !== undefined) return viewOf(known)
    const now = context.time.now()
    if (now.getTime() >= Date.parse(delegation.until))
      throw new ProtocolError("not-permitted", `the delegation ended at ${delegation.until}; sign a successor policy`, { path: "machine" })
    const [newest] = accepted(context, tx, digest, policy, machine, piece)
    if (newest !== replaces) throw new ProtocolError("wrong-state", `it replaces ${replaces}, but ${newest ?? "nothing"} stands there now`)
    const before = context.documents.references(tx, policy, [replaces]).get(replaces)
    if (before === undefined) throw new TypeError("internal: a reference that stands is gone")
    demandInScope(policy, machine, piece, { before, after: reference, context, tx })
    const { length: number } = allUpdatesOf(tx, digest)
    const ever = allUpdatesOf(tx, digest).filter((record) => record.machine === machine && record.piece === piece).length
    if (ever >= maxUpdates) throw new ProtocolError("limit-exceeded", `this place was updated ${maxUpdates} times; sign a successor policy`)
    demandRoomForDocuments(tx, storedBytes)
    if (tx.get("references", named) === undefined) tx.put("references", named, request.reference)
    const at = context.time.nowText()
    const record: UpdateRecord = { update, policy: digest, machine, piece, replaces, reference: named, by, at, signature, number, storedBytes }
    tx.put("referenceUpdates", update, record)
    appendReceipt(context, tx, { kind: "reference-updated", policy: digest, by, update, place: { machine, piece }, replaces, reference: named })
    return viewOf(record)
  })
}

interface ScopeFacts {
  readonly before: Reference
  readonly after: Reference
  readonly context: ManagerContext
  readonly tx: Reader
}

/** What a delegate may change, and that a machine could meet what comes of it. @throws {ProtocolError} `not-permitted`, {PolicyError} `invalid-reference` */
function demandInScope(policy: Policy, machine: string, piece: ReferencePiece, { before, after, context, tx }: ScopeFacts): void {
  const place = referencePlace(policy, machine, piece)
  if (place?.updates === undefined) throw new TypeError("internal: a place that nobody may update")
  const beyond = beyondScope(before, after, place.updates)
  if (beyond.length > 0)
    throw new ProtocolError("not-permitted", `the update changes more than was delegated: ${beyond.slice(0, 8).join(", ")}`, { path: "reference" })
  // As if the policy named it: what `policy check` refuses in a reference is refused here too.
  const named = referenceDigest(after)
  const references = new Map([...context.documents.references(tx, policy), [named, after] as const])
  const problems = checkPolicy(withReference(policy, machine, piece, named), { time: context.time.now(), references })
  const ofReference = problems.filter(({ field }) => field.startsWith(`machines.${machine}.`))
  if (ofReference.length > 0) throw new PolicyError("invalid-reference", ofReference)
}

function withReference(policy: Policy, name: string, piece: ReferencePiece, reference: Digest): Policy {
  const machine = own(policy.machines, name)
  if (machine === undefined) return policy
  const changed =
    machine.level !== "enclave"
      ? { ...machine, [piece]: { ...machine[piece], reference } }
      : machine.guest === "none"
        ? machine
        : { ...machine, guest: { ...machine.guest, [piece]: { ...machine.guest[piece], reference } } }
  return { ...policy, machines: { ...policy.machines, [name]: changed } }
}

/**
 * Takes an update back, for ever: what stood there before it stands again. Its delegate may, and every owner of an artifact.
 * @throws {PkiError} for a signature that does not verify
 * @throws {ProtocolError} `not-found`, `not-permitted`
 */
export function withdrawReference(
  context: ManagerContext,
  caller: StakeholderCaller,
  digest: Digest,
  update: Digest,
  signature: StatementSignature,
): ReferenceUpdateView {
  const { policy } = readStanding(context, context.store, digest)
  demandStakeholder(policy, caller)
  const by = signerOf(policy, "withdraw", update, signature)
  return transact(context, (tx) => {
    const record = tx.get("referenceUpdates", update)
    if (record === undefined || record.policy !== digest) throw new ProtocolError("not-found", `there is no update ${update} of this policy`)
    if (by !== record.by && !artifactOwners(policy).includes(by))
      throw new ProtocolError("not-permitted", "an update is taken back by its delegate or an owner", { path: "signature.key" })
    if (record.withdrawn !== undefined) return viewOf(record)
    const withdrawn: UpdateRecord = { ...record, withdrawn: { by, at: context.time.nowText(), signature } }
    tx.put("referenceUpdates", update, withdrawn)
    const { machine, piece, replaces, reference } = record
    appendReceipt(context, tx, { kind: "reference-update-withdrawn", policy: digest, by, update, place: { machine, piece }, replaces, reference })
    return viewOf(withdrawn)
  })
}

function viewOf({ storedBytes: _bytes, number: _number, ...view }: UpdateRecord): ReferenceUpdateView {
  return view
}

/** What a party sees of a policy's updates. */
export function referencesOf(context: ManagerContext, reader: Reader, digest: Digest): Pick<PolicyView, "referenceUpdates" | "acceptedReferences"> {
  const policy = context.documents.policy(reader, digest)
  return {
    referenceUpdates: allUpdatesOf(reader, digest).map(viewOf),
    acceptedReferences: delegations(policy).map(({ machine, piece }) => ({
      machine,
      piece,
      references: [...accepted(context, reader, digest, policy, machine, piece)],
    })),
  }
}

/** A document that a policy or an update of it names, for its parties. @throws {ProtocolError} `not-found`, `not-permitted` */
export function viewReference(context: ManagerContext, caller: StakeholderCaller, digest: Digest, reference: Digest): RecordOf<"references"> {
  const { policy, record } = readStanding(context, context.store, digest)
  demandStakeholder(policy, caller)
  const isNamed = record.references.includes(reference) || allUpdatesOf(context.store, digest).some((update) => update.reference === reference)
  const document = isNamed ? context.store.get("references", reference) : undefined
  if (document === undefined) throw new ProtocolError("not-found", `the policy names no reference ${reference}`)
  return document
}

/** For the judge: what must be at hand to hold a machine against each candidate. */
export function documentsOf(candidates: readonly ReplacedReferences[]): readonly Digest[] {
  return candidates.flatMap((candidate) => referencePieces.flatMap((piece) => candidate[piece] ?? []))
}
