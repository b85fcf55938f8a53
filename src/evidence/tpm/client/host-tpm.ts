import { readAll } from "../../../bytes/reader.ts"
import type { PcrSelection } from "../format.ts"
import { tpmNameText } from "../keys.ts"
import { encodeSizedPublicArea, parseSizedPublicArea, readSized } from "../public-area.ts"
import * as commands from "./commands.ts"
import type { LoadedObject, PcrValues, Quote } from "./commands.ts"
import { TpmConnection } from "./connection.ts"
import { permanentHandles } from "./constants.ts"
import { capDigest, sealToPcrs, unsealFromPcrs, type SealedBytes } from "./seal.ts"
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

/** The TPM of this host: what it needs to prove itself and to keep a secret. One operation at a time, so that the few slots of the TPM suffice. */
export class HostTpm implements AsyncDisposable {
  readonly #tpm: TpmConnection
  /** Kept loaded: a slow chip takes a second to make it, and a lease asks for a quote every minute. */
  #attestationKey: LoadedObject | undefined
  #last: Promise<unknown> = Promise.resolve()

  private constructor(tpm: TpmConnection) {
    this.#tpm = tpm
  }

  /** @throws {UnavailableError} where there is no TPM, in one line that says why */
  static async open(location: TpmLocation = defaultTpmLocation): Promise<HostTpm> {
    const tpm = await TpmConnection.open(location)
    try {
      // Without a resource manager nobody else tidies up after a program that was killed.
      if (!("device" in location)) await flushLeftovers(tpm)
      return new HostTpm(tpm)
    } catch (error) {
      await tpm[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Over a connection that is open already; it belongs to the HostTpm from then on. */
  static over(tpm: TpmConnection): HostTpm {
    return new HostTpm(tpm)
  }

  /** For people: where the TPM is. */
  get name(): string {
    return this.#tpm.name
  }

  /** Endorsement key, its certificates and the attestation key. @throws {TpmError} */
  async collectEndorsement(): Promise<Endorsement> {
    return await this.#exclusively(async () => {
      const endorsement = await openEndorsementKey(this.#tpm)
      await using ek = endorsement.key
      const ak = await this.#openAttestationKey()
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
    return await this.#exclusively(async () => {
      const endorsement = await openEndorsementKey(this.#tpm)
      await using ek = endorsement.key
      const ak = await this.#openAttestationKey()
      await using session = await commands.startSession(this.#tpm, { kind: "hmac", saltKey: ek })
      const akUse = { session, authValue: empty, entityName: ak.name, decrypt: true, encrypt: true }
      return await this.#withEndorsementUse(endorsement, async (ekUse) =>
        commands.activateCredential(this.#tpm, { key: ak, use: akUse }, { key: ek, use: ekUse }, credential, encryptedSecret),
      )
    })
  }

  /** Authorization for the endorsement key: its policy in the low range of profiles, its empty authValue in the high range. EK Credential Profile, B.3, B.6. */
  async #withEndorsementUse<T>({ key }: EndorsementKey, work: (use: SessionUse) => Promise<T>): Promise<T> {
    if (key.publicArea.attributes.has("userWithAuth")) return await work(commands.passwordUse())
    await using session = await commands.startSession(this.#tpm, { kind: "policy", saltKey: key })
    await commands.policySecret(this.#tpm, session, permanentHandles.endorsement)
    return await work({ session, authValue: empty, entityName: key.name })
  }

  /** A quote by the attestation key. @throws {TypeError} for more than 32 bytes of `extraData` */
  async quote(extraData: Uint8Array, selection: readonly PcrSelection[]): Promise<Quote> {
    return await this.#exclusively(async () => commands.quote(this.#tpm, await this.#openAttestationKey(), extraData, selection))
  }

  /** TPM2B_PUBLIC of the attestation key. */
  async attestationPublic(): Promise<Uint8Array> {
    return await this.#exclusively(async () => encodeSizedPublicArea((await this.#openAttestationKey()).publicArea))
  }

  /** Name of the attestation key, lower-case hexadecimal: what sessions and identity records call it. */
  async attestationKeyName(): Promise<string> {
    return tpmNameText(parseSizedPublicArea(await this.attestationPublic()))
  }

  async readPcrs(selection: PcrSelection): Promise<PcrValues> {
    return await this.#exclusively(() => commands.readPcrs(this.#tpm, selection))
  }

  /** Extends one register; `digest` has the size of the bank's hash. */
  async pcrExtend(pcr: number, bank: PcrSelection["bank"], digest: Uint8Array): Promise<void> {
    await this.#exclusively(() => commands.extendPcr(this.#tpm, pcr, bank, digest))
  }

  /** Seals up to 128 bytes to registers as they are now. */
  async sealToPcrs(data: Uint8Array, selection: PcrSelection): Promise<SealedBytes> {
    return await this.#exclusively(() => sealToPcrs(this.#tpm, data, selection))
  }

  /** @throws {TpmError} `policy-failed`, `wrong-credential` */
  async unseal(sealed: SealedBytes): Promise<Uint8Array> {
    return await this.#exclusively(() => unsealFromPcrs(this.#tpm, sealed))
  }

  /** Changes a register for good, so that nothing that was sealed to it opens again before the machine restarts. */
  async cap(pcr: number, bank: "sha256" | "sha384" | "sha512"): Promise<void> {
    await this.pcrExtend(pcr, bank, capDigest(bank))
  }

  /** Random bytes of the TPM. @throws {UnavailableError} where it has no entropy */
  async getRandom(sizeBytes: number): Promise<Uint8Array> {
    return await this.#exclusively(() => commands.getRandom(this.#tpm, sizeBytes))
  }

  async #openAttestationKey(): Promise<LoadedObject> {
    this.#attestationKey ??= await openAttestationKey(this.#tpm)
    return this.#attestationKey
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work)
    // The next operation waits for this one, whatever becomes of it.
    this.#last = turn.catch(() => undefined)
    return await turn
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last
    await this.#attestationKey?.[Symbol.asyncDispose]()
    await this.#tpm[Symbol.asyncDispose]()
  }
}

const empty = new Uint8Array(0)

/** Content of a whole TPM2B. An RSA-4096 secret is the largest that comes here. */
function parseSized(what: string, bytes: Uint8Array): Uint8Array {
  return readAll(what, bytes, (reader) => readSized(reader, 1024, "buffer"))
}

/** First handles of transient objects and of loaded HMAC and policy sessions. TPM 2.0 Library Part 2, 7.2. */
const leftoverRanges = [0x80000000, 0x02000000, 0x03000000] as const

async function flushLeftovers(tpm: TpmConnection): Promise<void> {
  for (const range of leftoverRanges) for (const handle of await commands.getHandles(tpm, range)) await tpm.flush(handle)
}
