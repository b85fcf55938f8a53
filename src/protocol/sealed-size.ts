/** Room for what sealing adds: 16 bytes per 64 KiB, headers of some 3 KB, the tar's blocks and the index. */
const sealingOverhead = { factor: 1.1, bytes: 1_048_576 } as const

/** Most bytes of ciphertext that an output of a given size in the open may take: the agent keeps to it, the manager takes no more. */
export function maxSealedBytes(plaintextBytes: number): number {
  return Math.ceil(plaintextBytes * sealingOverhead.factor) + sealingOverhead.bytes
}
