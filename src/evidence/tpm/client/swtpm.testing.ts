import { execFile, spawn, spawnSync, type ChildProcess } from "node:child_process"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import type { TpmLocation } from "./transport.ts"

/** A software TPM of a test's own, in a folder of its own, gone at the end of its scope. */
export interface SoftwareTpm extends AsyncDisposable {
  readonly location: TpmLocation & { readonly unix: string }
  /** For what else a test puts on disk. */
  readonly folder: string
  readonly process: ChildProcess
}

/** Why tests against a software TPM are skipped, or false. */
export const noSoftwareTpm: string | false = spawnSync("swtpm", ["--version"]).status === 0 ? false : "skipped: swtpm is not installed"

/** Why tests against tpm2-tools are skipped, or false. */
export const noTpmTools: string | false = spawnSync("tpm2_checkquote", ["--version"]).status === 0 ? false : "skipped: tpm2-tools are not installed"

/** Starts swtpm with pristine state. `certified`: with endorsement key certificates from a local CA of its own, as swtpm_setup makes them. */
export async function startSoftwareTpm(options: { readonly certified?: boolean } = {}): Promise<SoftwareTpm> {
  const folder = await mkdtemp(join(tmpdir(), "perun-swtpm-"))
  const state = join(folder, "state")
  await mkdir(state)
  if (options.certified === true) await manufacture(folder, state)
  const socket = join(folder, "tpm")
  const process = spawn(
    "swtpm",
    [
      ...["socket", "--tpm2", "--tpmstate", `dir=${state}`, "--flags", "not-need-init,startup-clear"],
      ...["--server", `type=unixio,path=${socket}`, "--ctrl", `type=unixio,path=${socket}.ctrl`],
    ],
    { stdio: "ignore" },
  )
  for (let tries = 0; !(await isListening(socket)); tries++) {
    if (tries === 200 || process.exitCode !== null) throw new Error("internal: swtpm does not start")
    await sleep(20)
  }
  return {
    location: { unix: socket },
    folder,
    process,
    [Symbol.asyncDispose]: async () => {
      const isGone = process.exitCode !== null || process.signalCode !== null ? undefined : new Promise((resolve) => process.once("exit", resolve))
      process.kill("SIGKILL")
      await isGone
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The socket's file is there a moment before anybody listens. */
async function isListening(path: string): Promise<boolean> {
  const socket = connect(path)
  const isConnected = await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true))
    socket.once("error", () => resolve(false))
  })
  socket.destroy()
  return isConnected
}

/** Endorsement keys and certificates by swtpm_setup, from a CA inside the test's folder. */
async function manufacture(folder: string, state: string): Promise<void> {
  const authority = join(folder, "ca")
  await mkdir(authority)
  const localca = join(folder, "swtpm-localca.conf")
  await writeFile(
    localca,
    [
      `statedir = ${authority}`,
      `signingkey = ${join(authority, "signkey.pem")}`,
      `issuercert = ${join(authority, "issuercert.pem")}`,
      `certserial = ${join(authority, "certserial")}`,
      "",
    ].join("\n"),
  )
  const options = join(folder, "swtpm-localca.options")
  await writeFile(
    options,
    "--tpm-manufacturer id:00001014\n--tpm-model swtpm\n--tpm-version 2\n--platform-manufacturer Perun\n--platform-version 1\n--platform-model test\n",
  )
  const setup = join(folder, "swtpm_setup.conf")
  await writeFile(setup, `create_certs_tool = swtpm_localca\ncreate_certs_tool_config = ${localca}\ncreate_certs_tool_options = ${options}\n`)
  await promisify(execFile)("swtpm_setup", [
    ...[
      "--tpm2",
      "--tpmstate",
      state,
      "--config",
      setup,
      "--create-ek-cert",
      "--create-platform-cert",
      "--lock-nvram",
      "--not-overwrite",
      "--pcr-banks",
      "sha256",
    ],
  ])
}
