/** One entry of the IMA measurement list. */
export interface ImaEntry {
  /** Place in the list, from 0. */
  readonly index: number
  readonly pcr: number
  readonly template: string
  /** Hash algorithm of the file digest, e.g. `sha256`; `sha1` in the old `ima` template; "" for a violation of the old template. */
  readonly hashAlgorithm: string
  /** File digest, lower-case hexadecimal; all zero in a violation. */
  readonly digest: string
  /** Name as the kernel logged it: bytes, for a name may hold anything. A claim of some mount namespace, never to be judged alone. */
  readonly name: Uint8Array
  /** The digest is that of the fs-verity descriptor, not of the file's bytes: never to be compared with file digests. */
  readonly verity?: boolean
  /** Signature from the `sig` or `evmsig` field, if any; raw bytes of the security.ima or security.evm format. See signature.ts. */
  readonly signature?: Uint8Array
  /** Appended signature of a `modsig` field (PKCS#7, DER), if any. It is over `modsigDigest`, the file without the signature. */
  readonly modsig?: Uint8Array
  /** `<algorithm>:<hexadecimal>` of the file without its appended signature, from the `d-modsig` field. */
  readonly modsigDigest?: string
  /** What an EVM signature covers besides: extended attributes and owner, from the template `evm-sig`. */
  readonly inode?: ImaInode
  /** Data of an ima-buf entry (kernel command line of kexec, keys, critical data), if any. */
  readonly buffer?: Uint8Array
  /** The kernel could not vouch for what was read: opened for writing while measured, or the other way round. */
  readonly violation: boolean
}

/** Metadata of a measured file as the `evm-sig` template logs it. */
export interface ImaInode {
  readonly xattrs: readonly { readonly name: string; readonly value: Uint8Array }[]
  readonly uid: number
  readonly gid: number
  readonly mode: number
}

export interface ImaClaims {
  /** Entries that the quoted register certifies, from the first one that was given (see `firstIndex`). */
  readonly entries: readonly ImaEntry[]
  /** Index of `entries[0]` in the list of this boot: 0, or the count that an earlier verification certified. */
  readonly firstIndex: number
  /** Number of entries of this boot that the quoted register certifies, from the start. */
  readonly certifiedCount: number
  /** Entries behind the certified ones: logged but not yet in the register. They must be certified at the next quote. */
  readonly uncertified: readonly ImaEntry[]
  /**
   * Value of boot_aggregate, `<algorithm>:<hexadecimal>`, recomputed from PCR 0 to 9 and found equal; undefined where judged earlier (incremental).
   * After kexec the list has further entries of that name: those that equal this value are right, others are ordinary entries.
   */
  readonly bootAggregate?: string
  /** How entries were extended into the judged bank. */
  readonly extendRule: "per-bank" | "padded-sha1"
  readonly violations: number
  /** State to go on from at the next quote of the same boot. */
  readonly state: ImaState
}

/** What an incremental verification goes on from; the verifier keeps it, never the host. */
export interface ImaState {
  /** Entries certified so far. */
  readonly count: number
  /** Register value after them, lower-case hexadecimal. */
  readonly pcr: string
  /** Chain over the certified entries' exact bytes: SHA-256(previous ‖ entry), from 32 zero bytes; lower-case hexadecimal. */
  readonly prefix: string
  /** Which extend rule the boot uses. */
  readonly extendRule: "per-bank" | "padded-sha1"
  /** Values of registers other than 10 that the list extends (policy rules with `pcr=`), by index, lower-case hexadecimal. */
  readonly otherPcrs?: Readonly<Record<string, string>>
  /** What was logged but not yet certified: the next quote must certify exactly these entries. Count and chain value behind the last of them. */
  readonly pending?: { readonly count: number; readonly prefix: string }
}
