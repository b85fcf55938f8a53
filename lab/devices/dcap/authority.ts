import { encodeUtf8, parseHex } from "../../../src/bytes/text.ts"
import { encodeChain } from "../../../src/evidence/dcap/certificates.ts"
import type { DcapCollateral, SignedDocument } from "../../../src/evidence/dcap/endorsements.ts"
import { laboratoryDcapRoot } from "../../../src/evidence/dcap/roots.ts"
import type { DcapRoot } from "../../../src/evidence/dcap/roots.ts"
import { parseCertificate } from "../../../src/pki/certificate.ts"
import { derElement, derOid, tags } from "../../../src/pki/der.ts"
import { signRaw } from "./sign-raw.ts"
import {
  basicConstraintsExtension,
  crlNumber,
  encodeLabCertificate,
  encodeLabRevocationList,
  intelName,
  keyUsageExtension,
  makeLabKey,
} from "./x509.ts"
import type { LabCertificate, LabExtension, LabKey, LabRevocationList } from "./x509.ts"

/**
 * A laboratory's copy of Intel's provisioning services: root, processor or platform CA, TCB signing, PCK certificates, revocation lists, TCB info and
 * identities, structurally true, under a root that a policy has to name. INSECURE LABORATORY.
 */

export interface LabKeys {
  readonly root: LabKey
  readonly authority: LabKey
  readonly tcbSigning: LabKey
  readonly pck: LabKey
  readonly attestation: LabKey
}

export function makeLabKeys(): LabKeys {
  return { root: makeLabKey(), authority: makeLabKey(), tcbSigning: makeLabKey(), pck: makeLabKey(), attestation: makeLabKey() }
}

/** What the PCK certificate says of the platform; byte strings are lower-case hexadecimal. */
export interface LabPlatform {
  readonly ppid: string
  readonly components: readonly number[]
  readonly pceSvn: number
  readonly cpuSvn: string
  readonly pceId: string
  readonly fmspc: string
  readonly sgxType: number
  readonly platformInstanceId: string
  readonly configuration: { readonly dynamicPlatform: boolean; readonly cachedKeys: boolean; readonly smtEnabled: boolean }
}

/** JSON documents before they are signed: plain values, so that a test can put anything there. */
export type LabDocument = Readonly<Record<string, unknown>>

/** Changes to what the authority makes; each gets the good one and gives what is used instead. */
export interface AuthorityKnobs {
  readonly keys?: LabKeys
  /** Milliseconds since 1970 at which everything is in the middle of its validity. */
  readonly time?: number
  readonly authorityKind?: "processor" | "platform"
  readonly platform?: Partial<LabPlatform>
  readonly root?: (good: LabCertificate) => LabCertificate
  /** The root's certificate from before, over the same key: what policies have pinned. DER. */
  readonly rootDer?: Uint8Array
  readonly authority?: (good: LabCertificate) => LabCertificate
  readonly tcbSigning?: (good: LabCertificate) => LabCertificate
  readonly pck?: (good: LabCertificate) => LabCertificate
  readonly rootCrl?: (good: LabRevocationList) => LabRevocationList
  readonly pckCrl?: (good: LabRevocationList) => LabRevocationList
  readonly sgxTcbInfo?: (good: LabDocument) => LabDocument
  readonly tdxTcbInfo?: (good: LabDocument) => LabDocument
  readonly qeIdentity?: (good: LabDocument) => LabDocument
  readonly tdQeIdentity?: (good: LabDocument) => LabDocument
  /** The key that signs TCB info and identities, where it is not that of the certificate. */
  readonly documentKey?: LabKey
}

export interface LabAuthority {
  readonly kind: "processor" | "platform"
  readonly root: DcapRoot
  readonly keys: LabKeys
  readonly platform: LabPlatform
  readonly certificates: Readonly<Record<"root" | "authority" | "tcbSigning" | "pck", LabCertificate>>
  /** PEM text: PCK certificate, authority, root. */
  readonly pckChain: Uint8Array
  readonly signingChain: Uint8Array
  readonly sgxCollateral: Required<Omit<DcapCollateral, "pckChain">>
  readonly tdxCollateral: Required<Omit<DcapCollateral, "pckChain">>
}

