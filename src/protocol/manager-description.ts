import type { KeyObject } from "node:crypto"
import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { signStatement, verifyStatement } from "../pki/statement.ts"
import { ProtocolError } from "./errors.ts"
import type { ManagerDescription, SignedManagerDescription } from "./messages.ts"

/** Shown with everything that comes from a manager that has no evidence of its own. */
export const unattestedManagerLabel = "UNATTESTED MANAGER"

export function signManagerDescription(description: ManagerDescription, privateKey: KeyObject): SignedManagerDescription {
  return { description, signature: signStatement("manager", digestOfJson(description), privateKey) }
}

/**
 * Checks that a description is by the manager whose key the caller pins, and that the connection it came over ends at the TLS key it names. Without
 * evidence this proves who the manager is, not what it runs: the caller shows UNATTESTED MANAGER.
 * @throws {ProtocolError} `wrong-manager`, `wrong-tls-key`
 */
export function verifyManagerDescription(
  signed: SignedManagerDescription,
  expected: { readonly managerKey: string; readonly peerTlsKey: Digest },
): ManagerDescription {
  const { description, signature } = signed
  if (description.key !== expected.managerKey || signature.key !== expected.managerKey)
    throw new ProtocolError("wrong-manager", `found key ${description.key}, expected ${expected.managerKey}`, { path: "description.key" })
  try {
    verifyStatement("manager", digestOfJson(description), signature)
  } catch (cause) {
    if (!(cause instanceof PerunError)) throw cause
    throw new ProtocolError("wrong-manager", "the description is not signed by the pinned key", { path: "signature", cause })
  }
  if (description.tlsKey !== expected.peerTlsKey)
    throw new ProtocolError("wrong-tls-key", `found ${expected.peerTlsKey}, the description names ${description.tlsKey}`, {
      path: "description.tlsKey",
    })
  return description
}
