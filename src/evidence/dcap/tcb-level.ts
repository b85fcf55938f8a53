import { EvidenceError } from "../errors.ts"
import { bytesOf } from "./format.ts"
import { maskedEquals } from "./masked.ts"
import type { SgxExtensions } from "./sgx-extensions.ts"
import type { LevelStatus, SvnLevel, TcbInfo, TcbLevel, TdxModule } from "./tcb-info.ts"

/** Which TCB level a platform reaches. Intel PCS API v4, "TCB evaluation" of SGX and TDX. */

/** What a TD report says of the TDX module; byte strings are lower-case hexadecimal. */
export interface TdxTcb {
  /** TEE_TCB_SVN, 16 bytes: [0] SVN and [1] version of the module. */
  readonly teeTcbSvn: string
  readonly mrSignerSeam: string
  readonly seamAttributes: string
}

/**
 * The first level, in Intel's order, of which the platform reaches every component: all SGX components and the PCE's SVN of the PCK certificate and, for TDX,
 * all components of TEE_TCB_SVN. Components 0 and 1 name the module itself, and where its version is not 0 its own identity is judged in their place.
 * @throws {EvidenceError} `no-tcb-level`, `revoked`
 */
export function findTcbLevel(info: TcbInfo, platform: Pick<SgxExtensions, "components" | "pceSvn">, tdx: TdxTcb | undefined): TcbLevel {
  const tdxComponents = tdx === undefined ? undefined : [...bytesOf(tdx.teeTcbSvn)]
  const level = info.tcbLevels.find(
    (candidate) =>
      reaches(platform.components, candidate.sgxComponents, 0) &&
      platform.pceSvn >= candidate.pceSvn &&
      (tdxComponents === undefined || reachesTdx(tdxComponents, candidate)),
  )
  if (level === undefined)
    throw new EvidenceError("no-tcb-level", `components ${platform.components.join(".")}, PCE ${platform.pceSvn}`, { path: "TCB info" })
  return notRevoked(level, "TCB info")
}

function reachesTdx(found: readonly number[], level: TcbLevel): boolean {
  return level.tdxComponents !== undefined && reaches(found, level.tdxComponents, found[1] === 0 ? 0 : 2)
}

/** True when both have the same number of components and each found one, from an index on, is at least the one that is asked for. */
function reaches(found: readonly number[], asked: readonly number[], from: number): boolean {
  return found.length === asked.length && asked.every((svn, at) => at < from || (found[at] ?? -1) >= svn)
}

/**
 * Holds the TDX module against TCB info: a module of version 0 against `tdxModule`, one of a later version against the identity of that version, with its level.
 * @throws {EvidenceError} `wrong-identity`, `no-tcb-level`, `revoked`
 */
export function checkTdxModule(info: TcbInfo, tdx: TdxTcb): LevelStatus | undefined {
  const [svn = 0, version = 0] = bytesOf(tdx.teeTcbSvn)
  if (version === 0) {
    if (info.tdxModule === undefined) throw new EvidenceError("wrong-identity", "TCB info does not name the TDX module", { path: "TDX module" })
    checkModule(info.tdxModule, tdx)
    return undefined
  }
  const identity = info.tdxModuleIdentities.get(version)
  if (identity === undefined) throw new EvidenceError("wrong-identity", `TCB info knows no TDX module of version ${version}`, { path: "TDX module" })
  checkModule(identity, tdx)
  return findSvnLevel(identity.levels, svn, "TDX module")
}

/** @throws {EvidenceError} `wrong-identity` */
export function checkModule(module: TdxModule, tdx: TdxTcb): void {
  const path = "TDX module"
  if (tdx.mrSignerSeam !== module.mrSigner)
    throw new EvidenceError("wrong-identity", `MRSIGNERSEAM ${tdx.mrSignerSeam}, expected ${module.mrSigner}`, { path })
  if (!maskedEquals(tdx.seamAttributes, module.attributesMask, module.attributes))
    throw new EvidenceError("wrong-identity", `SEAMATTRIBUTES ${tdx.seamAttributes}, expected ${module.attributes} under ${module.attributesMask}`, {
      path,
    })
}

/** The first level whose ISVSVN is reached. @throws {EvidenceError} `no-tcb-level`, `revoked` */
export function findSvnLevel(levels: readonly SvnLevel[], svn: number, path: string): SvnLevel {
  const level = levels.find(({ isvSvn }) => svn >= isvSvn)
  if (level === undefined) throw new EvidenceError("no-tcb-level", `ISVSVN ${svn} is below every level`, { path })
  return notRevoked(level, path)
}

function notRevoked<Level extends LevelStatus>(level: Level, path: string): Level {
  if (level.status === "Revoked") throw new EvidenceError("revoked", "the TCB level is revoked", { path })
  return level
}
