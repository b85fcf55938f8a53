import { constants, verify } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { certificateKey, parseCertificate, parsePemCertificates } from "../src/pki/certificate.ts"
import type { Certificate } from "../src/pki/certificate.ts"
import { spkiPublicKey } from "../src/pki/signatures.ts"
import { parseSnpReport } from "../src/evidence/snp/format.ts"
import { loadAmdRoots } from "../src/evidence/snp/roots.ts"
import { verifySnpReport } from "../src/evidence/snp/verify.ts"
import type { BenchRow } from "./row.ts"

/**
 * Verification of a whole SNP report with its chain, from bytes (report, DER and PEM of real machines, from the test vectors), against the bare cost of its signature checks:
 * ASK by ARK and VCEK by ASK (RSA of 4096 bits), report by VCEK (P-384), with the two keys loaded that come with the evidence. No row where the vectors are absent.
 */
export async function benchSnp(): Promise<readonly BenchRow[]> {
  const folder = join(process.env["PERUN_VECTORS"] ?? "../shared/vectors", "snp", "azure-turin-host-data")
  let bytes: Uint8Array
  let der: Uint8Array
  let askPem: string
  try {
    bytes = new Uint8Array(await readFile(join(folder, "report.bin")))
    der = new Uint8Array(await readFile(join(folder, "vcek.der")))
    askPem = await readFile(join(folder, "ask.pem"), "utf8")
  } catch {
    console.error(`bench/snp: skipped, no vectors in ${folder}`)
    return []
  }
  const roots = loadAmdRoots()
  const ark = roots.find(({ product }) => product === "Turin")?.certificate
  const [ask] = parsePemCertificates(askPem)
  if (ark === undefined || ask === undefined) return []
  const vcek = parseCertificate(der)
  const time = vcek.notBefore
  const whole = (): void => {
    const endorsements = { signer: parseCertificate(der), intermediates: parsePemCertificates(askPem), revocationLists: [] }
    verifySnpReport({ report: bytes, endorsements }, { reportData: "as-signed", roots, time })
  }
  const { signedBytes, signature } = parseSnpReport(bytes)
  const arkKey = certificateKey(ark)
  const least = (): void => {
    checkRsa(arkKey, ask)
    checkRsa(spkiPublicKey(ask.spki), vcek)
    verify("sha384", signedBytes, { key: spkiPublicKey(vcek.spki), dsaEncoding: "ieee-p1363" }, signature)
  }
  const [leastRate = 0, wholeRate = 0] = perSecond(least, whole)
  return [
    { name: "snp: least work, three signatures with their keys", value: leastRate, unit: "/s" },
    {
      name: "snp: whole verification",
      value: wholeRate,
      unit: "/s",
      ratio: leastRate / wholeRate,
      against: "cost of the least work",
      goal: "<= 1.5x",
    },
  ]
}

function checkRsa(key: KeyObject, { tbs, signature }: Certificate): void {
  verify("sha384", tbs, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 48 }, signature)
}

/** How often a second each can be done: one call after the other in turns, the lower quartile of each, so that a busy machine spoils neither. */
function perSecond(...works: readonly (() => void)[]): readonly number[] {
  const times = works.map((): number[] => [])
  for (let round = 0; round < 1000; round++) {
    for (const [place, work] of works.entries()) {
      const started = performance.now()
      work()
      if (round >= 200) times[place]?.push(performance.now() - started)
    }
  }
  return times.map((taken) => 1000 / (taken.toSorted((x, y) => x - y)[Math.floor(taken.length / 4)] ?? 1))
}