export const labTime = Date.parse("2026-06-01T00:00:00Z")
const dayMs = 86_400_000

/** QE identities of the laboratory; the MRSIGNERs are Intel's, so that evidence looks as real evidence does. */
export const labQeSigner = "8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff"
export const labTdQeSigner = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"

export const labPlatform: LabPlatform = {
  ppid: "000102030405060708090a0b0c0d0e0f",
  components: [9, 9, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0],
  pceSvn: 13,
  cpuSvn: "09090202040100050000000000000000",
  pceId: "0000",
  fmspc: "b0c06f000000",
  sgxType: 1,
  platformInstanceId: "101112131415161718191a1b1c1d1e1f",
  configuration: { dynamicPlatform: true, cachedKeys: true, smtEnabled: true },
}

export function makeLabAuthority(knobs: AuthorityKnobs = {}): LabAuthority {
  const keys = knobs.keys ?? makeLabKeys()
  const time = knobs.time ?? labTime
  const kind = knobs.authorityKind ?? "platform"
  const platform = { ...labPlatform, ...knobs.platform }
  const rootName = intelName("Intel SGX Root CA")
  const authorityName = intelName(kind === "platform" ? "Intel SGX PCK Platform CA" : "Intel SGX PCK Processor CA")
  const dates = { notBefore: time - 1000 * dayMs, notAfter: time + 2000 * dayMs }
  const signature = "ecdsa-sha256"
  const signer = [basicConstraintsExtension(false), keyUsageExtension(0xc0)]
  const same = <T>(good: T): T => good

  const root = (knobs.root ?? same)({
    subject: rootName,
    issuer: rootName,
    key: keys.root,
    issuerKey: keys.root,
    serial: "22650cd65a9d3489f383b49552bf501b392706ac",
    ...dates,
    extensions: [basicConstraintsExtension(true, 1), keyUsageExtension(0x06)],
    signature,
  })
  const authority = (knobs.authority ?? same)({
    subject: authorityName,
    issuer: rootName,
    key: keys.authority,
    issuerKey: keys.root,
    serial: "15f5dcbdbd1be1e94049c9d4f433ce01570bde54",
    ...dates,
    extensions: [basicConstraintsExtension(true, 0), keyUsageExtension(0x06)],
    signature,
  })
  const tcbSigning = (knobs.tcbSigning ?? same)({
    subject: intelName("Intel SGX TCB Signing"),
    issuer: rootName,
    key: keys.tcbSigning,
    issuerKey: keys.root,
    serial: "7e3882d5fb55294a40498e458403e91491bdf455",
    ...dates,
    extensions: signer,
    signature,
  })
  const pck = (knobs.pck ?? same)({
    subject: intelName("Intel SGX PCK Certificate"),
    issuer: authorityName,
    key: keys.pck,
    issuerKey: keys.authority,
    serial: "5a0102030405060708090a0b0c0d0e0f10111213",
    ...dates,
    extensions: [...signer, sgxExtension(sgxRows(platform, kind))],
    signature,
  })
  const rootDer = knobs.rootDer ?? encodeLabCertificate(root)
  const signingChain = encodeUtf8(encodeChain([encodeLabCertificate(tcbSigning), rootDer]))
  const listDates = { thisUpdate: time - 10 * dayMs, nextUpdate: time + 20 * dayMs }
  const lists = {
    rootCrl: encodeLabRevocationList(
      (knobs.rootCrl ?? same)({ issuer: rootName, issuerKey: keys.root, ...listDates, serials: [], extensions: [crlNumber] }),
    ),
    pckCrl: encodeLabRevocationList(
      (knobs.pckCrl ?? same)({
        issuer: authorityName,
        issuerKey: keys.authority,
        ...listDates,
        serials: ["01020304", "5b000000000000000000000000000000000000aa"],
        extensions: [crlNumber],
      }),
    ),
  }
  const sign = (name: string, document: LabDocument): SignedDocument =>
    signDocument(name, document, knobs.documentKey ?? keys.tcbSigning, signingChain)
  return {
    kind,
    root: laboratoryDcapRoot(parseCertificate(rootDer)),
    keys,
    platform,
    certificates: { root, authority, tcbSigning, pck },
    pckChain: encodeUtf8(encodeChain([encodeLabCertificate(pck), encodeLabCertificate(authority), rootDer])),
    signingChain,
    sgxCollateral: {
      tcbInfo: sign("tcbInfo", (knobs.sgxTcbInfo ?? same)(goodTcbInfo("SGX", platform, time))),
      qeIdentity: sign("enclaveIdentity", (knobs.qeIdentity ?? same)(goodQeIdentity("QE", time))),
      ...lists,
    },
    tdxCollateral: {
      tcbInfo: sign("tcbInfo", (knobs.tdxTcbInfo ?? same)(goodTcbInfo("TDX", platform, time))),
      qeIdentity: sign("enclaveIdentity", (knobs.tdQeIdentity ?? same)(goodQeIdentity("TD_QE", time))),
      ...lists,
    },
  }
}

