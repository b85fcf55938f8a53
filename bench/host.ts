import { createHash, verify } from "node:crypto"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { parseHex } from "../src/bytes/text.ts"
import { hostPcrs, verifyHost } from "../src/evidence/host/verify.ts"
import { parseTpmSignature } from "../src/evidence/tpm/format.ts"
import { publicKeyOf } from "../src/evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../src/evidence/tpm/public-area.ts"
import type { BenchRow } from "./row.ts"

/**
 * Verification of a whole host (quote, boot log, IMA list of a real boot, from the test vectors) against the least that any verifier must do: check the one
 * signature and hash the same bytes once. No row where the vectors are absent.
 */
export async function benchHost(): Promise<readonly BenchRow[]> {
  const folder = join(process.env["PERUN_VECTORS"] ?? "../shared/vectors", "host", "ng")
  let files: readonly Uint8Array[]
  try {
    files = await Promise.all(
      ["quote.msg", "quote.sig", "ak.tpm2b-public", "eventlog.bin", "ima.bin"].map(
        async (name) => new Uint8Array(await readFile(join(folder, name))),
      ),
    )
  } catch {
    console.error(`bench/host: skipped, no vectors in ${folder}`)
    return []
  }
  const [quote, signature, akPublic, eventLog, list] = files
  if (quote === undefined || signature === undefined || akPublic === undefined || eventLog === undefined || list === undefined) return []
  const stated = JSON.parse(await readFile(join(folder, "expected.json"), "utf8")) as { readonly nonce: string }
  const expectation = { extraData: parseHex(stated.nonce), requiredPcrs: hostPcrs, quirks: [], identity: "unproved", previous: "none" } as const
  const bundle = { quote, signature, akPublic, eventLog, ima: { from: 0, list } }
  const key = publicKeyOf(parseSizedPublicArea(akPublic))
  const parsed = parseTpmSignature(signature)
  const whole = perSecond(() => void verifyHost(bundle, expectation))
  const least = perSecond(() => {
    if ("signature" in parsed) verify("sha256", quote, key, parsed.signature)
    for (const part of [quote, eventLog, list]) createHash("sha256").update(part).digest()
  })
  return [
    { name: "host: least work, one signature and one hash over the bytes", value: least, unit: "/s" },
    { name: "host: whole verification", value: whole, unit: "/s", ratio: whole / least, against: "least work" },
  ]
}

/** How often a second, over about a second, after a warm-up. */
function perSecond(work: () => void): number {
  for (let round = 0; round < 20; round++) work()
  const started = performance.now()
  let count = 0
  while (performance.now() - started < 1000) {
    work()
    count++
  }
  return (count * 1000) / (performance.now() - started)
}
