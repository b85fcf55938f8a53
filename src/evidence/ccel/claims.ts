/** One event of a CC event log that extends a register, with what its digest certifies. */
export interface CcelEvent {
  /** Place in the log, from 0, counting every record. */
  readonly index: number
  /** 0 to 3: RTMR0 to RTMR3. */
  readonly rtmr: number
  /** Event type by its TCG name, or `0x…`. Covered by no hash: policy must not rest on it alone. */
  readonly type: string
  /** SHA-384, lower-case hexadecimal. */
  readonly digest: string
  /** One readable line for people, made from certified data only; "" where nothing is certified. */
  readonly description: string
  readonly certified: boolean
}

/** What the log of a TD explains about the registers of its quote. */
export interface CcelClaims {
  readonly events: readonly CcelEvent[]
  /** The quoted values that the log leads to, RTMR0 to RTMR2, lower-case hexadecimal. */
  readonly rtmrs: readonly [string, string, string]
  /**
   * RTMR3, which software in the TD extends: `unused` (zero, no event), `explained` (by the events of register 3), `unexplained` (it holds a value, the log has
   * no event for it). A policy that cites RTMR3 takes `explained` only.
   */
  readonly rtmr3: "unused" | "explained" | "unexplained"
  readonly secureBoot: "enabled" | "disabled" | "unknown"
  /** Kernel command lines in RTMR2 whose text is certified, in order, without trailing NUL. */
  readonly commandLines: readonly string[]
  /** Digests of load options and initial ram disks as the Linux EFI stub labels them; labels are the host's words, so compare all of them. */
  readonly loadOptions: readonly string[]
  readonly initrds: readonly string[]
  /** Digests in RTMR1 that no certified text explains: boot loaders, kernels, drivers, in order. */
  readonly images: readonly string[]
  /** Faults of the firmware that were accepted because the caller named them. */
  readonly quirks: readonly string[]
  /** Bytes of padding behind the last event. */
  readonly trailingBytes: number
}
