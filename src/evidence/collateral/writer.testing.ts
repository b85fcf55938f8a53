/**
 * For tests, as a process of its own: stores evidence in a cache. Arguments: folder, file with the evidence as JSON, fingerprint of the laboratory root, milliseconds since
 * 1970, which step of writing the process dies before (kill -9; 0: none), and how often to store. Prints how many steps there were.
 */
import { readFileSync } from "node:fs"
import fs from "node:fs/promises"
import { syncBuiltinESMExports } from "node:module"
import { parseDigest } from "../../bytes/digest.ts"
import { parseTeeEvidence } from "../tee/format.ts"
import { teeRootsFor } from "../tee/roots.ts"

const [folder = "", file = "", root = "", time = "", dieBefore = "0", times = "1"] = process.argv.slice(2)
let steps = 0

/** A step of writing is about to be done; behind the last one stands the end of the process, which is no step. */
function step(): void {
  steps++
  if (steps === Number(dieBefore)) process.kill(process.pid, "SIGKILL")
}

function counted<Args extends readonly unknown[], Result>(original: (...args: Args) => Promise<Result>): (...args: Args) => Promise<Result> {
  return async (...args) => {
    step()
    return original(...args)
  }
}

const open = fs.open
fs.open = async (...args: Parameters<typeof open>) => {
  step()
  const handle = await open(...args)
  handle.writeFile = counted(handle.writeFile.bind(handle)) as typeof handle.writeFile
  handle.sync = counted(handle.sync.bind(handle))
  handle.close = counted(handle.close.bind(handle))
  return handle
}
fs.mkdir = counted(fs.mkdir) as typeof fs.mkdir
fs.rename = counted(fs.rename)
fs.rm = counted(fs.rm)
syncBuiltinESMExports()

const { storeCollateral } = await import("./cache.ts")
const named = [parseDigest(root)]
for (let count = 0; count < Number(times); count++)
  await storeCollateral(folder, parseTeeEvidence(readFileSync(file)), { roots: (evidence) => teeRootsFor(evidence, named), time: Number(time) })
process.stdout.write(`${steps}\n`)
