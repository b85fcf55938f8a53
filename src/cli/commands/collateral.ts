import type { Command } from "commander"
import { join } from "node:path"
import { readFileBounded, writeFileDurably } from "../../bytes/durable.ts"
import type { Digest } from "../../bytes/digest.ts"
import { MalformedError, UnavailableError } from "../../bytes/error.ts"
import { readBodyBounded } from "../../bytes/http-body.ts"
import { judgeCollateral, storeCollateral, type CollateralJudge, type JudgedEntry } from "../../evidence/collateral/cache.ts"
import { fetchDcapCollateral, type Transport } from "../../evidence/dcap/endorsements.ts"
import { evidenceKinds } from "../../evidence/kinds.ts"
import { fetchSnpEndorsements } from "../../evidence/snp/endorsements.ts"
import { parseSnpReport } from "../../evidence/snp/format.ts"
import { productOfCpu } from "../../evidence/snp/products.ts"
import { teeRootsFor } from "../../evidence/tee/roots.ts"
import { verifyTee } from "../../evidence/tee/verify.ts"
import { hardwareOf } from "../../evidence/tee/format.ts"
import type { HardwareEvidence } from "../../evidence/tee/hardware.ts"
import { hardwareClaims } from "../../evidence/tee/identity.ts"
import { encodeVouchers, parseVouchers, withVouchers } from "../../evidence/tee/vouchers.ts"
import { insecureLaboratory } from "../connect.ts"
import { RefusedError, UsageError } from "../exit.ts"
import { homeFolder } from "../home.ts"
import type { Cell, Output } from "../output.ts"
import { fingerprintsOf, loadTeeEvidence } from "../tee-file.ts"

/** Where collateral is kept unless told otherwise. */
export function collateralFolder(): string {
  return join(homeFolder(), "collateral")
}

interface Options {
  readonly folder?: string
  readonly laboratoryRoot: readonly string[]
}

export function register(command: Command, output: Output): void {
  common(command.command("fetch"))
    .argument("<evidence>", "a quote or report of the platform, as perun evidence verify takes it")
    .option("--from <file>", "take it from this file, as --out wrote it elsewhere, instead of the vendor's service, for sites without a way out")
    .option("--out <file>", "write it to this file too, as perun manager serve --collateral wants it")
    .description("fetch what the processor's maker says of a platform, verify all of it, and keep it")
    .action(async (path: string, options: Options & { from?: string; out?: string }) => {
      const given = await loadTeeEvidence(path, {})
      if (given === undefined) throw new MalformedError("malformed", "neither a quote nor a report", { path })
      const evidence = hardwareOf(given)
      const judge = await judgeOf(options)
      const whole = options.from === undefined ? await fetchFor(evidence, judge) : await readFor(evidence, options.from)
      const entry = await storeCollateral(options.folder ?? collateralFolder(), whole, judge)
      if (options.out !== undefined) await writeFileDurably(options.out, `${encodeVouchers(whole)}\n`)
      output.result({ ok: true, ...entry, validUntil: new Date(entry.validUntil).toISOString() }, () => {
        output.line(`verified and kept: ${evidenceKinds[entry.kind].name}, ${entry.of}`, "good")
        output.line(`valid until ${new Date(entry.validUntil).toISOString()}; fetch again before`)
        if (entry.isLaboratory) output.line(`${insecureLaboratory}: under a root that was given`, "warn")
      })
    })
  common(command.command("list"))
    .description("what is kept here, and until when it may be used")
    .action(async (options: Options) => {
      const judged = await judgeCollateral(options.folder ?? collateralFolder(), await judgeOf(options))
      output.event({ ok: true, entries: judged.map(plain) })
      show(judged, output)
    })
  common(command.command("check"))
    .description("verify everything that is kept here; exit 10 if something may not be used any more")
    .action(async (options: Options) => {
      const judged = await judgeCollateral(options.folder ?? collateralFolder(), await judgeOf(options))
      const unusable = judged.filter(({ state }) => state === "unusable")
      output.event({ ...(unusable.length === 0 ? { ok: true } : { event: "checked" }), entries: judged.map(plain) })
      show(judged, output)
      if (unusable.length > 0) throw new RefusedError(`${unusable.length} of ${judged.length} entries may not be used; fetch them again`)
    })
}

