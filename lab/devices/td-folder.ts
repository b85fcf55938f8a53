import { createPrivateKey, createPublicKey } from "node:crypto"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { AlreadyExistsError, createFileDurably, fromSystemError, readFileBounded, writeFileDurably } from "../../src/bytes/durable.ts"
import { MalformedError, UnavailableError } from "../../src/bytes/error.ts"
import { parseJson } from "../../src/bytes/json.ts"
import { encodeBase64, parseBase64 } from "../../src/bytes/text.ts"
import { encodeChain } from "../../src/evidence/dcap/certificates.ts"
import { encodeDcapCollateral } from "../../src/evidence/dcap/endorsements.ts"
import { makeLabAuthority, type LabAuthority, type LabKeys } from "./dcap/authority.ts"
import type { LabKey } from "./dcap/x509.ts"

/** Files of a device's folder. */
export const tdFiles = { device: "device.json", root: "root.pem", collateral: "collateral.json" } as const

const key = z.string().max(1000)
const schema = z.strictObject({
  perun: z.literal(1),
  insecureLaboratory: z.literal("tdx"),
  /** Certificate that policies pin, DER in base64. */
  root: z.string().max(4000),
  /** PKCS #8 in base64. */
  keys: z.strictObject({ root: key, authority: key, tcbSigning: key, pck: key, attestation: key }),
})
const maxBytes = 65_536

/**
 * The authority of a laboratory's TDX device that has a folder: made at the first call, with the same root and keys ever after, and with collateral as of now.
 * Root and collateral are written beside it. INSECURE LABORATORY: whoever has the folder can say anything in the device's name.
 * @throws {MalformedError} the folder's file is no device; {AlreadyExistsError} the folder is a file; {UnavailableError}
 */
export async function openTdFolder(folder: string): Promise<LabAuthority> {
  await mkdir(folder, { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    throw fromSystemError(error, folder)
  })
  const authority = (await loadDevice(folder)) ?? (await makeDevice(folder))
  await writeFileDurably(join(folder, tdFiles.root), encodeChain([authority.root.certificate.der]))
  await writeFileDurably(join(folder, tdFiles.collateral), encodeDcapCollateral(authority.tdxCollateral))
  return authority
}

async function makeDevice(folder: string): Promise<LabAuthority> {
  const authority = makeLabAuthority({ time: Date.now() })
  const keys = Object.fromEntries(Object.entries(authority.keys).map(([name, { privateKey }]) => [name, encodeBase64(pkcs8Of(privateKey))]))
  const device = { perun: 1, insecureLaboratory: "tdx", root: encodeBase64(authority.root.certificate.der), keys }
  try {
    await createFileDurably(join(folder, tdFiles.device), `${JSON.stringify(device, null, 1)}\n`, { mode: 0o600 })
    return authority
  } catch (error) {
    // Two that start at once share the device of the first.
    const other = error instanceof AlreadyExistsError ? await loadDevice(folder) : undefined
    if (other === undefined) throw error
    return other
  }
}

async function loadDevice(folder: string): Promise<LabAuthority | undefined> {
  const path = join(folder, tdFiles.device)
  let bytes: Uint8Array
  try {
    bytes = await readFileBounded(path, maxBytes)
  } catch (error) {
    if (error instanceof UnavailableError && error.code === "unavailable") return undefined
    throw error
  }
  try {
    const { root, keys } = schema.parse(parseJson(bytes, { maxBytes }))
    const known: LabKeys = {
      root: keyOf(keys.root),
      authority: keyOf(keys.authority),
      tcbSigning: keyOf(keys.tcbSigning),
      pck: keyOf(keys.pck),
      attestation: keyOf(keys.attestation),
    }
    return makeLabAuthority({ keys: known, rootDer: parseBase64(root, "root"), time: Date.now() })
  } catch (cause) {
    throw new MalformedError("malformed", "is not what perun lab td wrote; take it away to have a new device, which no policy knows", { path, cause })
  }
}

function pkcs8Of(privateKey: LabKey["privateKey"]): Uint8Array {
  return new Uint8Array(privateKey.export({ type: "pkcs8", format: "der" }))
}

function keyOf(text: string): LabKey {
  const privateKey = createPrivateKey({ key: Buffer.from(parseBase64(text, "keys")), format: "der", type: "pkcs8" })
  return { privateKey, publicKey: createPublicKey(privateKey) }
}
