import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { listenOn } from "../../src/bytes/listen.ts"
import { encodeHex, parseHex } from "../../src/bytes/text.ts"
import { parseCcel } from "../../src/evidence/ccel/format.ts"
import { encodeDcapCollateral } from "../../src/evidence/dcap/endorsements.ts"
import { certificateFingerprint } from "../../src/pki/certificate.ts"
import type { TdxRequirement } from "../../src/policy/tee.ts"
import { labPlatform, makeLabAuthority, type LabAuthority } from "./dcap/authority.ts"
import { makeTdxQuote } from "./dcap/device.ts"
import { extendedOnce, type ProgramMeasurement } from "./program.ts"

/**
 * A laboratory's TD: a TDX device that answers as a TD's guest agent does, for what was measured before it started. INSECURE LABORATORY: nothing keeps the
 * measured program's memory from anybody, and whoever has the device's keys can say anything.
 */
export interface LabTd extends AsyncDisposable {
  /** `http://127.0.0.1:port` */
  readonly url: `http://${string}`
  readonly authority: LabAuthority
  /** Collateral as a manager sends it along, JSON text. */
  readonly collateral: string
}

/** Registers of a TD, SHA-384 in lower-case hexadecimal, and the log that explains them where there is one. */
export interface TdState {
  readonly mrTd: string
  /** RTMR0 to RTMR3. */
  readonly rtmrs: readonly [string, string, string, string]
  /** CCEL table's log area. */
  readonly eventLog?: Uint8Array
}

const zeros = "00".repeat(48)

/** Registers of a TD that started this program. */
export function tdOfProgram({ runtime, source, packages }: ProgramMeasurement): TdState {
  return { mrTd: runtime, rtmrs: [zeros, extendedOnce(source), extendedOnce(packages), zeros] }
}

/** The same as a policy demands it. */
export function tdRegisters(program: ProgramMeasurement): Pick<TdxRequirement, "mrTd" | "rtmrs"> {
  return acceptedRegisters(tdOfProgram(program))
}

function acceptedRegisters({ mrTd, rtmrs }: TdState): Pick<TdxRequirement, "mrTd" | "rtmrs"> {
  return { mrTd: [mrTd], rtmrs: { "0": [rtmrs[0]], "1": [rtmrs[1]], "2": [rtmrs[2]], "3": [rtmrs[3]] } }
}

/** Demands that exactly this program meets, on the laboratory's one platform, under its root. */
export function labTdRequirement(program: ProgramMeasurement, root: LabAuthority["root"]): TdxRequirement {
  return tdRequirement(tdOfProgram(program), root, labPlatform.ppid)
}

/** Demands that exactly this TD meets, on this platform (PPID, hexadecimal), under this root; a log is asked for where there is one. */
export function tdRequirement(state: TdState, root: LabAuthority["root"], ppid: string): TdxRequirement {
  return {
    ...acceptedRegisters(state),
    mrConfigId: [zeros],
    mrOwner: [zeros],
    mrOwnerConfig: [zeros],
    mrSeam: "any",
    septVeDisable: true,
    migration: false,
    eventLog: state.eventLog === undefined ? "none" : { quirks: [] },
    debug: false,
    tcb: { status: ["UpToDate"], advisories: [], evaluationDataNumber: 18 },
    platforms: [ppid],
    laboratoryRoots: [certificateFingerprint(root.certificate)],
  }
}

/** @throws {UnavailableError} `port-in-use`, `permission-denied` */
export async function startLabTd(
  program: ProgramMeasurement,
  { port = 0, authority = makeLabAuthority({ time: Date.now() }) }: { readonly port?: number; readonly authority?: LabAuthority } = {},
): Promise<LabTd> {
  const server = serveTd(authority, tdOfProgram(program))
  await listenOn(server, { host: "127.0.0.1", port })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    authority,
    collateral: encodeDcapCollateral(authority.tdxCollateral),
    [Symbol.asyncDispose]: async () => close(server),
  }
}

/** The same for any TD, on a Unix socket: whoever reaches the socket has the device. */
export async function startTdOnSocket(authority: LabAuthority, state: TdState, socket: string): Promise<AsyncDisposable> {
  const server = serveTd(authority, state)
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject)
    server.listen(socket, () => resolve())
  })
  return { [Symbol.asyncDispose]: async () => close(server) }
}

/** Answers `GET /GetQuote?report_data=HEX` (64 bytes) as dstack's guest agent does: with the quote, and the event log as JSON text in its form. */
function serveTd(authority: LabAuthority, { mrTd, rtmrs, eventLog }: TdState): Server {
  const log = eventLog === undefined ? {} : { event_log: dstackLogOf(eventLog) }
  return createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://device")
    const hex = searchParams.get("report_data") ?? ""
    if (pathname !== "/GetQuote" || !/^[0-9a-f]{128}$/.test(hex)) return response.writeHead(400).end()
    const quote = makeTdxQuote(authority, parseHex(hex), { body: "1.5", version: 5, report: { mrTd, rtmrs: [...rtmrs] } })
    return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ quote: encodeHex(quote), ...log, report_data: hex }))
  })
}

function dstackLogOf(ccel: Uint8Array): string {
  const events = parseCcel(ccel).records.map(({ rtmr, type, digest, data }) => ({
    imr: rtmr,
    event_type: type,
    digest: encodeHex(digest),
    event: "",
    event_payload: encodeHex(data),
  }))
  return JSON.stringify(events)
}

async function close(server: Server): Promise<void> {
  server.closeAllConnections()
  await new Promise<void>((resolve) => server.close(() => resolve()))
}
