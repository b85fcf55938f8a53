import { verify } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { verify as peerVerify } from "@phala/dcap-qvl"
import { viewOf } from "../src/bytes/view.ts"
import { encodeHex, parseUtf8 } from "../src/bytes/text.ts"
import { readChain } from "../src/evidence/dcap/certificates.ts"
import type { DcapCollateral } from "../src/evidence/dcap/endorsements.ts"
import { loadIntelSgxRoot } from "../src/evidence/dcap/roots.ts"
import { splitSignedJson } from "../src/evidence/dcap/signed-json.ts"
import { parseTdxQuote } from "../src/evidence/tdx/format.ts"
import { verifyTdxQuote } from "../src/evidence/tdx/verify.ts"
import { parseCertificate } from "../src/pki/certificate.ts"
import type { Certificate } from "../src/pki/certificate.ts"
import { parseRevocationList } from "../src/pki/crl.ts"
import { ecPublicKey, spkiPublicKey } from "../src/pki/signatures.ts"
import type { BenchRow } from "./row.ts"

/**
 * Verification of a TDX quote with the whole of its collateral (a real one, from the test vectors) against the bare cost of its signature checks: the nine
 * signatures and the five keys that come with the evidence, nothing read and nothing compared. `@phala/dcap-qvl` does the same work beside it. No row where
 * the vectors are absent.
 */
export async function benchDcap(): Promise<readonly BenchRow[]> {
  const folder = join(process.env["PERUN_VECTORS"] ?? "../shared/vectors", "tdx", "flashbots-gcp-v4-uptodate")
  const names = [
    "quote.bin",
    "tcb_info.json",
    "tcb_info_issuer_chain.pem",
    "qe_identity.json",
    "qe_identity_issuer_chain.pem",
    "root_ca_crl.der",
    "pck_crl.der",
  ]
  let files: readonly Uint8Array[]
  try {
    files = await Promise.all(names.map(async (name) => new Uint8Array(await readFile(join(folder, name)))))
  } catch {
    console.error(`bench/dcap: skipped, no vectors in ${folder}`)
    return []
  }
  const [quote, info, infoChain, identity, identityChain, rootCrl, pckCrl] = files
  if (!quote || !info || !infoChain || !identity || !identityChain || !rootCrl || !pckCrl) return []
  const time = Date.parse("2026-01-27T10:19:01Z")
  const collateral = {
    tcbInfo: { document: info, issuerChain: infoChain },
    qeIdentity: { document: identity, issuerChain: identityChain },
    rootCrl,
    pckCrl,
  }
  const expectation = { roots: [loadIntelSgxRoot()], time, reportData: "as-signed" } as const
  const evidence = { quote, collateral }
  const theirs = peerCollateral(collateral)
  const input = Buffer.from(quote)
  const bare = bareSignatureChecks(quote, collateral)
  const measured = medians([() => bare(), () => void verifyTdxQuote(evidence, expectation), () => void peerVerify(input, theirs, time / 1000)])
  const [least = Number.NaN, whole = Number.NaN, peer = Number.NaN] = measured
  return [
    { name: "DCAP: bare signature checks of a TDX quote with its collateral", value: least, unit: "ms" },
    { name: "DCAP: whole verification", value: whole, unit: "ms", ratio: whole / least, against: "bare signature checks", goal: "< 2 ms, <= 1.5x" },
    { name: "DCAP: @phala/dcap-qvl", value: peer, unit: "ms", ratio: peer / whole, against: "whole verification" },
  ]
}

/** Every signature of the evidence, by keys that are loaded from their bytes each time but for the root's, as no verifier can do with less. */
function bareSignatureChecks(quoteBytes: Uint8Array, collateral: Required<Omit<DcapCollateral, "pckChain">>): () => void {
  const { signed, signature } = parseTdxQuote(quoteBytes)
  const [leaf, authority] = readChain(signature.certification.data, 3, "chain").map((der) => parseCertificate(der))
  const [signer] = readChain(collateral.tcbInfo.issuerChain, 2, "chain").map((der) => parseCertificate(der))
  const root = spkiPublicKey(loadIntelSgxRoot().certificate.spki)
  const rootList = parseRevocationList(collateral.rootCrl)
  const pckList = parseRevocationList(collateral.pckCrl)
  const info = splitSignedJson(collateral.tcbInfo.document, "tcbInfo")
  const identity = splitSignedJson(collateral.qeIdentity.document, "enclaveIdentity")
  if (leaf === undefined || authority === undefined || signer === undefined) throw new Error("internal: the vector has no chain")
  const [x, y] = [viewOf(signature.attestationKey, 0, 32), viewOf(signature.attestationKey, 32, 32)]
  const raw = (key: KeyObject, message: Uint8Array, value: Uint8Array): void =>
    check(verify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, value))
  const der = (key: KeyObject, { tbs, signature: value }: Pick<Certificate, "tbs" | "signature">): void => check(verify("sha256", tbs, key, value))
  return () => {
    const [leafKey, authorityKey, signerKey] = [spkiPublicKey(leaf.spki), spkiPublicKey(authority.spki), spkiPublicKey(signer.spki)]
    der(authorityKey, leaf)
    der(root, authority)
    der(root, signer)
    der(root, rootList)
    der(authorityKey, pckList)
    raw(signerKey, info.body, info.signature)
    raw(signerKey, identity.body, identity.signature)
    raw(leafKey, signature.qeReport, signature.qeReportSignature)
    raw(ecPublicKey("P-256", x, y), signed, signature.signature)
  }
}

function check(isRight: boolean): void {
  if (!isRight) throw new Error("internal: a signature of the vector does not verify")
}

function peerCollateral({ tcbInfo, qeIdentity, rootCrl, pckCrl }: Required<Omit<DcapCollateral, "pckChain">>): Parameters<typeof peerVerify>[1] {
  const info = splitSignedJson(tcbInfo.document, "tcbInfo")
  const identity = splitSignedJson(qeIdentity.document, "enclaveIdentity")
  return {
    pck_crl_issuer_chain: "",
    root_ca_crl: encodeHex(rootCrl),
    pck_crl: encodeHex(pckCrl),
    tcb_info_issuer_chain: parseUtf8(tcbInfo.issuerChain),
    tcb_info: parseUtf8(info.body),
    tcb_info_signature: encodeHex(info.signature),
    qe_identity_issuer_chain: parseUtf8(qeIdentity.issuerChain),
    qe_identity: parseUtf8(identity.body),
    qe_identity_signature: encodeHex(identity.signature),
  } as unknown as Parameters<typeof peerVerify>[1]
}

/** Milliseconds of each work, the median of rounds that take turns, so that what disturbs the machine disturbs all alike. */
function medians(works: readonly (() => void)[]): readonly number[] {
  for (const work of works) for (let round = 0; round < 200; round++) work()
  const times: number[][] = works.map(() => [])
  for (let round = 0; round < rounds; round++)
    works.forEach((work, at) => {
      const started = performance.now()
      for (let time = 0; time < perRound; time++) work()
      times[at]?.push((performance.now() - started) / perRound)
    })
  return times.map((values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN)
}

const rounds = 41
const perRound = 10
