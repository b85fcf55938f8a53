import { writeSync } from "node:fs"
import { prepareRotation } from "./rotate-vault.ts"
import { randomBytes } from "./state.ts"

/** For rotate-vault.test.ts: rotates a folder from one key file to another, and is killed after so many steps; with more than there are it ends by itself. */
const [folder, count] = process.argv.splice(2)
if (folder === undefined || count === undefined) throw new TypeError("needs a folder and a number of steps")
using rotation = await prepareRotation(folder, { kind: "key-file" }, {}, randomBytes)
writeSync(1, "ready\n")
for (const [index, step] of rotation.steps.entries()) {
  if (index === Number(count)) process.kill(process.pid, "SIGKILL")
  await step.run()
}
