import { type IncomingMessage, request as httpRequest, type RequestOptions } from "node:http"
import { request as httpsRequest } from "node:https"
import { BlockList, isIP, type Socket } from "node:net"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { encodeBase64, encodeUtf8 } from "../bytes/text.ts"

/**
 * The way out of a network that lets connections pass only through an HTTP proxy: CONNECT (RFC 9110, 9.3.6). The proxy learns which address is asked for and sees TLS go by; who the peer is, is
 * judged inside of it as ever, so a proxy that puts itself there is refused by the peer's key.
 */

/** What of the environment counts; each in lower case first, as curl has it. */
export type ProxyEnvironment = Readonly<Record<string, string | undefined>>

/**
 * The proxy for an `https` address: `https_proxy` or `HTTPS_PROXY`, unless `no_proxy` or `NO_PROXY` names the address: `*`, hosts (which mean what is below them too, with a leading dot or without),
 * IP addresses and networks (`10.0.0.0/8`), each with `:port` where only that is meant. A machine's own addresses never go by a proxy, whose own they would be.
 * @throws {MalformedError} naming the variable, never its value: it may hold a password
 */
export function proxyFor({ hostname, port }: URL, environment: ProxyEnvironment = process.env): URL | undefined {
  const name = variable(environment, "https_proxy")
  const text = name === undefined ? "" : (environment[name] ?? "").trim()
  if (name === undefined || text === "") return undefined
  const host = bare(hostname)
  if (isOwn(host) || isExcepted(host, port === "" ? "443" : port, environment[variable(environment, "no_proxy") ?? ""] ?? "")) return undefined
  const url = URL.parse(text.includes("://") ? text : `http://${text}`)
  if (url === null || !["http:", "https:"].includes(url.protocol) || url.hostname === "")
    throw new MalformedError("malformed", `${name} is not the address of an HTTP proxy, http://HOST:PORT`)
  return url
}

function variable(environment: ProxyEnvironment, name: string): string | undefined {
  return [name, name.toUpperCase()].find((one) => environment[one] !== undefined)
}

/** IPv6 addresses stand in brackets in a URL. */
function bare(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, "$1").toLowerCase()
}

function isOwn(host: string): boolean {
  return host === "localhost" || host.endsWith(".localhost") || isWithin(host, "127.0.0.0/8") || isWithin(host, "::1/128")
}

function isExcepted(host: string, port: string, list: string): boolean {
  return list
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .some((entry) => isNamedBy(entry.toLowerCase(), host, port))
}

function isNamedBy(entry: string, host: string, port: string): boolean {
  if (entry === "*") return true
  if (isIP(bare(entry)) !== 0) return isIP(host) !== 0 && isWithin(host, `${bare(entry)}/${isIP(bare(entry)) === 4 ? 32 : 128}`)
  if (/\/\d+$/.test(entry)) return isWithin(host, entry)
  const [, name = entry, only] = /^(.*?):(\d+)$/.exec(entry) ?? []
  if (only !== undefined && only !== port) return false
  if (isIP(bare(name)) !== 0) return isNamedBy(bare(name), host, port)
  const domain = name.replace(/^\*?\./, "")
  return domain !== "" && (host === domain || host.endsWith(`.${domain}`))
}

function isWithin(host: string, network: string): boolean {
  const [address = "", bits = ""] = network.split("/")
  const kind = isIP(address)
  if (kind === 0 || isIP(host) === 0 || Number(bits) > (kind === 4 ? 32 : 128)) return false
  const list = new BlockList()
  list.addSubnet(bare(address), Number(bits), kind === 4 ? "ipv4" : "ipv6")
  return list.check(host, isIP(host) === 4 ? "ipv4" : "ipv6")
}

/**
 * A connection through a proxy to `host:port`, over which nothing has been sent yet.
 * @throws {UnavailableError} where the proxy is silent, or refuses, in one line that says which
 */
export async function openTunnel(
  proxy: URL,
  { host, port }: { readonly host: string; readonly port: number },
  timeoutMilliseconds: number,
): Promise<Socket> {
  const target = `${isIP(host) === 6 ? `[${host}]` : host}:${port}`
  const isTls = proxy.protocol === "https:"
  const options: RequestOptions = {
    host: bare(proxy.hostname),
    port: proxy.port === "" ? (isTls ? 443 : 80) : Number(proxy.port),
    method: "CONNECT",
    path: target,
    headers: { host: target, ...credentials(proxy) },
    agent: false,
    timeout: timeoutMilliseconds,
    maxHeaderSize: maxHeaderBytes,
  }
  return new Promise((resolve, reject) => {
    const request = isTls ? httpsRequest(options) : httpRequest(options)
    const fail = (error: Error): void => {
      request.destroy()
      reject(error)
    }
    request.once("timeout", () => fail(new UnavailableError("timeout", `no answer from the proxy ${proxy.host}`)))
    request.once("error", (cause) =>
      reject(new UnavailableError("unavailable", `the proxy ${proxy.host} cannot be reached: ${wordOf(cause)}`, { cause })),
    )
    // A proxy that answers CONNECT as if it were another method.
    request.once("response", (response) => fail(refusal(proxy, target, response)))
    request.once("connect", (response, socket, head) => {
      socket.setTimeout(0)
      // In TLS the client speaks first.
      if (response.statusCode === 200 && head.length === 0) return resolve(socket as Socket)
      socket.destroy()
      reject(refusal(proxy, target, response))
    })
    request.end()
  })
}

/** Some 40 headers; the body of an answer is not read. */
const maxHeaderBytes = 16_384

function credentials({ username, password }: URL): Readonly<Record<string, string>> {
  if (username === "" && password === "") return {}
  const text = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return { "proxy-authorization": `Basic ${encodeBase64(encodeUtf8(text))}` }
}

function refusal({ host }: URL, target: string, { statusCode }: IncomingMessage): UnavailableError {
  if (statusCode === 407)
    return new UnavailableError(
      "permission-denied",
      `the proxy ${host} wants a user and a password, or other ones: http://USER:PASSWORD@HOST:PORT in HTTPS_PROXY`,
    )
  return new UnavailableError("unavailable", `the proxy ${host} does not connect to ${target}: status ${statusCode}`)
}

function wordOf(cause: Error): string {
  return "code" in cause && typeof cause.code === "string" ? cause.code : cause.message
}
