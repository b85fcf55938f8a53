/** Drives a manager that is bound to a counter in a TPM, as child processes beside a software TPM. */
import assert from "node:assert/strict"
import { cp, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { noSoftwareTpm, startSoftwareTpm } from "../evidence/tpm/client/swtpm.testing.ts"
import { demandStatus, end, serveFolder } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-counter-"))
after(() => rm(base, { recursive: true, force: true }))
const environment = { PERUN_HOME: join(base, "home") }
const listen = ["--listen", "127.0.0.1:0"] as const

for (const vault of ["tpm", "key-file"] as const)
  test(`a manager whose vault is kept by a ${vault} and whose folder was put back does not start`, { skip: noSoftwareTpm }, async () => {
    await using software = await startSoftwareTpm()
    const tpm = `unix:${software.location.unix}`
    const folder = join(base, vault)
    const words = vault === "tpm" ? ["--tpm", tpm, "--counter"] : ["--key-file", "--counter-tpm", tpm]
    await demandStatus(["manager", "init", folder, ...words], 0, environment)
    const serve = async (...more: readonly string[]): Promise<void> => {
      const { server } = await serveFolder(folder, "127.0.0.1:0", ["--tpm", tpm, ...more])
      await end(server)
    }
    await serve()
    const older = join(base, `${vault}-older`)
    await cp(folder, older, { recursive: true })
    await serve()
    await serve()
    await rm(folder, { recursive: true })
    await cp(older, folder, { recursive: true })
    const refused = await demandStatus(["manager", "serve", folder, ...listen, "--tpm", tpm], 10, environment)
    assert.match(refused.stderr, /^perun: the store is of an earlier time: it expects the TPM's counter at \d+, and it is at \d+; .*\n$/)
    await serve("--accept-set-back")
    await serve()
  })

test("a counter without a TPM for it is a wrong use, and a bound manager does not start without its TPM", { skip: noSoftwareTpm }, async () => {
  const { stderr } = await demandStatus(["manager", "init", join(base, "none"), "--key-file", "--counter"], 2, environment)
  assert.match(stderr, /--counter-tpm/)
  await using software = await startSoftwareTpm()
  const folder = join(base, "bound")
  await demandStatus(["manager", "init", folder, "--key-file", "--counter-tpm", `unix:${software.location.unix}`], 0, environment)
  const gone = await demandStatus(["manager", "serve", folder, ...listen, "--tpm", `unix:${join(base, "gone")}`], 40, environment)
  assert.equal(gone.stderr.split("\n").length, 2, gone.stderr)
})
