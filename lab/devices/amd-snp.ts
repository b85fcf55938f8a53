import { createHash, generateKeyPairSync, sign } from "node:crypto"
import { ByteWriter } from "../../src/bytes/writer.ts"
import { parseCertificate } from "../../src/pki/certificate.ts"
import { parseRevocationList } from "../../src/pki/crl.ts"
import type { SnpEndorsements } from "../../src/evidence/snp/endorsements.ts"
import { encodeSignedSnpReport, encodeSnpReport } from "../../src/evidence/snp/format.ts"
import type { CpuId, SnpReport, SnpReportVersion } from "../../src/evidence/snp/format.ts"
import { snpProducts } from "../../src/evidence/snp/products.ts"
import type { SnpProduct, Tcb } from "../../src/evidence/snp/products.ts"
import { laboratorySnpRoot } from "../../src/evidence/snp/roots.ts"
import type { SnpRoot } from "../../src/evidence/snp/roots.ts"
import type { AmdAuthority, EndorsementKeyOptions, KeyPair } from "./amd-authority.ts"

/** Fields of a report that a test or a machine sets; whatever is left out is that of an honest, ordinary guest. */
export type ReportFields = Omit<SnpReport, "signedBytes" | "signature">

/** Bytes to put at an offset of the signed part before it is signed: for values that no record can hold. */
export interface Patch {
  readonly at: number
  readonly bytes: readonly number[]
}

/**
 * An AMD processor of a laboratory: makes reports of versions 2 to 5 that are structurally those of silicon, signed by a key that the laboratory's authority
 * certifies. INSECURE: it signs whatever it is told.
 */
export class SnpDevice {
  readonly authority: AmdAuthority
  readonly product: SnpProduct
  readonly chipId: Uint8Array
  readonly tcb: Tcb
  readonly #key: KeyPair

  constructor(authority: AmdAuthority, options: { readonly tcb?: Tcb; readonly chip?: string; readonly key?: KeyPair } = {}) {
    this.authority = authority
    this.product = authority.product
    this.tcb = options.tcb ?? ordinaryTcb[authority.product]
    this.#key = options.key ?? generateKeyPairSync("ec", { namedCurve: "P-384" })
    const digest = new Uint8Array(
      createHash("sha512")
        .update(options.chip ?? "chip 0")
        .digest(),
    )
    this.chipId = digest.map((byte, place) => (place < snpProducts[this.product].chipIdBytes ? byte : 0))
  }

  get root(): SnpRoot {
    return laboratorySnpRoot(parseCertificate(this.authority.ark), this.product)
  }

  /** An ordinary record of this device. */
  fields(version: SnpReportVersion = 5): ReportFields {
    const tcb = this.encodeTcb(this.tcb)
    const firmware = { major: 1, minor: 55, build: 29 }
    return {
      version,
      guestSvn: 0,
      policy: { ...noPolicyBits, smt: true, abiMajor: 0, abiMinor: 31 },
      familyId: new Uint8Array(16),
      imageId: new Uint8Array(16),
      vmpl: 0,
      currentTcb: tcb,
      platformInfo: { ...noPlatformBits, smtEn: true, eccEn: true, aliasCheckComplete: true },
      authorKeyEn: false,
      maskChipKey: false,
      signingKey: "vcek",
      reportData: new Uint8Array(64),
      measurement: new Uint8Array(48).fill(0x4d),
      hostData: new Uint8Array(32),
      idKeyDigest: new Uint8Array(48),
      authorKeyDigest: new Uint8Array(48),
      reportId: new Uint8Array(32).fill(0x1d),
      reportIdMa: new Uint8Array(32).fill(0xff),
      reportedTcb: tcb,
      ...(version === 2 ? {} : { cpu: ordinaryCpu[this.product] }),
      chipId: this.chipId,
      committedTcb: tcb,
      currentFirmware: firmware,
      committedFirmware: firmware,
      launchTcb: tcb,
      ...(version < 4 ? {} : { mitigations: { launch: 1n, current: 3n } }),
    }
  }

  /** A report, 1184 bytes. */
  report(change: Partial<ReportFields> = {}, ...patches: readonly Patch[]): Uint8Array {
    const signedBytes = encodeSignedSnpReport({ ...this.fields(change.version), ...change })
    for (const { at, bytes } of patches) signedBytes.set(bytes, at)
    return encodeSnpReport({ signedBytes, signature: this.#sign(signedBytes) })
  }

  /** Certificates of the key that signs, and an empty revocation list unless told otherwise. */
  endorsements(kind: "vcek" | "vlek" = "vcek", knobs: Partial<EndorsementKeyOptions> = {}, revocationLists?: readonly Uint8Array[]): SnpEndorsements {
    const common = { publicKey: this.#key.publicKey, tcb: this.tcb, ...knobs }
    const hwId = { value: this.chipId.subarray(0, snpProducts[this.product].chipIdBytes), form: "bare" } as const
    const signer = kind === "vcek" ? this.authority.vcek({ hwId, ...common }) : this.authority.vlek(common)
    const lists = revocationLists ?? [this.authority.revocationList()]
    return {
      signer: parseCertificate(signer),
      intermediates: [parseCertificate(kind === "vcek" ? this.authority.ask : this.authority.asvk)],
      revocationLists: lists.map(parseRevocationList),
    }
  }

  /** TCB_VERSION in the layout of the product. */
  encodeTcb(tcb: Tcb): Uint8Array {
    const writer = new ByteWriter()
    for (const component of snpProducts[this.product].tcb) writer.u8(component === null ? 0 : (tcb[component] ?? 0))
    return writer.take()
  }

  #sign(bytes: Uint8Array): Uint8Array {
    return new Uint8Array(sign("sha384", bytes, { key: this.#key.privateKey, dsaEncoding: "ieee-p1363" }))
  }
}

const noPolicyBits = {
  smt: false,
  migrateMa: false,
  debug: false,
  singleSocket: false,
  cxlAllow: false,
  memAes256Xts: false,
  raplDis: false,
  ciphertextHidingDram: false,
  pageSwapDisable: false,
} as const

const noPlatformBits = {
  smtEn: false,
  tsmeEn: false,
  eccEn: false,
  raplDis: false,
  ciphertextHidingDramEn: false,
  aliasCheckComplete: false,
  iommuWriteSafe: false,
  tioEn: false,
} as const

const ordinaryTcb: Readonly<Record<SnpProduct, Tcb>> = {
  Milan: { bootLoader: 4, tee: 0, snp: 24, microcode: 219 },
  Genoa: { bootLoader: 10, tee: 0, snp: 25, microcode: 84 },
  Turin: { fmc: 1, bootLoader: 1, tee: 1, snp: 4, microcode: 81 },
}

const ordinaryCpu: Readonly<Record<SnpProduct, CpuId>> = {
  Milan: { family: 0x19, model: 0x01, stepping: 1 },
  Genoa: { family: 0x19, model: 0x11, stepping: 1 },
  Turin: { family: 0x1a, model: 0x02, stepping: 1 },
}
