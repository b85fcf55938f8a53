import { encodeHex } from "../bytes/text.ts"
import { type HashReader, inclusionProof, leafHash, nodeHash } from "../log/merkle.ts"
import { encodeNote } from "../log/note.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { fetchReceipts } from "../protocol/follow-log.ts"
import type { ManagerDescription, OutputView, Receipt, ShownReceipt } from "../protocol/messages.ts"
import { receiptLeaf, shownDigest } from "../protocol/receipts.ts"
import { type RunCertificate, verifyRunCertificate } from "../protocol/run-certificate.ts"
import { type PathValues, type RequestQuery, type ResponseBody, type Route, routes } from "../protocol/routes.ts"

/** What of a connection is needed. */
export interface CertificateConnection {
  readonly description: ManagerDescription
  call<R extends Route>(route: R, options: { readonly params?: PathValues<R["path"]>; readonly query?: RequestQuery<R> }): Promise<ResponseBody<R>>
}

/**
 * Gathers a run's certificate out of the manager's answers and judges it before it is given away.
 * @throws {ProtocolError} `wrong-state` for a run that is not over; all that verifyRunCertificate throws; {ProblemError}
 */
export async function makeRunCertificate(connection: CertificateConnection, run: string): Promise<RunCertificate> {
  const manager = await connection.call(routes.describeManager, {})
  const view = await connection.call(routes.getRun, { params: { run } })
  if (view.endedAt === undefined || view.startedAt === undefined)
    throw new ProtocolError(
      "wrong-state",
      `the run is ${view.state}${view.startedAt === undefined ? ", and no machine had its keys" : ""}; only a run that ended has a certificate`,
    )
  const policy = await connection.call(routes.getPolicy, { params: { digest: view.policy } })
  const { outputs } = await connection.call(routes.listOutputs, { query: { run } })
  const { receipts, head } = await fetchReceipts(connection)
  const read = readerOfLeaves(receipts)
  const own = receipts.flatMap(({ receipt }, index) => (receipt !== undefined && isAbout(receipt, view.policy, run) ? [{ index, receipt }] : []))
  const certificate: RunCertificate = {
    perun: 1,
    kind: "run-certificate",
    run,
    manager,
    checkpoint: encodeNote(head.note),
    policy: policy.policy,
    approvals: policy.approvals.map(({ signature, report }) => ({ signature, ...(report === undefined ? {} : { report }) })),
    receipts: own.map(({ index, receipt }) => ({ index, receipt, proof: inclusionProof(index, head.size, read).map(encodeHex) })),
    outputs: outputs.map((output) => ({ output: output.output, votes: votesOn(output) })),
  }
  verifyRunCertificate(certificate, { managers: [connection.description.key] })
  return certificate
}

/** Of the policy's receipts those of other runs say nothing here. */
function isAbout(receipt: Receipt, policy: string, run: string): boolean {
  return receipt.policy === policy && (receipt.run === undefined || receipt.run === run)
}

function votesOn({ signatures, checks }: OutputView): RunCertificate["outputs"][number]["votes"] {
  return signatures.map((signature) => {
    const report = checks.find((check) => check.report.signature.key === signature.key)?.report
    return { signature, ...(report === undefined ? {} : { report }) }
  })
}

/** Hashes of a tree out of all its leaves, each computed once. */
function readerOfLeaves(receipts: readonly ShownReceipt[]): HashReader {
  const levels: Uint8Array[][] = [receipts.map((shown, index) => leafHash(receiptLeaf(index, shownDigest(index, shown))))]
  return (height, index) => {
    for (let level = levels.length; level <= height; level++) {
      const below = levels[level - 1] ?? []
      levels.push(
        Array.from({ length: Math.floor(below.length / 2) }, (_, at) =>
          nodeHash(below[2 * at] ?? new Uint8Array(), below[2 * at + 1] ?? new Uint8Array()),
        ),
      )
    }
    const hash = levels[height]?.[index]
    if (hash === undefined) throw new TypeError("internal: the tree has no such hash")
    return hash
  }
}
