import assert from "node:assert/strict"
import { existsSync, readFileSync, readdirSync } from "node:fs"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { verify as peerVerify } from "@phala/dcap-qvl"
import { PerunError } from "../../bytes/error.ts"
import { encodeHex, parseUtf8 } from "../../bytes/text.ts"
import { verifySgxQuote } from "../sgx/verify.ts"
import { verifyTdxQuote } from "../tdx/verify.ts"
import type { DcapCollateral, SignedDocument } from "./endorsements.ts"
import { loadIntelSgxRoot } from "./roots.ts"
import { splitSignedJson } from "./signed-json.ts"

/** `@phala/dcap-qvl` beside this verifier on every vector case: never trusted, and each difference explained. */

const vectors = resolve(import.meta.dirname, "../../..", process.env["PERUN_VECTORS"] ?? "../shared/vectors")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

/** What both say: a TCB status, `refused`, or (ours) `genuine`, where collateral is missing and the claims say so. */
interface Verdicts {
  readonly ours: string
  readonly theirs: string
}

const withoutLists = "it needs revocation lists; here their absence is a claim"
const incomplete = "it needs the whole collateral; here what is missing is a claim, and there is no merged status"
/** Cases in which the two differ, with the reason. A line that is not needed fails. */
const differences: Readonly<Record<string, Verdicts & { readonly reason: string }>> = {
  "sgx/oasis-v3-swhardening": { ours: "SWHardeningNeeded", theirs: "refused", reason: withoutLists },
  "sgx/oe-v3-tcbinfo-v2": { ours: "SWHardeningNeeded", theirs: "refused", reason: "it reads TCB info of version 3 only" },
  "sgx/trustee-occlum-quote": { ours: "genuine", theirs: "refused", reason: incomplete },
  "tdx/attestation-rs-v4-outofdate-many-advisories": { ours: "OutOfDate", theirs: "refused", reason: "it refuses a TD in debug mode; here that is a claim, which policy refuses" },
  "tdx/gce-cos113-quote-with-ccel": { ours: "genuine", theirs: "refused", reason: incomplete },
  "tdx/google-v5-uptodate": { ours: "genuine", theirs: "refused", reason: incomplete },
  "tdx/oasis-v4-uptodate-trailing": { ours: "UpToDate", theirs: "refused", reason: withoutLists },
  "tdx/trustee-v4-module03-outofdate": { ours: "OutOfDate", theirs: "refused", reason: withoutLists },
} // prettier-ignore

const cases = skip === false ? ["sgx", "tdx"].flatMap((kind) => readdirSync(join(vectors, kind)).map((name) => `${kind}/${name}`)) : []

for (const name of cases)
  test(`${name}: the same verdict as @phala/dcap-qvl, or a difference that is explained`, { skip }, () => {
    const verdicts = judge(name)
    const known = differences[name]
    assert.deepEqual(verdicts, known === undefined ? { ours: verdicts.ours, theirs: verdicts.ours } : { ours: known.ours, theirs: known.theirs })
    if (known !== undefined) assert.notEqual(known.ours, known.theirs)
  })

function judge(name: string): Verdicts {
  const read = (file: string): Uint8Array | undefined => {
    const path = join(vectors, name, file)
    return existsSync(path) ? new Uint8Array(readFileSync(path)) : undefined
  }
  const stated = JSON.parse(parseUtf8(read("expected.json") ?? new Uint8Array(0))) as { readonly verifyTime?: string | null }
  const time = Date.parse(stated.verifyTime ?? "2025-01-01T00:00:00Z")
  const quote = read("quote.bin") ?? read("quote.dat") ?? new Uint8Array(0)
  const document = (file: string): SignedDocument | undefined => {
    const [body, issuerChain] = [read(`${file}.json`), read(`${file}_issuer_chain.pem`)]
    return body === undefined || issuerChain === undefined ? undefined : { document: body, issuerChain }
  }
  const [tcbInfo, qeIdentity, rootCrl, pckCrl] = [document("tcb_info"), document("qe_identity"), read("root_ca_crl.der"), read("pck_crl.der")]
  const collateral: DcapCollateral = {
    ...(tcbInfo === undefined ? {} : { tcbInfo }),
    ...(qeIdentity === undefined ? {} : { qeIdentity }),
    ...(rootCrl === undefined ? {} : { rootCrl }),
    ...(pckCrl === undefined ? {} : { pckCrl }),
  }
  return { ours: ourVerdict(name, quote, collateral, time), theirs: theirVerdict(quote, collateral, time) }
}

function ourVerdict(name: string, quote: Uint8Array, collateral: DcapCollateral, time: number): string {
  const evidence = { quote, collateral }
  const expectation = { roots: [loadIntelSgxRoot()], time, reportData: "as-signed" } as const
  try {
    const { dcap } = name.startsWith("sgx") ? verifySgxQuote(evidence, expectation).claims : verifyTdxQuote(evidence, expectation).claims
    return dcap.tcb.status ?? "genuine"
  } catch (error) {
    if (error instanceof PerunError) return "refused"
    throw error
  }
}

function theirVerdict(quote: Uint8Array, { tcbInfo, qeIdentity, rootCrl, pckCrl }: DcapCollateral, time: number): string {
  try {
    if (tcbInfo === undefined || qeIdentity === undefined || rootCrl === undefined || pckCrl === undefined) return "refused"
    const info = splitSignedJson(tcbInfo.document, "tcbInfo")
    const identity = splitSignedJson(qeIdentity.document, "enclaveIdentity")
    const theirs = {
      pck_crl_issuer_chain: "",
      root_ca_crl: encodeHex(rootCrl),
      pck_crl: encodeHex(pckCrl),
      tcb_info_issuer_chain: parseUtf8(tcbInfo.issuerChain),
      tcb_info: parseUtf8(info.body),
      tcb_info_signature: encodeHex(info.signature),
      qe_identity_issuer_chain: parseUtf8(qeIdentity.issuerChain),
      qe_identity: parseUtf8(identity.body),
      qe_identity_signature: encodeHex(identity.signature),
    }
    const report = peerVerify(Buffer.from(quote), theirs as unknown as Parameters<typeof peerVerify>[1], Math.floor(time / 1000))
    return report.status
  } catch {
    // Whatever it throws is its way of refusing.
    return "refused"
  }
}
