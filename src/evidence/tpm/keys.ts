import type { KeyObject } from "node:crypto"
import { concatBytes } from "../../bytes/compare.ts"
import { readAll } from "../../bytes/reader.ts"
import { encodeHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { ecPublicKey, hash, rsaPublicKey } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { algorithmId, curves } from "./algorithms.ts"
import { encodePublicArea } from "./public-area.ts"
import type { PublicArea } from "./public-area.ts"

/**
 * Name of an object: nameAlg ‖ digest of its TPMT_PUBLIC. TPM 2.0 Library Part 1, "Names". The encoding is canonical, since parsing keeps every field.
 */
export function tpmName(area: PublicArea): Uint8Array {
  return concatBytes(new ByteWriter().u16be(algorithmId(area.nameAlg)).take(), hash(area.nameAlg, encodePublicArea(area)))
}

/** Name in lower-case hexadecimal, as claims hold it. */
export function tpmNameText(area: PublicArea): string {
  return encodeHex(tpmName(area))
}

/**
 * The key inside a public area.
 * @throws {EvidenceError} `wrong-key` for keyed hashes, templates, other exponents
 * @throws {PkiError} `wrong-key` for a point off the curve
 */
export function publicKeyOf(area: PublicArea): KeyObject {
  switch (area.type) {
    case "rsa":
      if (area.exponent !== 0 && area.exponent !== 65537) throw new EvidenceError("wrong-key", `RSA exponent ${area.exponent}`)
      if (area.unique.length * 8 !== area.keyBits) throw new EvidenceError("wrong-key", "RSA modulus is not as long as keyBits says")
      return rsaPublicKey(area.unique, Uint8Array.of(1, 0, 1))
    case "ecc": {
      const { fieldBytes } = curves[area.curve]
      return ecPublicKey(area.curve, padStart(area.x, fieldBytes), padStart(area.y, fieldBytes))
    }
    case "keyedhash":
      throw new EvidenceError("wrong-key", "a keyed hash has no public key")
  }
}

/**
 * A big-endian number at a fixed width: TPMs may leave out leading zero bytes.
 * @throws {EvidenceError} `wrong-key` when it is wider
 */
export function padStart(number: Uint8Array, width: number): Uint8Array {
  if (number.length > width) {
    return readAll("number", number, (reader) => {
      if (reader.bytes(number.length - width, "leading").some((byte) => byte !== 0))
        throw new EvidenceError("wrong-key", "number is too large for the field")
      return reader.rest("digits")
    })
  }
  return concatBytes(new Uint8Array(width - number.length), number)
}
