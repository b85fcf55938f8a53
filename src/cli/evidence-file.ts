import { stat } from "node:fs/promises"
import { join } from "node:path"
import * as z from "zod"
import { readFileBounded } from "../bytes/durable.ts"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { type HostBundle, maxEventLogBytes, maxImaListBytes, maxQuoteBytes, parseHostBundle } from "../evidence/bundle.ts"
import type { TpmIdentity } from "../evidence/tpm/claims.ts"
import { loadVendorRoots, laboratoryRoot, type TrustedRoot } from "../evidence/tpm/roots.ts"
import { parseSizedPublicArea } from "../evidence/tpm/public-area.ts"
import { tpmNameText } from "../evidence/tpm/keys.ts"
import { parsePemCertificates } from "../pki/certificate.ts"
import { isTeeIdentity } from "../policy/listing.ts"
import { hostListSchema } from "../protocol/messages.ts"

/** Files of which a host's folder has at least one. */
export const hostFiles = ["quote.msg", "quote.sig", "ak.tpm2b-public", "eventlog.bin", "ima.bin"]

/** Evidence of a host as it lies on disk. */
export interface HostEvidenceFiles {
  readonly bundle: HostBundle
  /** Certificate of the endorsement key, as stored, where the folder has one. */
  readonly ekCertificate?: Uint8Array
  /** TPM2B_PUBLIC of the endorsement key. */
  readonly ekPublic?: Uint8Array
}

/**
 * Reads evidence of a host: a bundle as the agent sends it (JSON file), or a folder with quote.msg, quote.sig, ak.tpm2b-public, eventlog.bin, ima.bin and,
 * where they are there, ek-certificate.der and ek.tpm2b-public. Nothing is verified.
 */
export async function loadHostEvidence(path: string): Promise<HostEvidenceFiles> {
  if (!(await isFolder(path))) return { bundle: parseHostBundle(await readFileBounded(path, maxBundleBytes)) }
  const read = (name: string, maximum: number): Promise<Uint8Array> => readFileBounded(join(path, name), maximum)
  const ekCertificate = await optional(read("ek-certificate.der", maxCertificateBytes))
  const ekPublic = await optional(read("ek.tpm2b-public", maxQuoteBytes))
  return {
    bundle: {
      quote: await read("quote.msg", maxQuoteBytes),
      signature: await read("quote.sig", maxQuoteBytes),
      akPublic: await read("ak.tpm2b-public", maxQuoteBytes),
      eventLog: await read("eventlog.bin", maxEventLogBytes),
      ima: { from: 0, list: await read("ima.bin", maxImaListBytes) },
    },
    ...(ekCertificate === undefined ? {} : { ekCertificate }),
    ...(ekPublic === undefined ? {} : { ekPublic }),
  }
}

/**
 * Identities of enrolled machines, as `perun host list --json` prints them on its last line.
 * @throws {MalformedError}
 */
export async function loadEnrolments(path: string): Promise<readonly TpmIdentity[]> {
  const last = parseUtf8(await readFileBounded(path, maxBundleBytes), path)
    .trimEnd()
    .split("\n")
    .at(-1)
  const result = enrolmentsSchema.safeParse(parseJson(last ?? "", { maxBytes: maxBundleBytes }))
  if (!result.success) throw new MalformedError("malformed", "not what perun host list --json prints", { path, cause: result.error })
  return result.data.hosts.flatMap(({ identity }) => (isTeeIdentity(identity) ? [] : [identity]))
}

const enrolmentsSchema = hostListSchema.extend({ ok: z.literal(true) })

/** The enrolment under which a TPM's quoting key was proved, by that key's name; undefined where none is of it. */
export function enrolmentOfKey(enrolments: readonly TpmIdentity[], { akPublic }: HostBundle): TpmIdentity | undefined {
  const name = tpmNameText(parseSizedPublicArea(akPublic))
  return enrolments.find(({ attestationKeyName }) => attestationKeyName === name)
}

/** The pinned vendor roots and, marked as such, laboratory roots from PEM files. */
export async function rootsWith(laboratoryFiles: readonly string[]): Promise<readonly TrustedRoot[]> {
  const roots = [...loadVendorRoots()]
  for (const path of laboratoryFiles) {
    const certificates = parsePemCertificates(parseUtf8(await readFileBounded(path, 1 << 20), path))
    roots.push(...certificates.map(laboratoryRoot))
  }
  return roots
}

export async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory()
  } catch (cause) {
    throw new UnavailableError("unavailable", "no such file or folder", { path, cause })
  }
}

async function optional(reading: Promise<Uint8Array>): Promise<Uint8Array | undefined> {
  try {
    return await reading
  } catch (error) {
    if (error instanceof UnavailableError && error.code === "unavailable") return undefined
    throw error
  }
}

/** Largest bundle of a host. */
export const maxBundleBytes = 128 * 1024 * 1024
const maxCertificateBytes = 65_536
