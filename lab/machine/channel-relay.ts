import { connect, Socket } from "node:net"

/** Joins standard input and output, one socket when QEMU starts this program for a connection of its machine, to the Unix socket that is named. Says nothing itself. */
const [path] = process.argv.slice(2)
if (path === undefined) throw new TypeError("usage: channel-relay.ts SOCKET")
const machine = new Socket({ fd: 0 })
const host = connect(path)
for (const end of [machine, host]) end.on("error", () => process.exit(1))
machine.pipe(host).pipe(machine)
