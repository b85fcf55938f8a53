import { parseJson } from "../../bytes/json.ts"
import type { JsonValue } from "../../bytes/json.ts"
import { MalformedError } from "../../bytes/error.ts"
import { hexOf, listOf, numberOf, objectOf, textOf, timeOf, wordOf } from "./json-fields.ts"
import type { JsonObject } from "./json-fields.ts"
import { maxDocumentBytes } from "./signed-json.ts"
import { tcbStatuses } from "./tcb-status.ts"
import type { TcbStatus } from "./tcb-status.ts"

/** TCB info of a family of platforms (FMSPC), versions 2 (SGX) and 3. Intel PCS API v4, "Get TDX TCB Info" and "Get SGX TCB Info". */
export interface TcbInfo {
  readonly id: "SGX" | "TDX"
  readonly version: 2 | 3
  /** Milliseconds since 1970. */
  readonly issueDate: number
  readonly nextUpdate: number
  /** 6 bytes, lower-case hexadecimal. */
  readonly fmspc: string
  /** 2 bytes, lower-case hexadecimal. */
  readonly pceId: string
  readonly tcbEvaluationDataNumber: number
  /** In Intel's order: the first that a platform reaches is its level. */
  readonly tcbLevels: readonly TcbLevel[]
  /** TDX only: what a TDX module of version 0 must be. */
  readonly tdxModule?: TdxModule
  /** TDX only: what a TDX module of a later version must be, by that version. */
  readonly tdxModuleIdentities: ReadonlyMap<number, TdxModuleIdentity>
}

export interface TcbLevel extends LevelStatus {
  /** SVNs of the 16 SGX TCB components. */
  readonly sgxComponents: readonly number[]
  readonly pceSvn: number
  /** TDX only: SVNs of the 16 TDX TCB components. */
  readonly tdxComponents?: readonly number[]
}

/** What a level says of whoever reaches it. */
export interface LevelStatus {
  readonly status: TcbStatus
  /** Milliseconds since 1970: the date of the TCB recovery event. */
  readonly tcbDate: number
  readonly advisoryIds: readonly string[]
}

/** Level of an enclave or module by its ISVSVN. */
export interface SvnLevel extends LevelStatus {
  readonly isvSvn: number
}

export interface TdxModule {
  /** MRSIGNERSEAM, 48 bytes, lower-case hexadecimal. */
  readonly mrSigner: string
  /** SEAMATTRIBUTES under `attributesMask`, 8 bytes each, lower-case hexadecimal. */
  readonly attributes: string
  readonly attributesMask: string
}

export interface TdxModuleIdentity extends TdxModule {
  readonly levels: readonly SvnLevel[]
}

const componentCount = 16
const maxSvn = 255
const maxPceSvn = 65_535
/** The longest lists have some twenty levels. */
const maxLevels = 256
/** More than any level names. */
const maxAdvisories = 256
const maxModules = 256
const maxEvaluationNumber = 2 ** 32 - 1

const infoMembers = {
  version: true,
  issueDate: true,
  nextUpdate: true,
  fmspc: true,
  pceId: true,
  tcbType: true,
  tcbEvaluationDataNumber: true,
  tcbLevels: true,
} as const
const levelMembers = { tcb: true, tcbDate: true, tcbStatus: true, advisoryIDs: false } as const
const moduleMembers = { mrsigner: true, attributes: true, attributesMask: true } as const

/**
 * Reads the body of a TCB info; its signature is checked before.
 * @throws {MalformedError} `malformed`, `unknown-field`, `duplicate`, `too-large`
 */
export function parseTcbInfo(body: Uint8Array): TcbInfo {
  const document = parseJson(body, { maxBytes: maxDocumentBytes, maxDepth: 8 })
  const version = numberOf(objectWithVersion(document), "version", "tcbInfo", 3)
  switch (version) {
    case 2:
      return readInfo(objectOf(document, "tcbInfo", infoMembers), version, "SGX")
    case 3:
      return readVersion3(document)
    default:
      throw new MalformedError("malformed", `version ${version}, expected 2 or 3`, { path: "tcbInfo.version" })
  }
}

