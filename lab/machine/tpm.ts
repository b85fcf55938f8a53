import { X509Certificate } from "node:crypto"
import { chmod, mkdir, readFile, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { digestOf, type Digest } from "../../src/bytes/digest.ts"
import { cachedFolder, exists, withLock } from "../cache.ts"
import { runProgram } from "../process.ts"

/** A laboratory TPM before its first boot: its state folder and what a verifier may know of it. INSECURE LABORATORY: whoever has the folder has its keys. */
export interface LabTpm {
  /** swtpm's state; a machine changes it, so one TPM belongs to one machine. */
  readonly folder: string
  /** SHA-256 of the endorsement key's SubjectPublicKeyInfo (DER), RSA 2048: what a policy lists in `endorsementKeys`. */
  readonly endorsementKey: Digest
  /** Endorsement certificates as they lie in the TPM's NV memory (RSA at 0x1c00002, P-384 at 0x1c00016), DER. */
  readonly ekCertificateDer: Uint8Array
  readonly ekEccCertificateDer: Uint8Array
  /** SHA-256 of the P-384 endorsement key's SubjectPublicKeyInfo. */
  readonly endorsementKeyEcc: Digest
  /** The laboratory's TPM authority, which signed both directly; DER. Its SHA-256 is what a policy pins in `laboratoryRoots`. */
  readonly rootDer: Uint8Array
}

/** The laboratory's TPM authority of this cache: stable between runs. */
export interface LabCa {
  readonly rootPem: string
  readonly rootDer: Uint8Array
  /** SHA-256 of the certificate. */
  readonly fingerprint: Digest
}

/**
 * Makes a TPM that no machine has used, with new endorsement keys certified by the laboratory's authority.
 * @throws {LabError} `program-failed`
 */
export async function manufactureTpm(folder: string): Promise<LabTpm> {
  const ca = await labCa()
  const certificates = join(folder, "certificates")
  await rm(folder, { recursive: true, force: true })
  await mkdir(certificates, { recursive: true, mode: 0o700 })
  // One at a time: the authority counts its serial numbers in a file.
  await withLock("tpm-ca-use", async () => {
    await runProgram("swtpm_setup", [
      "--tpm2",
      "--tpmstate",
      folder,
      "--config",
      join(await caFolder(), "setup.conf"),
      "--create-ek-cert",
      "--lock-nvram",
      "--pcr-banks",
      "sha256",
      "--write-ek-cert-files",
      certificates,
      "--logfile",
      join(folder, "manufacture.log"),
    ])
  })
  return await tpmOf(folder, ca)
}

/** The TPM that `manufactureTpm` made in this folder, or undefined where there is none. */
export async function loadTpm(folder: string): Promise<LabTpm | undefined> {
  if (!(await exists(join(folder, "certificates", "ek-rsa2048.crt")))) return undefined
  return await tpmOf(folder, await labCa())
}

async function tpmOf(folder: string, ca: LabCa): Promise<LabTpm> {
  const certificates = join(folder, "certificates")
  const ekCertificateDer = new Uint8Array(await readFile(join(certificates, "ek-rsa2048.crt")))
  const ekEccCertificateDer = new Uint8Array(await readFile(join(certificates, "ek-secp384r1.crt")))
  return {
    folder,
    ekCertificateDer,
    ekEccCertificateDer,
    endorsementKey: publicKeyDigest(ekCertificateDer),
    endorsementKeyEcc: publicKeyDigest(ekEccCertificateDer),
    rootDer: ca.rootDer,
  }
}

export async function labCa(): Promise<LabCa> {
  const rootPem = await readFile(join(await caFolder(), "root.pem"), "utf8")
  const rootDer = new Uint8Array(new X509Certificate(rootPem).raw)
  return { rootPem, rootDer, fingerprint: digestOf(rootDer) }
}

function publicKeyDigest(certificateDer: Uint8Array): Digest {
  return digestOf(new Uint8Array(new X509Certificate(certificateDer).publicKey.export({ type: "spki", format: "der" })))
}

/** The authority's folder in the cache, made when the first TPM is. swtpm's tools find key and certificate by the configuration in it. */
async function caFolder(): Promise<string> {
  const folder = await cachedFolder("tpm-ca", async (temporary) => {
    await makeRoot(temporary)
    await writeFile(join(temporary, "localca.options"), "--platform-manufacturer Perun\n--platform-version 1\n--platform-model Laboratory\n")
  })
  // Paths in the configuration are absolute, so it is written where the folder lies now.
  if (!(await exists(join(folder, "setup.conf")))) {
    const tool = (await exists("/usr/bin/swtpm_localca")) ? "/usr/bin/swtpm_localca" : "swtpm_localca"
    const lines = (pairs: readonly (readonly [string, string])[]): string => pairs.map(([name, value]) => `${name} = ${value}\n`).join("")
    await writeFile(
      join(folder, "localca.conf"),
      lines([
        ["statedir", folder],
        ["signingkey", join(folder, "root-key.pem")],
        ["issuercert", join(folder, "root.pem")],
        ["certserial", join(folder, "serial")],
      ]),
    )
    await writeFile(
      join(folder, "setup.conf"),
      lines([
        ["create_certs_tool", tool],
        ["create_certs_tool_config", join(folder, "localca.conf")],
        ["create_certs_tool_options", join(folder, "localca.options")],
        ["active_pcr_banks", "sha256"],
      ]),
    )
  }
  return folder
}

/**
 * A self-signed authority, so that a TPM's certificate chains to the pinned root without a link that nobody carries. GnuTLS's tool makes it, which swtpm's
 * tools use too.
 */
async function makeRoot(folder: string): Promise<void> {
  const template = [
    "cn = Perun laboratory TPM authority (insecure)",
    "serial = 1",
    "expiration_days = 7300",
    "ca",
    "path_len = 0",
    "cert_signing_key",
    "crl_signing_key",
  ]
  await writeFile(join(folder, "root.template"), `${template.join("\n")}\n`)
  const key = join(folder, "root-key.pem")
  await runProgram("certtool", ["--generate-privkey", "--key-type", "rsa", "--bits", "3072", "--no-text", "--outfile", key])
  await chmod(key, 0o600)
  await runProgram("certtool", [
    ...["--generate-self-signed", "--hash", "SHA256", "--load-privkey", key, "--template", join(folder, "root.template"), "--no-text"],
    ...["--outfile", join(folder, "root.pem")],
  ])
}
