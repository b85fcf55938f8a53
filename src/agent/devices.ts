import type { TeeSource } from "../evidence/tee/collectors/collect.ts"
import { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import type { TpmLocation } from "../evidence/tpm/client/transport.ts"
import type { AgentConfig } from "./config.ts"
import { AgentError } from "./error.ts"
import { MachineAttester, teeAt } from "./evidence/attest.ts"

/** The devices by which this machine proves itself, open. */
export interface OpenedDevices extends AsyncDisposable {
  readonly attester: MachineAttester
  /** What is shown, for people. */
  readonly names: { readonly tpm?: string; readonly tee?: string }
}

/**
 * Opens what the configuration says that the machine shows.
 * @throws {AgentError} `configuration` where it shows nothing; {UnavailableError} as HostTpm.open
 */
export async function openDevices({ tpm: showsTpm = true, tee }: Pick<AgentConfig, "tpm" | "tee">, location?: TpmLocation): Promise<OpenedDevices> {
  if (!showsTpm && tee === undefined) throw new AgentError("configuration", "by this configuration the machine shows neither a TPM nor a TEE")
  const tpm = showsTpm ? await HostTpm.open(location) : undefined
  // The configuration's form is that of a source.
  const source = tee === undefined ? {} : { tee: teeAt(tee as TeeSource, location === undefined ? {} : { tpm: location }) }
  return {
    attester: new MachineAttester({ ...(tpm === undefined ? {} : { tpm }), ...source }),
    names: { ...(tpm === undefined ? {} : { tpm: tpm.name }), ...(tee === undefined ? {} : { tee }) },
    [Symbol.asyncDispose]: async () => tpm?.[Symbol.asyncDispose](),
  }
}
