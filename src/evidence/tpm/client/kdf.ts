import { createHmac } from "node:crypto"
import { concatBytes } from "../../../bytes/compare.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { encodeUtf8 } from "../../../bytes/text.ts"
import { ByteWriter } from "../../../bytes/writer.ts"
import { hash, type HashName } from "../../../pki/signatures.ts"

export function hmac(name: HashName, key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(
    createHmac(name, key)
      .update(concatBytes(...parts))
      .digest(),
  )
}

/** KDFa: SP 800-108 in counter mode with HMAC; whole bytes only. TPM 2.0 Library Part 1, 11.4.10.2. */
export function kdfA(name: HashName, key: Uint8Array, label: string, contextU: Uint8Array, contextV: Uint8Array, sizeBytes: number): Uint8Array {
  return expand(sizeBytes, (counter) => hmac(name, key, word(counter), encodeUtf8(`${label}\0`), contextU, contextV, word(sizeBytes * 8)))
}

/** KDFe: SP 800-56A one-step derivation from an ECDH secret; whole bytes only. TPM 2.0 Library Part 1, 11.4.10.3. */
export function kdfE(name: HashName, z: Uint8Array, label: string, partyUInfo: Uint8Array, partyVInfo: Uint8Array, sizeBytes: number): Uint8Array {
  return expand(sizeBytes, (counter) => hash(name, word(counter), z, encodeUtf8(`${label}\0`), partyUInfo, partyVInfo))
}

function expand(sizeBytes: number, block: (counter: number) => Uint8Array): Uint8Array {
  const blocks: Uint8Array[] = []
  for (let length = 0; length < sizeBytes;) {
    const next = block(blocks.length + 1)
    blocks.push(next)
    length += next.length
  }
  return new ByteReader("kdf", concatBytes(...blocks)).bytes(sizeBytes, "output")
}

function word(value: number): Uint8Array {
  return new ByteWriter().u32be(value).take()
}
