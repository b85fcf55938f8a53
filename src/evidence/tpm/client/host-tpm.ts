import { UnavailableError } from "../../../bytes/error.ts"
import { readAll } from "../../../bytes/reader.ts"
import type { PcrSelection } from "../format.ts"
import { tpmNameText } from "../keys.ts"
import { encodeSizedPublicArea, parseSizedPublicArea, readSized } from "../public-area.ts"
import * as commands from "./commands.ts"
import type { LoadedObject, PcrValues, Quote } from "./commands.ts"
import { TpmConnection } from "./connection.ts"
import { permanentHandles } from "./constants.ts"
import { capDigest, sealToPcrs, unsealFromPcrs, type SealedBytes } from "./seal.ts"
import { type CounterBinding, defineCounter, incrementCounter, readCounter } from "./nv-counter.ts"
import { openAttestationKey, openEndorsementKey, type EndorsementKey } from "./keys.ts"
import type { SessionUse } from "./sessions.ts"
import { defaultTpmLocation, type TpmLocation } from "./transport.ts"

/** What a host shows of its TPM when it enrols. */
export interface Endorsement {
  /** The endorsement key's certificate as found in NV memory, then on-die intermediates; empty where the TPM has none. */
  readonly ekCertificates: readonly Uint8Array[]
  /** TPM2B_PUBLIC. */
  readonly ekPublic: Uint8Array
  /** TPM2B_PUBLIC. */
  readonly akPublic: Uint8Array
}

/**
 * The TPM of this host: what it needs to prove itself and to keep a secret. One operation at a time, so that the few slots of the TPM suffice. After an
 * UnavailableError the next operation opens the TPM again; its keys are the same, for they are made from its seeds.
 */
export class HostTpm implements AsyncDisposable {
  /** For people: where the TPM is. */
  readonly name: string
  readonly #connect: () => Promise<TpmConnection>
  #tpm: TpmConnection | undefined
  /** Kept loaded: a slow chip takes a second to make it, and a lease asks for a quote every minute. */
  #attestationKey: LoadedObject | undefined
  #last: Promise<unknown> = Promise.resolve()

  private constructor(connect: () => Promise<TpmConnection>, tpm: TpmConnection) {
    this.name = tpm.name
    this.#connect = connect
    this.#tpm = tpm
  }

  /** @throws {UnavailableError} where there is no TPM, in one line that says why */
  static async open(location: TpmLocation = defaultTpmLocation): Promise<HostTpm> {
    const connect = (): Promise<TpmConnection> => connectTidily(location)
    return new HostTpm(connect, await connect())
  }

  /** Over a connection that is open already; it belongs to the HostTpm from then on, and is not opened again. */
  static over(tpm: TpmConnection): HostTpm {
    return new HostTpm(async () => tpm, tpm)
  }

