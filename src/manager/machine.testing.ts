import { constants, createDecipheriv, createHash, createPublicKey, privateDecrypt, type KeyObject } from "node:crypto"
import { digestOf, sha256, type Digest } from "../bytes/digest.ts"
import { concatBytes } from "../bytes/compare.ts"
import { readAll } from "../bytes/reader.ts"
import { encodeBase64, encodeHex, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"
import type { HostBundleDocument } from "../evidence/bundle.ts"
import { encodeEventLog, parseEventLog as parseLog, type LogEvent } from "../evidence/eventlog/format.ts"
import { replayEventLog, startValue } from "../evidence/eventlog/replay.ts"
import { eventTypes } from "../evidence/eventlog/types.ts"
import { verifyEventLog } from "../evidence/eventlog/verify.ts"
import { hostPcrs } from "../evidence/host/verify.ts"
import { kdfA } from "../evidence/tpm/client/kdf.ts"
import { parseIdObject } from "../evidence/tpm/format.ts"
import { tpmName, tpmNameText } from "../evidence/tpm/keys.ts"
import { encodeSizedPublicArea, type RsaPublicArea, type EccPublicArea } from "../evidence/tpm/public-area.ts"
import { endorsementAttributes, makeEccKey, makeQuote, makeRsaKey, type SoftwareKey, without } from "../evidence/tpm/software-tpm.testing.ts"
import { basicConstraintsOf, directoryNameOf, keyUsageOf, type KeyPair, makeCertificate, makeKeyPair, purposesOf } from "../pki/authority.testing.ts"
import { captureBootReference, captureImaReference } from "../policy/capture.ts"
import type { BootReference, ImaReference } from "../policy/reference.ts"
import type { EnrolmentChallenge, TpmEnrolmentRequest } from "../protocol/messages.ts"

/** A laboratory authority and machines for tests: software keys in the place of a TPM, logs in their real formats. */
export interface Authority {
  /** DER. */
  readonly root: Uint8Array
  certify(key: KeyObject): Uint8Array
}

export class LaboratoryAuthority implements Authority {
  readonly #key: KeyPair = makeKeyPair()
  /** DER. */
  readonly root: Uint8Array
  readonly #name: string
  #serial = 1

  constructor(name = "lab root") {
    this.#name = name
    this.root = makeCertificate({
      subject: name,
      issuer: name,
      key: this.#key,
      issuerKey: this.#key,
      notAfter: "2040-01-01T00:00:00Z",
      extensions: [basicConstraintsOf(true), keyUsageOf(0x04)],
    })
  }

  certify(key: KeyObject): Uint8Array {
    const publicKey = createPublicKey(key)
    return makeCertificate({
      subject: "",
      issuer: this.#name,
      key: { publicKey, privateKey: key },
      issuerKey: this.#key,
      serial: ++this.#serial,
      notAfter: "2040-01-01T00:00:00Z",
      extensions: [
        basicConstraintsOf(false),
        keyUsageOf(0x20),
        purposesOf(false, "2.23.133.8.1"),
        directoryNameOf([
          ["2.23.133.2.1", "id:00001014"],
          ["2.23.133.2.2", "software"],
          ["2.23.133.2.3", "id:20191023"],
        ]),
      ],
    })
  }
}

const bank = "sha256"
const separator = new Uint8Array(4)
/** PCR, event type, data; the digest is over the data. */
const bootEvents: readonly (readonly [number, keyof typeof eventTypes, Uint8Array])[] = [
  [0, "EV_S_CRTM_VERSION", encodeUtf8("1.0")],
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((pcr) => [pcr, "EV_SEPARATOR", separator] as const),
  [8, "EV_IPL", new Uint8Array(0)],
  [9, "EV_EVENT_TAG", encodeUtf8("kernel and initrd")],
  [5, "EV_EFI_ACTION", encodeUtf8("Exit Boot Services Invocation")],
  [5, "EV_EFI_ACTION", encodeUtf8("Exit Boot Services Returned with Success")],
]

const plainCommandLine = "/vmlinuz ima_policy=tcb"

/** The shortest policy that lists all that must be. */
export const imaRules = ["BPRM", "MMAP", "FILE", "MODULE", "FIRMWARE", "POLICY", "KEXEC_KERNEL", "KEXEC_INITRAMFS", "KEY"]
  .map((check) => `measure func=${check}_CHECK\n`)
  .concat("measure func=KEXEC_CMDLINE\n", "measure func=CRITICAL_DATA\n")
  .join("")
export const goodProgram = encodeUtf8("#!/usr/bin/node")

/** One machine in one boot. */
export class LaboratoryMachine {
  readonly ek: SoftwareKey<RsaPublicArea>
  readonly ak: SoftwareKey<EccPublicArea>
  readonly ekCertificate: Uint8Array
  /** UEFI log. */
  readonly eventLog: Uint8Array
  readonly #bootPcrs: ReadonlyMap<number, Uint8Array>
  readonly #entries: Uint8Array[] = []
  /** What each IMA entry extends register 10 with, in the SHA-256 bank. */
  readonly imaExtends: Uint8Array[] = []
  #imaPcr: Uint8Array = new Uint8Array(32)
  resetCount = 1
  clock = 1000n

  /** `commandLine`: with the kernel's path in front, as GRUB measures it. `moreEvents`: further ones of the boot, as real firmware has. */
  constructor(authority: Authority, changedBoot = "", commandLine = plainCommandLine, moreEvents = 0) {
    const symmetric = { algorithm: "aes", keyBits: 128, mode: "cfb" } as const
    const ek = makeRsaKey({ attributes: new Set(endorsementAttributes), symmetric, authPolicy: new Uint8Array(32) })
    this.ek = { ...ek, area: without(ek.area, "scheme") }
    this.ak = makeEccKey()
    this.ekCertificate = authority.certify(this.ek.privateKey)
    this.eventLog = makeEventLog(changedBoot, commandLine, moreEvents)
    this.#bootPcrs = bootRegisters(this.eventLog)
    const aggregate = sha256(concatBytes(...Array.from({ length: 10 }, (_, pcr) => this.#bootPcrs.get(pcr) ?? new Uint8Array(32))))
    this.#measureDigest("boot_aggregate", aggregate)
    this.measure("/root/etc/ima/policy", encodeUtf8(imaRules))
    this.measure("/usr/bin/agent", goodProgram)
  }

  get akName(): string {
    return tpmNameText(this.ak.area)
  }

  get endorsementKey(): Digest {
    return digestOf(new Uint8Array(createPublicKey(this.ek.privateKey).export({ format: "der", type: "spki" })))
  }

  /** Adds an entry to the IMA list, as when a program is run. */
  measure(path: string, content: Uint8Array): void {
    this.#measureDigest(path, sha256(content))
  }

  #measureDigest(path: string, digest: Uint8Array): void {
    const algorithm = encodeUtf8("sha256:\0")
    const name = encodeUtf8(`${path}\0`)
    const data = new ByteWriter()
      .u32le(algorithm.length + digest.length)
      .bytes(algorithm)
      .bytes(digest)
      .u32le(name.length)
      .bytes(name)
      .take()
    const template = encodeUtf8("ima-ng")
    const entry = new ByteWriter().u32le(10).bytes(sha1(data)).u32le(template.length).bytes(template).u32le(data.length).bytes(data).take()
    this.#entries.push(entry)
    this.imaExtends.push(sha256(data))
    this.#imaPcr = sha256(concatBytes(this.#imaPcr, sha256(data)))
  }

  /** Binary list from an entry on. */
  imaList(from: number): Uint8Array {
    return concatBytes(...this.#entries.filter((_, index) => index >= from))
  }

  enrolmentRequest(host: string): TpmEnrolmentRequest {
    return {
      host,
      ekCertificates: [encodeBase64(this.ekCertificate)],
      ekPublic: encodeBase64(encodeSizedPublicArea(this.ek.area)),
      akPublic: encodeBase64(encodeSizedPublicArea(this.ak.area)),
    }
  }

  /** TPM2_ActivateCredential in software. TPM 2.0 Library Part 1, 24. */
  activate(challenge: EnrolmentChallenge): string {
    if (!("credentialBlob" in challenge)) throw new TypeError("the challenge is not for a TPM")
    const { credentialBlob, secret } = challenge
    const encrypted = readAll("secret", parseBase64(secret), (reader) => reader.bytes(reader.u16be("size"), "secret"))
    const { encIdentity } = parseIdObject(parseBase64(credentialBlob))
    const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256", oaepLabel: encodeUtf8("IDENTITY\0") }
    const seed = new Uint8Array(privateDecrypt({ key: this.ek.privateKey, ...oaep }, encrypted))
    const key = kdfA("sha256", seed, "STORAGE", tpmName(this.ak.area), new Uint8Array(0), 16)
    const decipher = createDecipheriv("aes-128-cfb", key, new Uint8Array(16))
    const plain = concatBytes(decipher.update(encIdentity), decipher.final())
    return encodeBase64(readAll("identity", plain, (reader) => reader.bytes(reader.u16be("size"), "secret")))
  }

  bundle(extraData: Uint8Array, options: { readonly from?: number; readonly withBootLog?: boolean } = {}): HostBundleDocument {
    this.clock += 10n
    const values = new Map(
      [...this.#bootPcrs, [10, this.#imaPcr] as const].toSorted(([a], [b]) => a - b).map(([pcr, value]) => [pcr, encodeHex(value)]),
    )
    const { attest, signature } = makeQuote(this.ak, {
      extraData,
      pcrs: new Map([[bank, values]]),
      attest: { clockInfo: { clock: this.clock, resetCount: this.resetCount, restartCount: 0, safe: true } },
    })
    const from = options.from ?? 0
    return {
      perun: 1,
      tpm: {
        quote: encodeBase64(attest),
        signature: encodeBase64(signature),
        akPublic: encodeBase64(encodeSizedPublicArea(this.ak.area)),
        ...(options.withBootLog === false ? {} : { eventLog: encodeBase64(this.eventLog) }),
        ima: { from, list: encodeBase64(this.imaList(from)) },
      },
    }
  }
}

function makeEventLog(changedBoot: string, commandLine: string, moreEvents: number): Uint8Array {
  const specId = new ByteWriter()
    .bytes(encodeUtf8("Spec ID Event03\0"))
    .bytes(Uint8Array.of(0, 0, 0, 0, 0, 2, 0, 2))
    .u32le(1)
    .u16le(0x000b)
    .u16le(32)
    .u8(0)
    .take()
  const header: LogEvent = {
    index: 0,
    register: 0,
    type: eventTypes.EV_NO_ACTION,
    digests: new Map([["sha1", new Uint8Array(20)]]),
    data: specId,
    end: 0,
  }
  const more = Array.from({ length: moreEvents }, (_, place) => [9, "EV_EVENT_TAG", encodeUtf8(`part ${place}`)] as const)
  const events = [...more, ...bootEvents].map(([register, type, data], index): LogEvent => {
    const content = register === 9 ? concatBytes(data, encodeUtf8(changedBoot)) : register === 8 ? encodeUtf8(commandLine) : data
    return { index: index + 1, register, type: eventTypes[type], digests: new Map([[bank, sha256(content)]]), data: content, end: 0 }
  })
  const banks = [{ algorithm: 0x000b, name: bank, digestBytes: 32 }]
  return encodeEventLog({ format: "crypto-agile", banks, events: [header, ...events], sizeBytes: 0, trailing: new Uint8Array(0) })
}

function bootRegisters(eventLog: Uint8Array): ReadonlyMap<number, Uint8Array> {
  const replay = replayEventLog(parseLog(eventLog), bank)
  return new Map(hostPcrs.pcrs.filter((pcr) => pcr !== 10).map((pcr) => [pcr, replay.registers.get(pcr) ?? startValue(pcr, bank, 0)]))
}

/** Firmware faults of the laboratory machine: it measures no Secure Boot variables. */
const quirks = ["secure-boot-variables-missing"] as const

/** References that a good machine of this kind fits. */
export function captureReferences(
  machine: LaboratoryMachine,
  appliance: BootReference["appliance"] = "none",
  files: readonly { readonly path: string; readonly digest: Digest }[] = [],
): { readonly boot: BootReference; readonly ima: ImaReference } {
  const times = { name: "laboratory", created: "2026-01-01T00:00:00Z", expires: "2030-01-01T00:00:00Z" }
  const quotedPcrs = new Map([...bootRegisters(machine.eventLog)].map(([pcr, value]) => [pcr, encodeHex(value)]))
  const { claims } = verifyEventLog(machine.eventLog, { bank, quotedPcrs, quirks })
  return {
    boot: captureBootReference(claims, { ...times, appliance }),
    ima: captureImaReference({
      ...times,
      files: [{ path: "/usr/bin/agent", digest: digestOf(goodProgram) }, ...files],
      imaPolicy: { path: "/root/etc/ima/policy", rules: imaRules, before: [], replaceable: "no" },
    }),
  }
}

/** IMA's header digests are SHA-1; nothing rests on them. */
function sha1(data: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha1").update(data).digest())
}
