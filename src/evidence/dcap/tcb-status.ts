/** TCB status words of TCB info and enclave identities. Intel PCS API v4. */
export const tcbStatuses = [
  "UpToDate",
  "SWHardeningNeeded",
  "ConfigurationNeeded",
  "ConfigurationAndSWHardeningNeeded",
  "OutOfDate",
  "OutOfDateConfigurationNeeded",
  "Revoked",
] as const

export type TcbStatus = (typeof tcbStatuses)[number]

interface Needs {
  readonly update: boolean
  readonly configuration: boolean
  readonly hardening: boolean
}

const needs: Readonly<Record<Exclude<TcbStatus, "Revoked">, Needs>> = {
  UpToDate: { update: false, configuration: false, hardening: false },
  SWHardeningNeeded: { update: false, configuration: false, hardening: true },
  ConfigurationNeeded: { update: false, configuration: true, hardening: false },
  ConfigurationAndSWHardeningNeeded: { update: false, configuration: true, hardening: true },
  OutOfDate: { update: true, configuration: false, hardening: false },
  OutOfDateConfigurationNeeded: { update: true, configuration: true, hardening: false },
}

/**
 * The status of a whole of which these are the parts: platform, quoting enclave and TDX module. It needs all that any part needs; what is out of date has no
 * word for hardening, as in Intel's own convergence (DCAP quote verification library, `convergeTcbStatusWithQeTcbStatus`).
 */
export function mergeTcbStatus(...parts: readonly TcbStatus[]): TcbStatus {
  const found: Needs[] = []
  for (const part of parts) {
    if (part === "Revoked") return part
    found.push(needs[part])
  }
  const update = found.some((part) => part.update)
  const configuration = found.some((part) => part.configuration)
  const hardening = !update && found.some((part) => part.hardening)
  if (update) return configuration ? "OutOfDateConfigurationNeeded" : "OutOfDate"
  if (configuration) return hardening ? "ConfigurationAndSWHardeningNeeded" : "ConfigurationNeeded"
  return hardening ? "SWHardeningNeeded" : "UpToDate"
}
