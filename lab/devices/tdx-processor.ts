import { encodeChain } from "../../src/evidence/dcap/certificates.ts"
import { encodeDcapCollateral } from "../../src/evidence/dcap/endorsements.ts"
import type { Digest } from "../../src/bytes/digest.ts"
import { certificateFingerprint } from "../../src/pki/certificate.ts"
import type { TeeRequirement } from "../../src/policy/tee.ts"
import type { Launch } from "../machine/launch.ts"
import { certifyPlatform, type LabAuthority, makeLabAuthority } from "./dcap/authority.ts"
import { measureTd } from "./td-launch.ts"
import { startTdOnSocket, tdRequirement, type TdState } from "./td.ts"

/** A TD's device that answers, and what exactly its TD meets. */
export interface RunningDevice extends AsyncDisposable {
  readonly requirement: TeeRequirement
}

/**
 * A laboratory's processor with TDX: measures what a machine starts from and makes a device that quotes it. INSECURE LABORATORY: its keys lie in this process, and it keeps
 * no memory from anybody.
 */
export class TdxProcessor {
  readonly authority: LabAuthority

  constructor(authority: LabAuthority = makeLabAuthority({ time: Date.now() })) {
    this.authority = authority
  }

  /** Another processor under the same root, with the same collateral. `ppid`: 16 bytes, lower-case hexadecimal. */
  another(ppid: string): TdxProcessor {
    return new TdxProcessor(certifyPlatform(this.authority, ppid))
  }

  get rootPem(): string {
    return encodeChain([this.authority.root.certificate.der])
  }

  /** What a policy names in `laboratoryRoots`. */
  get rootFingerprint(): Digest {
    return certificateFingerprint(this.authority.root.certificate)
  }

  /** Text of a collateral file as managers and `perun evidence verify` take it. */
  get collateral(): string {
    return encodeDcapCollateral(this.authority.tdxCollateral)
  }

  /** Demands that exactly this launch on this processor meets; for policies, which are written before a machine boots. */
  requirementOf(launch: Launch): TeeRequirement {
    return this.#requirementOf(measureTd(launch))
  }

  /** A device for one machine that starts from this, on a Unix socket. */
  async start(launch: Launch, socket: string): Promise<RunningDevice> {
    const state = measureTd(launch)
    const device = await startTdOnSocket(this.authority, state, socket)
    return { requirement: this.#requirementOf(state), [Symbol.asyncDispose]: async () => device[Symbol.asyncDispose]() }
  }

  #requirementOf(state: TdState): TeeRequirement {
    return { tdx: tdRequirement(state, this.authority.root, this.authority.platform.ppid) }
  }
}