/** Another platform of the same family, certified by the same authority: the same collateral vouches for it, its PPID and keys are its own. `ppid`: 16 bytes, hexadecimal. */
export function certifyPlatform(authority: LabAuthority, ppid: string): LabAuthority {
  const platform = { ...authority.platform, ppid }
  const keys = { ...authority.keys, pck: makeLabKey(), attestation: makeLabKey() }
  const { pck: good } = authority.certificates
  const kept = good.extensions.filter(({ oid }) => oid !== sgxOid)
  const pck = { ...good, key: keys.pck, serial: `50${ppid}`, extensions: [...kept, sgxExtension(sgxRows(platform, authority.kind))] }
  const issuers = [encodeLabCertificate(authority.certificates.authority), authority.root.certificate.der]
  return {
    ...authority,
    keys,
    platform,
    certificates: { ...authority.certificates, pck },
    pckChain: encodeUtf8(encodeChain([encodeLabCertificate(pck), ...issuers])),
  }
}

/** `{"<name>":…,"signature":"…"}` over the compact JSON of the document. */
export function signDocument(name: string, document: LabDocument, key: LabKey, issuerChain: Uint8Array): SignedDocument {
  return signText(name, JSON.stringify(document), key, issuerChain)
}

/** The same over a text that need not be JSON. */
export function signText(name: string, body: string, key: LabKey, issuerChain: Uint8Array): SignedDocument {
  const signature = Buffer.from(signRaw(key, encodeUtf8(body))).toString("hex")
  return { document: encodeUtf8(`{"${name}":${body},"signature":"${signature}"}`), issuerChain }
}

const sgxOid = "1.2.840.113741.1.13.1"

/** One row of the SGX extensions: identifier and DER value. */
export type SgxRow = readonly [oid: string, value: Uint8Array]

export function sgxRows(platform: LabPlatform, kind: "processor" | "platform"): readonly SgxRow[] {
  const octets = (hex: string): Uint8Array => derElement(tags.octetString, parseHex(hex))
  const boolean = (value: boolean): Uint8Array => derElement(tags.boolean, Uint8Array.of(value ? 0xff : 0))
  const { configuration } = platform
  const rows: SgxRow[] = [
    [`${sgxOid}.1`, octets(platform.ppid)],
    [`${sgxOid}.2`, encodeSgxRows(tcbRows(platform))],
    [`${sgxOid}.3`, octets(platform.pceId)],
    [`${sgxOid}.4`, octets(platform.fmspc)],
    [`${sgxOid}.5`, derElement(tags.enumerated, Uint8Array.of(platform.sgxType))],
  ]
  if (kind === "processor") return rows
  return [
    ...rows,
    [`${sgxOid}.6`, octets(platform.platformInstanceId)],
    [
      `${sgxOid}.7`,
      encodeSgxRows([
        [`${sgxOid}.7.1`, boolean(configuration.dynamicPlatform)],
        [`${sgxOid}.7.2`, boolean(configuration.cachedKeys)],
        [`${sgxOid}.7.3`, boolean(configuration.smtEnabled)],
      ]),
    ],
  ]
}

export function tcbRows(platform: LabPlatform): readonly SgxRow[] {
  return [
    ...platform.components.map((svn, at): SgxRow => [`${sgxOid}.2.${at + 1}`, encodeInteger(svn)]),
    [`${sgxOid}.2.17`, encodeInteger(platform.pceSvn)],
    [`${sgxOid}.2.18`, derElement(tags.octetString, parseHex(platform.cpuSvn))],
  ]
}