  /** Endorsement key, its certificates and the attestation key. @throws {TpmError} */
  async collectEndorsement(): Promise<Endorsement> {
    return await this.#exclusively(async (tpm) => {
      const endorsement = await openEndorsementKey(tpm)
      await using ek = endorsement.key
      const ak = await this.#openAttestationKey(tpm)
      return {
        ekCertificates: endorsement.certificates,
        ekPublic: encodeSizedPublicArea(ek.publicArea),
        akPublic: encodeSizedPublicArea(ak.publicArea),
      }
    })
  }

  /**
   * Opens a credential that was made for this TPM's endorsement key and attestation key: the proof that both are in one TPM. The sessions are salted to the
   * endorsement key, and the answer crosses the bus encrypted.
   * `credentialBlob` is a TPM2B_ID_OBJECT, `secret` a TPM2B_ENCRYPTED_SECRET.
   * @throws {TpmError} `wrong-credential` where it was made for other keys
   */
  async activate(credentialBlob: Uint8Array, secret: Uint8Array): Promise<Uint8Array> {
    const credential = parseSized("TPM2B_ID_OBJECT", credentialBlob)
    const encryptedSecret = parseSized("TPM2B_ENCRYPTED_SECRET", secret)
    return await this.#exclusively(async (tpm) => {
      const endorsement = await openEndorsementKey(tpm)
      await using ek = endorsement.key
      const ak = await this.#openAttestationKey(tpm)
      await using session = await commands.startSession(tpm, { kind: "hmac", saltKey: ek })
      const akUse = { session, authValue: empty, entityName: ak.name, decrypt: true, encrypt: true }
      return await withEndorsementUse(tpm, endorsement, async (ekUse) =>
        commands.activateCredential(tpm, { key: ak, use: akUse }, { key: ek, use: ekUse }, credential, encryptedSecret),
      )
    })
  }

  /** A quote by the attestation key. @throws {TypeError} for more than 32 bytes of `extraData` */
  async quote(extraData: Uint8Array, selection: readonly PcrSelection[]): Promise<Quote> {
    return await this.#exclusively(async (tpm) => commands.quote(tpm, await this.#openAttestationKey(tpm), extraData, selection))
  }

  /** TPM2B_PUBLIC of the attestation key. */
  async attestationPublic(): Promise<Uint8Array> {
    return await this.#exclusively(async (tpm) => encodeSizedPublicArea((await this.#openAttestationKey(tpm)).publicArea))
  }

  /** Name of the attestation key, lower-case hexadecimal: what sessions and identity records call it. */
  async attestationKeyName(): Promise<string> {
    return tpmNameText(parseSizedPublicArea(await this.attestationPublic()))
  }

  async readPcrs(selection: PcrSelection): Promise<PcrValues> {
    return await this.#exclusively((tpm) => commands.readPcrs(tpm, selection))
  }

  /** Extends one register; `digest` has the size of the bank's hash. */
  async pcrExtend(pcr: number, bank: PcrSelection["bank"], digest: Uint8Array): Promise<void> {
    await this.#exclusively((tpm) => commands.extendPcr(tpm, pcr, bank, digest))
  }

  /** Seals up to 128 bytes to registers as they are now. */
  async sealToPcrs(data: Uint8Array, selection: PcrSelection): Promise<SealedBytes> {
    return await this.#exclusively((tpm) => sealToPcrs(tpm, data, selection))
  }

  /** @throws {TpmError} `policy-failed`, `wrong-credential` */
  async unseal(sealed: SealedBytes): Promise<Uint8Array> {
    return await this.#exclusively((tpm) => unsealFromPcrs(tpm, sealed))
  }

  /** Changes a register for good, so that nothing that was sealed to it opens again before the machine restarts. */
  async cap(pcr: number, bank: "sha256" | "sha384" | "sha512"): Promise<void> {
    await this.pcrExtend(pcr, bank, capDigest(bank))
  }

  /** Makes a counter, as nv-counter.ts tells; `authValue` is 32 secret bytes. */
  async defineCounter(index: number, authValue: Uint8Array): Promise<CounterBinding> {
    return await this.#exclusively((tpm) => defineCounter(tpm, index, authValue))
  }

  /** @throws {TpmError} `no-such-handle`, `auth-failed`, `forged-response` */
  async readCounter(binding: CounterBinding): Promise<number> {
    return await this.#exclusively((tpm) => readCounter(tpm, binding))
  }

  /** @throws as readCounter */
  async incrementCounter(binding: CounterBinding): Promise<void> {
    await this.#exclusively((tpm) => incrementCounter(tpm, binding))
  }

  /** Random bytes of the TPM. @throws {UnavailableError} where it has no entropy */
  async getRandom(sizeBytes: number): Promise<Uint8Array> {
    return await this.#exclusively((tpm) => commands.getRandom(tpm, sizeBytes))
  }

  async #openAttestationKey(tpm: TpmConnection): Promise<LoadedObject> {
    this.#attestationKey ??= await openAttestationKey(tpm)
    return this.#attestationKey
  }

  async #exclusively<T>(work: (tpm: TpmConnection) => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => this.#withConnection(work))
    // The next operation waits for this one, whatever becomes of it.
    this.#last = turn.catch(() => undefined)
    return await turn
  }

  async #withConnection<T>(work: (tpm: TpmConnection) => Promise<T>): Promise<T> {
    this.#tpm ??= await this.#connect()
    try {
      return await work(this.#tpm)
    } catch (error) {
      if (error instanceof UnavailableError) await this.#disconnect()
      throw error
    }
  }

  async #disconnect(): Promise<void> {
    const tpm = this.#tpm
    const attestationKey = this.#attestationKey
    this.#tpm = undefined
    this.#attestationKey = undefined
    await attestationKey?.[Symbol.asyncDispose]()
    await tpm?.[Symbol.asyncDispose]()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last
    await this.#disconnect()
  }
}

const empty = new Uint8Array(0)

/** Content of a whole TPM2B. An RSA-4096 secret is the largest that comes here. */
function parseSized(what: string, bytes: Uint8Array): Uint8Array {
  return readAll(what, bytes, (reader) => readSized(reader, 1024, "buffer"))
}

async function connectTidily(location: TpmLocation): Promise<TpmConnection> {
  const tpm = await TpmConnection.open(location)
  try {
    // Without a resource manager nobody else tidies up after a program that was killed.
    if (!("device" in location)) await flushLeftovers(tpm)
    return tpm
  } catch (error) {
    await tpm[Symbol.asyncDispose]()
    throw error
  }
}

/** First handles of transient objects and of loaded HMAC and policy sessions. TPM 2.0 Library Part 2, 7.2. */
const leftoverRanges = [0x80000000, 0x02000000, 0x03000000] as const

async function flushLeftovers(tpm: TpmConnection): Promise<void> {
  for (const range of leftoverRanges) for (const handle of await commands.getHandles(tpm, range)) await tpm.flush(handle)
}

/** Authorization for the endorsement key: its policy in the low range of profiles, its empty authValue in the high range. EK Credential Profile, B.3, B.6. */
async function withEndorsementUse<T>(tpm: TpmConnection, { key }: EndorsementKey, work: (use: SessionUse) => Promise<T>): Promise<T> {
  if (key.publicArea.attributes.has("userWithAuth")) return await work(commands.passwordUse())
  await using session = await commands.startSession(tpm, { kind: "policy", saltKey: key })
  await commands.policySecret(tpm, session, permanentHandles.endorsement)
  return await work({ session, authValue: empty, entityName: key.name })
}