function objectWithVersion(document: JsonValue): JsonObject {
  if (typeof document !== "object" || document === null || Array.isArray(document))
    throw new MalformedError("malformed", "not an object", { path: "tcbInfo" })
  return document as JsonObject
}

function readVersion3(document: JsonValue): TcbInfo {
  const id = wordOf(objectWithVersion(document), "id", "tcbInfo", ["SGX", "TDX"])
  const members = id === "SGX" ? { ...infoMembers, id: true } : { ...infoMembers, id: true, tdxModule: true, tdxModuleIdentities: false }
  const object = objectOf(document, "tcbInfo", members)
  const info = readInfo(object, 3, id)
  if (id === "SGX") return info
  const path = "tcbInfo.tdxModule"
  const tdxModule = readModule(objectOf(object["tdxModule"], path, moduleMembers), path)
  return { ...info, tdxModule, tdxModuleIdentities: readModuleIdentities(object) }
}

function readInfo(object: JsonObject, version: 2 | 3, id: TcbInfo["id"]): TcbInfo {
  const path = "tcbInfo"
  // 0 is the only way of composing the TCB that is defined.
  numberOf(object, "tcbType", path, 0)
  const tcbLevels = listOf(object, "tcbLevels", path, maxLevels).map((level, at) => readLevel(level, `${path}.tcbLevels[${at}]`, version, id))
  return {
    id,
    version,
    ...readDates(object, path),
    fmspc: hexOf(object, "fmspc", path, 6),
    pceId: hexOf(object, "pceId", path, 2),
    tcbEvaluationDataNumber: numberOf(object, "tcbEvaluationDataNumber", path, maxEvaluationNumber),
    tcbLevels,
    tdxModuleIdentities: new Map(),
  }
}

/** Dates of a signed document. */
export function readDates(object: JsonObject, path: string): { readonly issueDate: number; readonly nextUpdate: number } {
  const issueDate = timeOf(object, "issueDate", path)
  const nextUpdate = timeOf(object, "nextUpdate", path)
  if (nextUpdate < issueDate) throw new MalformedError("malformed", "lies before issueDate", { path: `${path}.nextUpdate` })
  return { issueDate, nextUpdate }
}

function readLevel(value: JsonValue, path: string, version: 2 | 3, id: TcbInfo["id"]): TcbLevel {
  const object = objectOf(value, path, levelMembers)
  const tcb = version === 2 ? readTcb2(object["tcb"], `${path}.tcb`) : readTcb3(object["tcb"], `${path}.tcb`, id)
  return { ...tcb, ...readLevelStatus(object, path) }
}

type Tcb = Omit<TcbLevel, keyof LevelStatus>

const tcb2Names = Array.from({ length: componentCount }, (_, at) => `sgxtcbcomp${String(at + 1).padStart(2, "0")}svn`)
const tcb2Members = Object.fromEntries([...tcb2Names, "pcesvn"].map((name) => [name, true]))

function readTcb2(value: JsonValue | undefined, path: string): Tcb {
  const object = objectOf(value, path, tcb2Members)
  return { sgxComponents: tcb2Names.map((name) => numberOf(object, name, path, maxSvn)), pceSvn: numberOf(object, "pcesvn", path, maxPceSvn) }
}

function readTcb3(value: JsonValue | undefined, path: string, id: TcbInfo["id"]): Tcb {
  const isTdx = id === "TDX"
  const object = objectOf(value, path, isTdx ? tdxTcbMembers : sgxTcbMembers)
  const sgx = { sgxComponents: readComponents(object, "sgxtcbcomponents", path), pceSvn: numberOf(object, "pcesvn", path, maxPceSvn) }
  return isTdx ? { ...sgx, tdxComponents: readComponents(object, "tdxtcbcomponents", path) } : sgx
}

