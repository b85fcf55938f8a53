import type { Server } from "node:net"
import { UnavailableError } from "./error.ts"

/**
 * Lets a server listen on an address; port 0 takes a free one.
 * @throws {UnavailableError} `port-in-use`, `permission-denied`, `unavailable`
 */
export async function listenOn(server: Server, { host, port }: { readonly host: string; readonly port: number }): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const fail = (cause: Error): void => reject(listenError(cause, `${host}:${port}`))
  server.once("error", fail)
  server.listen(port, host, () => resolve())
  await promise
  server.off("error", fail)
}

function listenError(cause: Error, address: string): UnavailableError {
  const code = "code" in cause ? cause.code : undefined
  switch (code) {
    case "EADDRINUSE":
      return new UnavailableError("port-in-use", `another program listens on ${address}`, { cause })
    case "EACCES":
      return new UnavailableError("permission-denied", `not allowed to listen on ${address}`, { cause })
    default:
      return new UnavailableError("unavailable", `cannot listen on ${address} (${String(code)})`, { cause })
  }
}
