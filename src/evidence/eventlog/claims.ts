/** One event of a measured boot that extends a register, with what its digest certifies. */
export interface BootEvent {
  /** Place in the log, from 0, counting every record including EV_NO_ACTION. */
  readonly index: number
  readonly pcr: number
  /** Event type by its TCG name, e.g. `EV_EFI_BOOT_SERVICES_APPLICATION`, or `0x…` where the number is unknown. Covered by no hash: policy must not rest on it alone. */
  readonly type: string
  /** Digest in the judged bank, lower-case hexadecimal. */
  readonly digest: string
  /** One readable line for people, made from certified data only: variable name, command line, device path; "" where nothing is certified. */
  readonly description: string
  /** True when the event's data hashes to its digest, so that `description` says something. */
  readonly certified: boolean
}

/** Facts that hold because event data hashes to its digest. */
export interface BootClaims {
  /** Bank that was judged, e.g. `sha256`. */
  readonly bank: string
  readonly events: readonly BootEvent[]
  /** Final values by register index, computed by replay; only registers with events or a known start value that were asked for. Lower-case hexadecimal. */
  readonly pcrs: ReadonlyMap<number, string>
  /** Locality that started the machine (PCR 0's start value): 0, 3 or 4. */
  readonly startupLocality: number
  readonly secureBoot: "enabled" | "disabled" | "unknown"
  /** Kernel command lines, as measured, in order: from PCR 8 (GRUB), 9 (EFI stub LoadOptions) or 12 (systemd-boot). Without trailing NUL. */
  readonly commandLines: readonly { readonly pcr: number; readonly text: string }[]
  /**
   * Digests of kernel load options (command lines) whose text the log does not hold: the Linux EFI stub measures UTF-16 text into PCR 9 but logs a
   * label only. Lower-case hexadecimal, in order; those that a given candidate explained stand in `commandLines` too. See `loadOptionsDigest`.
   */
  readonly loadOptions: readonly string[]
  /** Authenticode digests of every image that PCR 4 names (boot loaders, kernels), in order: whatever its label, what no certified text explains. */
  readonly images: readonly string[]
  /** Digests of initial ram disks as measured by the kernel's EFI stub or the boot loader, lower-case hexadecimal. */
  readonly initrds: readonly string[]
  /** What systemd measured after the boot into PCR 11 to 15, where its log was given. Never boot evidence: any privileged program can extend these. */
  readonly userspace?: readonly BootEvent[]
  /** Faults of the firmware that were accepted because the caller named them. */
  readonly quirks: readonly string[]
  /** Bytes of padding (0xFF or 0x00) behind the last event. */
  readonly trailingBytes: number
}
