import { PerunError } from "../bytes/error.ts"
import type { OwnCertificate } from "./own-tee.ts"

/** What fails is tried again after this, in milliseconds. */
const retryMilliseconds = 60_000

/**
 * Keeps the certificate that offers a manager's proof fresh: a new one when half of the old one's life is over. A device that is silent for a while leaves the old one standing, and
 * past its end readers refuse it; nothing else that the manager does depends on it.
 */
export class CertificateKeeper {
  readonly #certify: () => Promise<OwnCertificate | undefined>
  readonly #warn: (line: string) => void
  readonly #monotonic: () => number
  /** On the monotonic clock; undefined where there is nothing to renew, or a renewal is under way. */
  #renewAt: number | undefined

  constructor(certify: () => Promise<OwnCertificate | undefined>, warn: (line: string) => void, monotonic: () => number = () => performance.now()) {
    this.#certify = certify
    this.#warn = warn
    this.#monotonic = monotonic
  }

  /** A fresh certificate (DER); undefined for a manager without a TEE. @throws as certifyManager */
  async renew(): Promise<Uint8Array | undefined> {
    this.#renewAt = undefined
    const asked = this.#monotonic()
    const certificate = await this.#certify()
    if (certificate === undefined) return undefined
    this.#renewAt = asked + (certificate.notAfter - certificate.notBefore) / 2
    return certificate.der
  }

  /** Called about once a second; gives `install` a certificate when it is time for a new one. Never throws for a silent device. */
  async tick(install: (certificate: Uint8Array) => void): Promise<void> {
    if (this.#renewAt === undefined || this.#monotonic() < this.#renewAt) return
    try {
      const certificate = await this.renew()
      if (certificate !== undefined) install(certificate)
    } catch (error) {
      if (!(error instanceof PerunError)) throw error
      this.#renewAt = this.#monotonic() + retryMilliseconds
      this.#warn(`the certificate with the manager's evidence cannot be renewed: ${error.message}`)
    }
  }
}
