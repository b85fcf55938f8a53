import { UnavailableError } from "../bytes/error.ts"
import { parseCertificate } from "../pki/certificate.ts"
import { LaboratoryTimeAuthority, type StampInput } from "../pki/timestamp-authority.testing.ts"
import type { TimeSource } from "./time-check.ts"

/** A laboratory's time-stamping authority as a manager's source: real stamps of whatever time the test says is the true one. */
export class LaboratoryTimeSource implements TimeSource {
  readonly url = "http://time.test/"
  readonly authority = new LaboratoryTimeAuthority()
  readonly roots = [parseCertificate(this.authority.root)]
  readonly answers: Uint8Array[] = []
  readonly #trueTime: () => number
  isSilent = false
  /** What it does otherwise than it should. */
  change: Partial<StampInput> = {}
  /** Runs between the stamp and its arrival. */
  onWay: () => void | Promise<void> = () => undefined
  /** Given in place of a stamp. */
  replayed: Uint8Array | undefined

  constructor(trueTime: () => number) {
    this.#trueTime = trueTime
  }

  async ask(request: Uint8Array): Promise<Uint8Array> {
    if (this.isSilent) throw new UnavailableError("unavailable", "no authority there")
    const answer = this.replayed ?? this.authority.answer(request, { genTime: this.#trueTime(), ...this.change })
    this.answers.push(answer)
    await this.onWay()
    return answer
  }
}