export function encodeSgxRows(rows: readonly SgxRow[]): Uint8Array {
  return derElement(tags.sequence, ...rows.map(([oid, value]) => derElement(tags.sequence, derOid(oid), value)))
}

export function sgxExtension(rows: readonly SgxRow[]): LabExtension {
  return { oid: sgxOid, critical: false, value: encodeSgxRows(rows) }
}

/** A non-negative INTEGER. */
export function encodeInteger(value: number): Uint8Array {
  const bytes = [value % 256]
  for (let rest = Math.floor(value / 256); rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256)
  if ((bytes[0] ?? 0) >= 0x80) bytes.unshift(0)
  return derElement(tags.integer, Uint8Array.from(bytes))
}

const zeros: readonly number[] = Array.from({ length: 13 }, () => 0)

/** Two levels: what the platform is, up to date, and one below it, out of date. */
function goodTcbInfo(id: "SGX" | "TDX", platform: LabPlatform, time: number): LabDocument {
  const level = (components: readonly number[], pceSvn: number, tdx: readonly number[], status: object): object => ({
    tcb: {
      sgxtcbcomponents: components.map((svn) => ({ svn, category: "BIOS", type: "Early Microcode Update" })),
      pcesvn: pceSvn,
      ...(id === "TDX" ? { tdxtcbcomponents: tdx.map((svn) => ({ svn })) } : {}),
    },
    ...status,
  })
  const below = platform.components.map((svn) => Math.max(svn - 1, 0))
  const module = { mrsigner: "00".repeat(48), attributes: "0000000000000000", attributesMask: "FFFFFFFFFFFFFFFF" }
  return {
    id,
    version: 3,
    issueDate: isoTime(time - 10 * dayMs),
    nextUpdate: isoTime(time + 20 * dayMs),
    fmspc: platform.fmspc.toUpperCase(),
    pceId: platform.pceId.toUpperCase(),
    tcbType: 0,
    tcbEvaluationDataNumber: 18,
    ...(id === "TDX"
      ? {
          tdxModule: module,
          tdxModuleIdentities: [
            {
              id: "TDX_01",
              ...module,
              tcbLevels: [
                { tcb: { isvsvn: 5 }, tcbDate: "2025-01-01T00:00:00Z", tcbStatus: "UpToDate" },
                { tcb: { isvsvn: 2 }, tcbDate: "2023-01-01T00:00:00Z", tcbStatus: "OutOfDate", advisoryIDs: ["INTEL-SA-00005"] },
              ],
            },
          ],
        }
      : {}),
    tcbLevels: [
      level(platform.components, platform.pceSvn, [5, 0, 7, ...zeros], {
        tcbDate: "2025-01-01T00:00:00Z",
        tcbStatus: "UpToDate",
      }),
      level(below, platform.pceSvn - 1, [3, 0, 6, ...zeros], {
        tcbDate: "2024-01-01T00:00:00Z",
        tcbStatus: "OutOfDate",
        advisoryIDs: ["INTEL-SA-00002", "INTEL-SA-00001"],
      }),
    ],
  }
}

function goodQeIdentity(id: "QE" | "TD_QE", time: number): LabDocument {
  return {
    id,
    version: 2,
    issueDate: isoTime(time - 9 * dayMs),
    nextUpdate: isoTime(time + 21 * dayMs),
    tcbEvaluationDataNumber: 19,
    miscselect: "00000000",
    miscselectMask: "FFFFFFFF",
    attributes: "11000000000000000000000000000000",
    attributesMask: "FBFFFFFFFFFFFFFF0000000000000000",
    mrsigner: (id === "QE" ? labQeSigner : labTdQeSigner).toUpperCase(),
    isvprodid: id === "QE" ? 1 : 2,
    tcbLevels: [
      { tcb: { isvsvn: 8 }, tcbDate: "2025-01-01T00:00:00Z", tcbStatus: "UpToDate" },
      { tcb: { isvsvn: 6 }, tcbDate: "2023-01-01T00:00:00Z", tcbStatus: "OutOfDate", advisoryIDs: ["INTEL-SA-00003"] },
    ],
  }
}

function isoTime(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z")
}
