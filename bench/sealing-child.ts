/**
 * One measured run in a process of its own, so that it can be bound to one core: `node sealing-child.ts seal|open FROM TO KEY CORES`.
 * KEY is the recipient or the identity. Prints the seconds from the first byte to the last, without the start of Node, which age does not have.
 */
import { open } from "node:fs/promises"
import { AgeFile, sealAgeFile } from "../src/sealing/age-file.ts"
import { ChunkPool } from "../src/sealing/chunk-pool.ts"
import { FileSink, openFileReader, openRegularFile } from "../src/sealing/ranges.ts"

const [action = "", from = "", to = "", key = "", cores = ""] = process.argv.slice(2)
await using pool = new ChunkPool(Number(cores) - 1)
const started = performance.now()
const output = await open(to, "w")
const sink = new FileSink(output, to)
switch (action) {
  case "seal": {
    const { handle, sizeBytes } = await openRegularFile(from)
    await sealAgeFile({ pool, recipients: [key], source: { sizeBytes, file: { fd: handle.fd, path: from }, fill: async () => {} }, sink })
    await handle.close()
    break
  }
  case "open": {
    await using reader = await openFileReader(from)
    await (await AgeFile.open(reader, key)).stream({ pool, sink })
    break
  }
  default:
    throw new TypeError(`unknown action ${action}`)
}
await output.close()
console.log((performance.now() - started) / 1000)
