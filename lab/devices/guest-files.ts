import { ByteWriter } from "../../src/bytes/writer.ts"
import { concatBytes } from "../../src/bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../src/bytes/text.ts"
import type { SnpEndorsements } from "../../src/evidence/snp/endorsements.ts"
import type { DeviceFiles } from "../../src/evidence/tee/collectors/device-files.ts"
import { certificateFingerprint } from "../../src/pki/certificate.ts"
import type { SgxRequirement, SnpRequirement } from "../../src/policy/tee.ts"
import type { SnpDevice } from "./amd-snp.ts"
import { labPlatform, type LabAuthority } from "./dcap/authority.ts"
import { makeSgxQuote } from "./dcap/device.ts"

/**
 * The files by which a guest asks its laboratory device for evidence of itself, as Linux and Gramine lay them out: what a manager's collectors read when they run there.
 * INSECURE LABORATORY.
 */

/** configfs-tsm of a SEV-SNP guest. `table`: what the host passes along (auxblob); undefined for a host that passes nothing. */
export function snpGuestFiles(device: SnpDevice, table: Uint8Array | undefined, change: Parameters<SnpDevice["report"]>[0] = {}): DeviceFiles {
  const entries = new Map<string, { inblob: Uint8Array | undefined; generation: number }>()
  const entryOf = (path: string): readonly [name: string, entry: { inblob: Uint8Array | undefined; generation: number }] => {
    const at = path.lastIndexOf("/")
    const entry = entries.get(path.substring(0, at))
    if (entry === undefined) throw systemError("ENOENT")
    return [path.substring(at + 1), entry]
  }
  return {
    makeFolder: async (path) => {
      if (entries.has(path)) throw systemError("EEXIST")
      entries.set(path, { inblob: undefined, generation: 0 })
    },
    removeFolder: async (path) => {
      entries.delete(path)
    },
    write: async (path, bytes) => {
      const [name, entry] = entryOf(path)
      if (name !== "inblob" || bytes.length > 64) throw systemError("EINVAL")
      entry.inblob = bytes
      entry.generation++
    },
    read: async (path) => {
      const [name, { inblob, generation }] = entryOf(path)
      if (name === "generation") return encodeUtf8(`${generation}\n`)
      if (name === "provider") return encodeUtf8("sev_guest\n")
      if (inblob === undefined || (name === "auxblob" && table === undefined)) throw systemError("EINVAL")
      if (name === "auxblob") return table ?? new Uint8Array(0)
      if (name === "outblob") return device.report({ ...change, reportData: inblob })
      throw systemError("ENOENT")
    },
  }
}

/** Demands that an ordinary guest on exactly this laboratory chip meets. */
export function labSnpRequirement(device: SnpDevice): SnpRequirement {
  const { measurement, committedFirmware } = device.fields()
  const { bootLoader = 0, tee = 0, snp = 0, microcode = 0, fmc } = device.tcb
  return {
    debug: false,
    migration: false,
    measurement: [encodeHex(measurement)],
    hostData: ["00".repeat(32)],
    idKeyDigest: "none",
    authorKeyDigest: "none",
    guestSvn: 0,
    vmpl: [0],
    smt: "any",
    singleSocket: "any",
    products: [device.product],
    signingKey: ["vcek"],
    tcb: { bootLoader, tee, snp, microcode, ...(fmc === undefined ? {} : { fmc }) },
    firmware: committedFirmware,
    provisional: false,
    chips: [encodeHex(device.chipId)],
    laboratoryRoots: [certificateFingerprint(device.root.certificate)],
  }
}

/** Table of certificates as a host hands it to its guest: VCEK, ASK, ARK and, where it has one, the revocation list. AMD 56421, 4.1.8.1. */
export function snpCertTable({ signer, intermediates, revocationLists }: SnpEndorsements, root: Uint8Array): Uint8Array {
  const entries = [
    ["63da758de6644564adc5f4b93be8accd", signer.der],
    ...intermediates.map(({ der }) => ["4ab7b379bbac4fe4a02f05aef327c782", der] as const),
    ["c0b406a4a803495297433fb6014cd0ae", root],
    ...revocationLists.map(({ der }) => ["92f81bc358114d3d97ffd19f88dc67ea", der] as const),
  ] as const
  const writer = new ByteWriter()
  let offset = (entries.length + 1) * entryBytes
  for (const [guid, { length }] of entries) {
    writer.bytes(parseHex(guid)).u32le(offset).u32le(length)
    offset += length
  }
  writer.bytes(new Uint8Array(entryBytes))
  return concatBytes(writer.take(), ...entries.map(([, bytes]) => bytes))
}

const entryBytes = 24

/** Gramine's files inside an enclave of a laboratory's platform. */
export function gramineFiles(authority: LabAuthority, knobs: Parameters<typeof makeSgxQuote>[2] = {}): DeviceFiles {
  let reportData: Uint8Array = new Uint8Array(64)
  const none = async (): Promise<never> => {
    throw systemError("EACCES")
  }
  return {
    makeFolder: none,
    removeFolder: none,
    write: async (path, bytes) => {
      if (!path.endsWith("/user_report_data")) throw systemError("EACCES")
      reportData = bytes
    },
    read: async (path) => {
      if (path.endsWith("/attestation_type")) return encodeUtf8("dcap\n")
      if (path.endsWith("/quote")) return makeSgxQuote(authority, reportData, knobs)
      throw systemError("ENOENT")
    },
  }
}

/** Demands that the laboratory's enclave meets. */
export function labSgxRequirement({ root }: LabAuthority): SgxRequirement {
  return {
    mrEnclave: ["e1".repeat(32)],
    mrSigner: ["51".repeat(32)],
    isvProdId: 7,
    isvSvn: 3,
    configId: ["00".repeat(64)],
    debug: false,
    tcb: { status: ["UpToDate"], advisories: [], evaluationDataNumber: 18 },
    platforms: [labPlatform.ppid],
    laboratoryRoots: [certificateFingerprint(root.certificate)],
  }
}

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code })
}
