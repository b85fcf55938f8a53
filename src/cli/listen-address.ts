import { UsageError } from "./exit.ts"

/** An address to listen on, as an option takes it. @throws {UsageError} */
export function parseListen(text: string, option = "--listen"): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):([0-9]{1,5})$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined || port === undefined || Number(port) > 65_535) throw new UsageError(`${option} wants HOST:PORT, found ${text}`)
  return { host, port: Number(port) }
}
