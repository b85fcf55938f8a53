import { InvalidArgumentError } from "commander"
import type { TpmLocation } from "../evidence/tpm/client/transport.ts"

/** `--tpm`: a device (`/dev/tpmrm0`), `unix:PATH` or `tcp:HOST:PORT` of a software TPM. */
export function parseTpmLocation(text: string): TpmLocation {
  if (text.startsWith("unix:")) return { unix: text.slice("unix:".length) }
  const [, host, port] = /^tcp:(.+):([0-9]{1,5})$/.exec(text) ?? []
  if (host !== undefined && port !== undefined) return { host, port: Number(port) }
  if (text.startsWith("/dev/")) return { device: text }
  throw new InvalidArgumentError("expected /dev/…, unix:PATH or tcp:HOST:PORT")
}
