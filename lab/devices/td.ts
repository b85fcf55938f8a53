import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { encodeHex, parseHex } from "../../src/bytes/text.ts"
import { encodeDcapCollateral } from "../../src/evidence/dcap/endorsements.ts"
import { certificateFingerprint } from "../../src/pki/certificate.ts"
import type { TdxRequirement } from "../../src/policy/tee.ts"
import { labPlatform, makeLabAuthority, type LabAuthority } from "./dcap/authority.ts"
import { makeTdxQuote } from "./dcap/device.ts"
import { extendedOnce, type ProgramMeasurement } from "./program.ts"

/**
 * A laboratory's TD: a TDX device that answers as a TD's guest agent does, for one program that it measured before it started. INSECURE LABORATORY: nothing keeps the
 * program's memory from anybody, and whoever has the device's keys can say anything.
 */
export interface LabTd extends AsyncDisposable {
  /** `http://127.0.0.1:port` */
  readonly url: `http://${string}`
  readonly authority: LabAuthority
  /** Collateral as a manager sends it along, JSON text. */
  readonly collateral: string
}

const zeros = "00".repeat(48)

/** Registers of a TD that started this program. */
export function tdRegisters({ runtime, source, packages }: ProgramMeasurement): Pick<TdxRequirement, "mrTd" | "rtmrs"> {
  return { mrTd: [runtime], rtmrs: { "0": [zeros], "1": [extendedOnce(source)], "2": [extendedOnce(packages)], "3": [zeros] } }
}

/** Demands that exactly this program meets, on the laboratory's one platform, under its root. */
export function labTdRequirement(program: ProgramMeasurement, root: LabAuthority["root"]): TdxRequirement {
  return {
    ...tdRegisters(program),
    mrConfigId: [zeros],
    mrOwner: [zeros],
    mrOwnerConfig: [zeros],
    mrSeam: "any",
    septVeDisable: true,
    migration: false,
    eventLog: "none",
    debug: false,
    tcb: { status: ["UpToDate"], advisories: [], evaluationDataNumber: 18 },
    platforms: [labPlatform.ppid],
    laboratoryRoots: [certificateFingerprint(root.certificate)],
  }
}

export async function startLabTd(program: ProgramMeasurement, options: { readonly port?: number; readonly host?: string } = {}): Promise<LabTd> {
  const authority = makeLabAuthority({ time: Date.now() })
  const { mrTd, rtmrs } = tdRegisters(program)
  const one = (values: readonly string[] | "any"): string => (values === "any" ? zeros : (values[0] ?? zeros))
  const report = { mrTd: one(mrTd), rtmrs: [one(rtmrs[0]), one(rtmrs[1]), one(rtmrs[2]), one(rtmrs[3])] as const }
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://device")
    const hex = searchParams.get("report_data") ?? ""
    if (pathname !== "/GetQuote" || !/^[0-9a-f]{128}$/.test(hex)) return response.writeHead(400).end()
    const quote = makeTdxQuote(authority, parseHex(hex), { body: "1.5", version: 5, report: { ...report, rtmrs: [...report.rtmrs] } })
    return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ quote: encodeHex(quote), report_data: hex }))
  })
  const port = await listen(server, options.host ?? "127.0.0.1", options.port ?? 0)
  return {
    url: `http://127.0.0.1:${port}`,
    authority,
    collateral: encodeDcapCollateral(authority.tdxCollateral),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

async function listen(server: Server, host: string, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject)
    server.listen(port, host, () => resolve())
  })
  return (server.address() as AddressInfo).port
}
