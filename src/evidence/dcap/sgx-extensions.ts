import { encodeHex } from "../../bytes/text.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { readDer, tags, within } from "../../pki/der.ts"
import type { DerReader } from "../../pki/der.ts"
import { MalformedError } from "../../bytes/error.ts"
import { EvidenceError } from "../errors.ts"

/** What a PCK certificate says of its platform. Intel SGX PCK Certificate and CRL Profile Specification 1.5, section 1.3.5. */
export interface SgxExtensions {
  /** 16 bytes; every byte string is lower-case hexadecimal. */
  readonly ppid: string
  /** SVNs of the 16 TCB components. */
  readonly components: readonly number[]
  readonly pceSvn: number
  /** 16 bytes. */
  readonly cpuSvn: string
  /** 2 bytes. */
  readonly pceId: string
  /** 6 bytes: the family of platforms. */
  readonly fmspc: string
  /** `standard`: client; `scalable`: server, without and with integrity of memory. */
  readonly sgxType: SgxType
  /** Platforms of several packages only, as is `configuration`. 16 bytes. */
  readonly platformInstanceId?: string
  readonly configuration?: PlatformConfiguration
}

export interface PlatformConfiguration {
  /** Packages may be added to the platform. Undefined where the certificate does not say. */
  readonly dynamicPlatform?: boolean
  /** Intel keeps the platform's keys. */
  readonly cachedKeys?: boolean
  readonly smtEnabled?: boolean
}

export type SgxType = "standard" | "scalable" | "scalable-with-integrity"

const sgxOid = "1.2.840.113741.1.13.1"
const types: readonly SgxType[] = ["standard", "scalable", "scalable-with-integrity"]
const componentCount = 16
const maxComponentSvn = 255
const maxPceSvn = 65_535

/**
 * Reads the SGX extensions of a PCK certificate.
 * @throws {EvidenceError} `wrong-certificate` where it has none; @throws {MalformedError} for one that is unknown, missing, double or of another form
 */
export function readSgxExtensions(certificate: Certificate): SgxExtensions {
  const extension = certificate.extensions.get(sgxOid)
  if (extension === undefined) throw new EvidenceError("wrong-certificate", "the certificate has no SGX extensions", { path: "PCK certificate" })
  const found = readDer("sgxExtensions", extension.value, (outer) => readRows(outer, "sgxExtensions", sgxOid, rows))
  const { ppid, tcb, pceId, fmspc, sgxType, platformInstanceId, configuration } = found
  return {
    ppid: required(ppid, "PPID"),
    ...required(tcb, "TCB"),
    pceId: required(pceId, "PCEID"),
    fmspc: required(fmspc, "FMSPC"),
    sgxType: required(sgxType, "SGX Type"),
    ...(platformInstanceId === undefined ? {} : { platformInstanceId }),
    ...(configuration === undefined ? {} : { configuration }),
  }
}

type Tcb = Pick<SgxExtensions, "components" | "pceSvn" | "cpuSvn">

type Found = Partial<Omit<SgxExtensions, keyof Tcb> & { readonly tcb: Tcb }>

/** Readers of a sequence's values by the last arc of their identifier. */
type Rows<T> = Readonly<Record<string, (reader: DerReader) => Partial<T>>>

const rows: Rows<Found> = {
  1: (reader) => ({ ppid: octets(reader, 16, "PPID") }),
  2: (reader) => ({ tcb: readTcb(reader) }),
  3: (reader) => ({ pceId: octets(reader, 2, "PCEID") }),
  4: (reader) => ({ fmspc: octets(reader, 6, "FMSPC") }),
  5: (reader) => ({ sgxType: readType(reader) }),
  6: (reader) => ({ platformInstanceId: octets(reader, 16, "Platform Instance ID") }),
  7: (reader) => ({ configuration: readRows(reader, "Configuration", `${sgxOid}.7`, configurationRows) }),
}

const configurationRows: Rows<PlatformConfiguration> = {
  1: (reader) => ({ dynamicPlatform: reader.boolean("Dynamic Platform") }),
  2: (reader) => ({ cachedKeys: reader.boolean("Cached Keys") }),
  3: (reader) => ({ smtEnabled: reader.boolean("SMT Enabled") }),
}

interface TcbRow {
  readonly components: ReadonlyMap<number, number>
  readonly pceSvn: number
  readonly cpuSvn: string
}

function readTcb(outer: DerReader): Tcb {
  const components: (number | undefined)[] = Array.from({ length: componentCount }, () => undefined)
  const tcbRows: Record<string, (reader: DerReader) => Partial<TcbRow>> = {
    17: (reader) => ({ pceSvn: bounded(reader, maxPceSvn, "PCESVN") }),
    18: (reader) => ({ cpuSvn: octets(reader, 16, "CPUSVN") }),
  }
  for (let at = 0; at < componentCount; at++)
    tcbRows[String(at + 1)] = (reader) => {
      components[at] = bounded(reader, maxComponentSvn, "TCB component SVN")
      return {}
    }
  const { pceSvn, cpuSvn } = readRows(outer, "TCB", `${sgxOid}.2`, tcbRows)
  return {
    components: components.map((svn) => required(svn, "TCB component SVN")),
    pceSvn: required(pceSvn, "PCESVN"),
    cpuSvn: required(cpuSvn, "CPUSVN"),
  }
}

/** SEQUENCE of SEQUENCE { identifier, value }; each identifier is of the table, and at most once. */
function readRows<T>(outer: DerReader, field: string, prefix: string, table: Rows<T>): Partial<T> {
  const seen = new Set<string>()
  let found: Partial<T> = {}
  within(outer, tags.sequence, field, (list) => {
    while (!list.done) {
      within(list, tags.sequence, "row", (row) => {
        const oid = row.oid("identifier")
        const arc = oid.startsWith(`${prefix}.`) ? oid.substring(prefix.length + 1) : ""
        const read = Object.hasOwn(table, arc) ? table[arc] : undefined
        if (read === undefined) throw new MalformedError("unknown-field", `unknown identifier ${oid}`, { path: field })
        if (seen.has(arc)) throw new MalformedError("duplicate", `identifier ${oid} stands twice`, { path: field })
        seen.add(arc)
        found = { ...found, ...read(row) }
      })
    }
  })
  return found
}

function octets(reader: DerReader, size: number, field: string): string {
  const { body } = reader.element(tags.octetString, field)
  if (body.length !== size) throw new MalformedError("malformed", `${body.length} bytes, expected ${size}`, { path: field })
  return encodeHex(body)
}

function bounded(reader: DerReader, maximum: number, field: string): number {
  const value = reader.smallInteger(field)
  if (value > maximum) throw new MalformedError("malformed", `${value}, at most ${maximum} is possible`, { path: field })
  return value
}

function readType(reader: DerReader): SgxType {
  const { body } = reader.element(tags.enumerated, "SGX Type")
  const type = body.length === 1 ? types[body[0] ?? types.length] : undefined
  if (type === undefined) throw new MalformedError("malformed", "unknown type", { path: "SGX Type" })
  return type
}

function required<T>(value: T | undefined, field: string): T {
  if (value === undefined) throw new MalformedError("malformed", "is missing", { path: `sgxExtensions.${field}` })
  return value
}