function common(command: Command): Command {
  const collect = (text: string, before: readonly string[]): readonly string[] => [...before, text]
  return command
    .option("--folder <folder>", "where it is kept (default: collateral in PERUN_HOME)")
    .option("--laboratory-root <file>", `PEM of a laboratory root to accept: ${insecureLaboratory}; again for each`, collect, [])
}

async function judgeOf({ laboratoryRoot }: Options): Promise<CollateralJudge> {
  const named: readonly Digest[] = await fingerprintsOf(laboratoryRoot)
  return { roots: (evidence) => teeRootsFor(evidence, named), time: Date.now() }
}

/** From Intel's or AMD's service, by the names that the platform's own certificate states. */
async function fetchFor(evidence: HardwareEvidence, judge: CollateralJudge): Promise<HardwareEvidence> {
  if (evidence.kind === "snp") {
    const report = parseSnpReport(evidence.report)
    if (report.cpu === undefined) throw new UsageError("a report of version 2 does not name its processor; fetch with a newer firmware's report")
    return withVouchers(evidence, await fetchSnpEndorsements(report, productOfCpu(report.cpu), overNetwork, evidence.endorsements?.signer))
  }
  const bare = { kind: evidence.kind, quote: evidence.quote }
  const claims = hardwareClaims(verifyTee(bare, { reportData: "as-signed", roots: judge.roots(bare), time: judge.time, ccelQuirks: [] }))
  if (claims.kind === "snp") throw new TypeError("internal: a quote became a report")
  const { fmspc, authority } = claims.dcap.platform
  return withVouchers(bare, await fetchDcapCollateral({ tee: evidence.kind, fmspc, authority }, overNetwork))
}

async function readFor(evidence: HardwareEvidence, path: string): Promise<HardwareEvidence> {
  const vouchers = parseVouchers(evidence.kind, await readFileBounded(path, maxBytes))
  return withVouchers(evidence.kind === "snp" ? { kind: "snp", report: evidence.report } : { kind: evidence.kind, quote: evidence.quote }, vouchers)
}

/** GET over HTTPS, to the address that was asked for and no other. */
const overNetwork: Transport = async (url) => {
  try {
    const response = await fetch(url, { redirect: "error", signal: AbortSignal.timeout(timeoutMilliseconds) })
    const body = await readBodyBounded(response, maxBytes)
    return { status: response.status, header: (name) => response.headers.get(name), body }
  } catch (cause) {
    if (cause instanceof UnavailableError) throw cause
    throw new UnavailableError("unavailable", `${new URL(url).host} cannot be reached; on a site without a way out use --from`, { cause })
  }
}

const timeoutMilliseconds = 30_000
const maxBytes = 16_777_216

function plain(judged: JudgedEntry): object {
  if (judged.state === "unusable") return judged
  const { entry, state } = judged
  return { state, ...entry, validUntil: new Date(entry.validUntil).toISOString() }
}

function show(judged: readonly JudgedEntry[], output: Output): void {
  if (judged.length === 0) return output.line("nothing is kept here; perun collateral fetch EVIDENCE")
  const words = { fresh: "fresh", "refresh-soon": "fetch again soon", unusable: "not usable" } as const
  const tones = { fresh: "good", "refresh-soon": "warn", unusable: "bad" } as const
  output.table(
    ["kind", "of", "until", "state", "why"],
    judged.map((item): readonly Cell[] => {
      const state = { text: words[item.state], tone: tones[item.state] }
      if (item.state === "unusable") return ["", item.name, "", state, `${item.code}: ${item.message}`]
      const { kind, of, validUntil, isLaboratory } = item.entry
      return [kind, isLaboratory ? `${of} (${insecureLaboratory})` : of, new Date(validUntil).toISOString(), state, ""]
    }),
  )
}
