import { createServer, type IncomingMessage, type Server } from "node:http"
import { type AddressInfo, connect, type Socket } from "node:net"

/** An HTTP proxy on loopback, for tests: it connects names that only it knows, and keeps what went by. */
export interface TestProxy extends AsyncDisposable {
  /** `127.0.0.1:port` */
  readonly address: string
  /** What was asked for, e.g. `manager.example:7443`, and `GET http://…` of plain requests. */
  readonly asked: string[]
  /** Bytes that clients sent through tunnels. */
  readonly sent: Uint8Array[]
  /** Where a name leads. */
  readonly names: Map<string, number>
  /** In the place of connecting: answers, or keeps silent. */
  answer: ((request: IncomingMessage, socket: Socket) => boolean) | undefined
}

export async function startProxy(): Promise<TestProxy> {
  const [asked, sent, names]: [string[], Uint8Array[], Map<string, number>] = [[], [], new Map()]
  const sockets = new Set<Socket>()
  const server: Server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`)
    response.end("plain")
  })
  const proxy: TestProxy = {
    get address() {
      return `127.0.0.1:${(server.address() as AddressInfo).port}`
    },
    asked,
    sent,
    names,
    answer: undefined,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((done) => server.close(done))
    },
  }
  server.on("connection", (socket) => {
    sockets.add(socket)
    socket.on("error", () => undefined)
  })
  server.on("connect", (request: IncomingMessage, stream, head: Uint8Array) => {
    const socket = stream as Socket
    const target = request.url ?? ""
    asked.push(target)
    if (proxy.answer?.(request, socket) === true) return
    const port = names.get(target)
    if (port === undefined) return void socket.end("HTTP/1.1 502 no such host\r\ncontent-length: 0\r\n\r\n")
    const onward = connect(port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 connected\r\n\r\n")
      onward.write(head)
      socket.on("data", (chunk: Uint8Array) => sent.push(chunk))
      socket.pipe(onward).pipe(socket)
    })
    sockets.add(onward)
    onward.on("error", () => socket.destroy())
    socket.on("close", () => onward.destroy())
  })
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening))
  return proxy
}
