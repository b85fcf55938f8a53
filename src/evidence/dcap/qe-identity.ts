import { MalformedError } from "../../bytes/error.ts"
import { parseJson } from "../../bytes/json.ts"
import type { JsonValue } from "../../bytes/json.ts"
import { hexOf, numberOf, objectOf, wordOf } from "./json-fields.ts"
import { maxDocumentBytes } from "./signed-json.ts"
import { readDates, readSvnLevels } from "./tcb-info.ts"
import type { SvnLevel } from "./tcb-info.ts"

/** Identity of a quoting enclave. Intel PCS API v4 "Get SGX QE Identity", "Get TDX QE Identity" (version 2); API v1 (version 1). */
export interface QeIdentity {
  readonly id: "QE" | "TD_QE"
  readonly version: 1 | 2
  /** Milliseconds since 1970. */
  readonly issueDate: number
  readonly nextUpdate: number
  /** Version 1 has none. */
  readonly tcbEvaluationDataNumber?: number
  /** MISCSELECT and ATTRIBUTES under their masks: 4 and 16 bytes as they stand in a report, lower-case hexadecimal. */
  readonly miscSelect: string
  readonly miscSelectMask: string
  readonly attributes: string
  readonly attributesMask: string
  /** 32 bytes, lower-case hexadecimal. */
  readonly mrSigner: string
  readonly isvProdId: number
  /** Version 1 names the least ISVSVN: whoever reaches it is up to date, all others are not. */
  readonly levels: readonly SvnLevel[]
}

const commonMembers = {
  version: true,
  issueDate: true,
  nextUpdate: true,
  miscselect: true,
  miscselectMask: true,
  attributes: true,
  attributesMask: true,
  mrsigner: true,
  isvprodid: true,
} as const
const members1 = { ...commonMembers, isvsvn: true } as const
const members2 = { ...commonMembers, id: true, tcbEvaluationDataNumber: true, tcbLevels: true } as const
const maxU16 = 65_535
const maxEvaluationNumber = 2 ** 32 - 1
const path = "enclaveIdentity"

/**
 * Reads the body of a QE identity; its signature is checked before.
 * @throws {MalformedError} `malformed`, `unknown-field`, `duplicate`, `too-large`
 */
export function parseQeIdentity(body: Uint8Array): QeIdentity {
  const document = parseJson(body, { maxBytes: maxDocumentBytes, maxDepth: 8 })
  return isVersion1(document) ? readVersion1(document) : readVersion2(document)
}

function isVersion1(document: JsonValue): boolean {
  return typeof document === "object" && document !== null && !Array.isArray(document) && Object.hasOwn(document, "isvsvn")
}

function readVersion1(document: JsonValue): QeIdentity {
  const object = objectOf(document, path, members1)
  checkVersion(numberOf(object, "version", path, maxU16), 1)
  const identity = readCommon(document, members1)
  const least = numberOf(object, "isvsvn", path, maxU16)
  const level = { tcbDate: identity.issueDate, advisoryIds: [] }
  const outOfDate = { ...level, isvSvn: 0, status: "OutOfDate" } as const
  return { id: "QE", version: 1, ...identity, levels: [{ ...level, isvSvn: least, status: "UpToDate" }, outOfDate] }
}

function readVersion2(document: JsonValue): QeIdentity {
  const object = objectOf(document, path, members2)
  checkVersion(numberOf(object, "version", path, maxU16), 2)
  return {
    id: wordOf(object, "id", path, ["QE", "TD_QE"]),
    version: 2,
    ...readCommon(document, members2),
    tcbEvaluationDataNumber: numberOf(object, "tcbEvaluationDataNumber", path, maxEvaluationNumber),
    levels: readSvnLevels(object, path),
  }
}

function checkVersion(found: number, expected: number): void {
  if (found !== expected) throw new MalformedError("malformed", `version ${found}, expected ${expected} in this form`, { path: `${path}.version` })
}

function readCommon(
  document: JsonValue,
  members: Readonly<Record<string, boolean>>,
): Omit<QeIdentity, "id" | "version" | "tcbEvaluationDataNumber" | "levels"> {
  const object = objectOf(document, path, members)
  return {
    ...readDates(object, path),
    miscSelect: hexOf(object, "miscselect", path, 4),
    miscSelectMask: hexOf(object, "miscselectMask", path, 4),
    attributes: hexOf(object, "attributes", path, 16),
    attributesMask: hexOf(object, "attributesMask", path, 16),
    mrSigner: hexOf(object, "mrsigner", path, 32),
    isvProdId: numberOf(object, "isvprodid", path, maxU16),
  }
}