const sgxTcbMembers = { sgxtcbcomponents: true, pcesvn: true } as const
const tdxTcbMembers = { ...sgxTcbMembers, tdxtcbcomponents: true } as const
/** Category and type are words for people. */
const componentMembers = { svn: true, category: false, type: false } as const

function readComponents(tcb: JsonObject, key: string, path: string): readonly number[] {
  const list = listOf(tcb, key, path, componentCount)
  if (list.length !== componentCount)
    throw new MalformedError("malformed", `${list.length} components, expected ${componentCount}`, { path: `${path}.${key}` })
  const inner = `${path}.${key}`
  return list.map((value) => {
    const object = objectOf(value, inner, componentMembers)
    if (object["category"] !== undefined) textOf(object, "category", inner)
    if (object["type"] !== undefined) textOf(object, "type", inner)
    return numberOf(object, "svn", inner, maxSvn)
  })
}

function readLevelStatus(object: JsonObject, path: string): LevelStatus {
  return {
    status: wordOf(object, "tcbStatus", path, tcbStatuses),
    tcbDate: timeOf(object, "tcbDate", path),
    advisoryIds: readAdvisories(object, path),
  }
}

function readAdvisories(object: JsonObject, path: string): readonly string[] {
  if (!Object.hasOwn(object, "advisoryIDs")) return []
  return listOf(object, "advisoryIDs", path, maxAdvisories).map((value) => {
    if (typeof value !== "string" || !/^[A-Z0-9-]{1,40}$/.test(value))
      throw new MalformedError("malformed", "not the identifier of an advisory", { path: `${path}.advisoryIDs` })
    return value
  })
}

/** Levels by ISVSVN, of an enclave identity or a TDX module identity. */
export function readSvnLevels(object: JsonObject, path: string): readonly SvnLevel[] {
  return listOf(object, "tcbLevels", path, maxLevels).map((value, at) => {
    const inner = `${path}.tcbLevels[${at}]`
    const level = objectOf(value, inner, levelMembers)
    const tcb = objectOf(level["tcb"], `${inner}.tcb`, { isvsvn: true })
    return { isvSvn: numberOf(tcb, "isvsvn", `${inner}.tcb`, maxPceSvn), ...readLevelStatus(level, inner) }
  })
}

function readModule(object: JsonObject, path: string): TdxModule {
  return {
    mrSigner: hexOf(object, "mrsigner", path, 48),
    attributes: hexOf(object, "attributes", path, 8),
    attributesMask: hexOf(object, "attributesMask", path, 8),
  }
}

/** `TDX_<version>`, the version as two hexadecimal digits. */
const moduleId = /^TDX_([0-9A-Fa-f]{2})$/

function readModuleIdentities(info: JsonObject): ReadonlyMap<number, TdxModuleIdentity> {
  const identities = new Map<number, TdxModuleIdentity>()
  if (!Object.hasOwn(info, "tdxModuleIdentities")) return identities
  for (const [at, value] of listOf(info, "tdxModuleIdentities", "tcbInfo", maxModules).entries()) {
    const path = `tcbInfo.tdxModuleIdentities[${at}]`
    const object = objectOf(value, path, { ...moduleMembers, id: true, tcbLevels: true })
    const digits = moduleId.exec(textOf(object, "id", path))?.[1]
    if (digits === undefined) throw new MalformedError("malformed", "not TDX_ and two digits", { path: `${path}.id` })
    const version = Number.parseInt(digits, 16)
    if (identities.has(version)) throw new MalformedError("duplicate", `TDX_${digits} stands twice`, { path: `${path}.id` })
    identities.set(version, { ...readModule(object, path), levels: readSvnLevels(object, path) })
  }
  return identities
}
