import assert from "node:assert/strict"
import { createServer, type AddressInfo } from "node:net"
import { test } from "node:test"
import { listenOn } from "./listen.ts"

test("listenOn() takes a free port, and says so when it is taken or no address of this machine", async () => {
  const server = createServer()
  await listenOn(server, { host: "127.0.0.1", port: 0 })
  const { port } = server.address() as AddressInfo
  assert.equal(server.listenerCount("error"), 0)
  await assert.rejects(listenOn(createServer(), { host: "127.0.0.1", port }), {
    code: "port-in-use",
    message: new RegExp(`127\\.0\\.0\\.1:${port}$`),
  })
  await assert.rejects(listenOn(createServer(), { host: "192.0.2.1", port: 0 }), { code: "unavailable", message: /EADDRNOTAVAIL/ })
  server.close()
})
