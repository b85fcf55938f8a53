import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { encodeChain } from "../../src/evidence/dcap/certificates.ts"
import { measureProgram } from "./program.ts"
import { labTdRequirement, startLabTd } from "./td.ts"

/**
 * A laboratory TD as a process: measures this program, writes root, collateral and the demands that exactly it meets into a folder, and answers until it ends.
 * INSECURE LABORATORY. Usage: `node lab/devices/td-process.ts FOLDER`
 */
const [folder] = process.argv.slice(2)
if (folder === undefined) throw new TypeError("usage: td-process.ts FOLDER")
const program = await measureProgram()
const td = await startLabTd(program)
await mkdir(folder, { recursive: true, mode: 0o700 })
await writeFile(join(folder, "root.pem"), encodeChain([td.authority.root.certificate.der]))
await writeFile(join(folder, "collateral.json"), td.collateral)
await writeFile(join(folder, "requirement.json"), `${JSON.stringify({ tdx: labTdRequirement(program, td.authority.root) }, null, 1)}\n`)
console.log(JSON.stringify({ event: "listening", url: td.url }))
