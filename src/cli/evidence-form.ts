import { readdir } from "node:fs/promises"
import { join } from "node:path"
import { readFileBounded } from "../bytes/durable.ts"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { type JsonValue, parseJson } from "../bytes/json.ts"
import { EvidenceError } from "../evidence/errors.ts"
import { type EvidenceKind, evidenceKinds } from "../evidence/kinds.ts"
import { maxTeeEvidenceBytes } from "../evidence/tee/hardware.ts"
import { azureFiles } from "./azure-file.ts"
import { hostFiles, isFolder, maxBundleBytes } from "./evidence-file.ts"
import { teeFiles } from "./tee-file.ts"

/** Which loader and which verification a path is for. */
export type EvidenceForm = "tee" | "azure-vtpm" | "host"

/** What `evidence verify` can read, for people. */
const known =
  "a host's bundle (JSON with tpm) or folder (quote.msg, quote.sig, ak.tpm2b-public, eventlog.bin, ima.bin); a quote of SGX or TDX, a report of SEV-SNP, our JSON of one, or a folder with it (quote.bin, report.bin, evidence.json); an Azure confidential VM's folder (hcl-report.bin, quote.msg, quote.sig, pcrs.json) or our JSON of it; a manager's attestation result (.jwt)"

/**
 * Tells evidence by a folder's names, a document's members or a file's first bytes; the strict loader of that form judges it.
 * @throws {MalformedError} what is none, in one line that says what would be known; `duplicate` and the like of a document
 * @throws {UnavailableError} `unavailable`; `unsupported`: a kind of evidence that is foreseen but not verified here
 * @throws {EvidenceError} `missing-piece`: a paravisor's report without its quote
 */
export async function recogniseEvidence(path: string): Promise<EvidenceForm> {
  if (!(await isFolder(path))) return formOfFile(await readFileBounded(path, maxBundleBytes), path)
  const files = new Set(await readdir(path))
  const hasOne = (names: readonly string[]): boolean => names.some((name) => files.has(name))
  if (hasOne(azureFiles.hclReport)) return "azure-vtpm"
  const document = teeFiles.evidence.find((name) => files.has(name))
  if (document !== undefined) return formOfFile(await readFileBounded(join(path, document), maxTeeEvidenceBytes), join(path, document))
  if (hasOne([...teeFiles.quote, ...teeFiles.report])) return "tee"
  if (hasOne(hostFiles)) return "host"
  throw unknownEvidence(path)
}

/** @returns what to throw for a path with no evidence that is known */
export function unknownEvidence(path: string, cause?: unknown): MalformedError {
  return new MalformedError("malformed", `no evidence that is known here; known are: ${known}`, { path, ...(cause === undefined ? {} : { cause }) })
}

function formOfFile(bytes: Uint8Array, path: string): EvidenceForm {
  if (startsWith(bytes, "{")) return formOfDocument(bytes, path)
  if (startsWith(bytes, "HCLA"))
    throw new EvidenceError(
      "missing-piece",
      "the report of an Azure paravisor says nothing without its virtual TPM's quote: give the folder of both",
      {
        path,
      },
    )
  // Quotes and reports have no mark of their own: their loader tells them by version and size.
  return "tee"
}

function formOfDocument(bytes: Uint8Array, path: string): EvidenceForm {
  // Only a host's list of measurements is ever so long.
  if (bytes.length > maxTeeEvidenceBytes) return "host"
  const document = documentOf(bytes, path)
  if (typeof document !== "object" || document === null || Array.isArray(document)) throw unknownEvidence(path)
  const { kind, tpm } = document as { readonly [member: string]: JsonValue }
  if (kind === undefined) {
    if (tpm === undefined) throw unknownEvidence(path)
    return "host"
  }
  if (kind === "azure-vtpm") return kind
  if (kind === "sgx" || kind === "tdx" || kind === "snp") return "tee"
  if (kind === "dcap-collateral" || kind === "snp-endorsements")
    throw new MalformedError("malformed", "it vouches for a platform and is no evidence: give it beside the evidence with --collateral", { path })
  const foreseen: EvidenceKind | undefined = Object.entries<EvidenceKind>(evidenceKinds).find(([name]) => name === kind)?.[1]
  if (foreseen !== undefined && foreseen.folder === undefined)
    throw new UnavailableError("unsupported", `evidence of the kind ${foreseen.name} is not verified here yet`, { path })
  throw unknownEvidence(path)
}

/** A text that only begins like a document is nothing that is known. */
function documentOf(bytes: Uint8Array, path: string): JsonValue {
  try {
    return parseJson(bytes, { maxBytes: maxTeeEvidenceBytes })
  } catch (cause) {
    if (cause instanceof MalformedError && cause.code === "malformed") throw unknownEvidence(path, cause)
    throw cause
  }
}

function startsWith(bytes: Uint8Array, mark: string): boolean {
  return bytes.length >= mark.length && [...mark].every((letter, at) => bytes[at] === letter.codePointAt(0))
}
