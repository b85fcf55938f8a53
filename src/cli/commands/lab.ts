import { type Command, InvalidArgumentError } from "commander"
import { X509Certificate } from "node:crypto"
import { stat } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { digestOf } from "../../bytes/digest.ts"
import { createFileDurably, readFileBounded, writeFileDurably } from "../../bytes/durable.ts"
import { MalformedError, UnavailableError } from "../../bytes/error.ts"
import { parseUtf8 } from "../../bytes/text.ts"
import { agentConfigSchema } from "../../agent/config.ts"
import { laboratoryDcapRoot } from "../../evidence/dcap/roots.ts"
import { certificateFingerprint, parsePemCertificates } from "../../pki/certificate.ts"
import { parseSshPublicKey } from "../../pki/ssh-key.ts"
import { loadAccept } from "../accept-file.ts"
import { confirm } from "../confirm.ts"
import { insecureLaboratory } from "../connect.ts"
import { UsageError } from "../exit.ts"
import { interruptSignal } from "../interrupt.ts"
import { printable, type Output } from "../output.ts"
import { buildReferences, imageArgument, type ImageKindName, type ImageLevelName, levelOption, showWritten, writeReferences } from "./reference.ts"

export function register(command: Command, output: Output): void {
  registerMaking(command, output)
  registerTd(command, output)
  registerBoot(command, output)
  registerRunning(command, output)
}

function registerMaking(command: Command, output: Output): void {
  command
    .command("setup")
    .option("--yes", "install what is missing without asking")
    .description("install the Debian packages that the laboratory needs; says which and why before")
    .action(async (options: { yes?: true }) => {
      const { missingPackages, setUpLab } = await import("../../../lab/setup.ts")
      const missing = await missingPackages()
      await setUpLab({ say: (line) => output.warn(line), confirm: () => confirm(options.yes) })
      const installed = missing.map(({ name }) => name)
      output.result({ ok: true, installed }, () =>
        output.line(installed.length === 0 ? "everything is there" : `installed ${installed.join(", ")}`, "good"),
      )
    })
  command
    .command("build")
    .addArgument(imageArgument())
    .addOption(levelOption())
    .option("--references <folder>", "compute its reference values too, as perun reference build does")
    .description("build an image of the laboratory, or find it in the cache")
    .action(async (kind: ImageKindName, options: { level: ImageLevelName; references?: string }) => {
      const { buildImage } = await import("../../../lab/image/build.ts")
      const progress = output.progress()
      const image = await buildImage({
        kind,
        level: options.level,
        onProgress: ({ step, done, total }) => progress.update(step, done, total),
      }).finally(() => progress.end())
      const written =
        options.references === undefined ? undefined : await writeReferences(options.references, await buildReferences(kind, options.level, output))
      const { digest, kernel, initrd, commandLine, packages, files } = image
      const disks = image.disks.map(({ path, rootHash, serial }) => ({ path, rootHash, serial }))
      output.result(
        {
          ok: true,
          image: kind,
          level: image.level,
          digest,
          kernel,
          initrd,
          commandLine,
          disks,
          packages: packages.length,
          files: files.length,
          ...(written === undefined ? {} : { references: written }),
        },
        () => {
          output.line(`${kind}, ${image.level}: ${packages.length} packages, ${files.length} files`, "good")
          output.line(`digest   ${digest}`)
          output.line(`kernel   ${kernel}`)
          output.line(`initrd   ${initrd}`)
          for (const { path } of disks) output.line(`disk     ${path}`)
          output.line(`command  ${commandLine}`)
          if (written !== undefined) showWritten(written, output)
        },
      )
    })
  command
    .command("tpm")
    .requiredOption("--folder <folder>", "folder of the machine; its TPM is made in it if there is none")
    .description("make a machine's software TPM before its first boot, so that a policy can list its endorsement key")
    .action(async (options: { folder: string }) => {
      const facts = await machineTpm(options.folder)
      const { made, endorsementKey, laboratoryRoot, rootFile } = facts
      output.result({ ok: true, folder: options.folder, ...facts, laboratory: insecureLaboratory }, () => {
        output.line(made ? `made a TPM in ${options.folder}` : `${options.folder} has a TPM already`, "good")
        showTpm({ endorsementKey, laboratoryRoot, rootFile }, output)
      })
    })
}

function registerTd(command: Command, output: Output): void {
  command
    .command("td")
    .argument("<folder>", "folder of the device; made if it is not there, and the same device ever after")
    .option("--port <port>", "port on 127.0.0.1; 0 takes a free one", parsePort, 7444)
    .description(
      "run a laboratory's TDX device for a manager of this checkout (perun manager serve --tee http://127.0.0.1:7444) until Ctrl-C or SIGTERM",
    )
    .action(async (folder: string, { port }: { port: number }) => {
      const { startLabTd } = await import("../../../lab/devices/td.ts")
      const { openTdFolder, tdFiles } = await import("../../../lab/devices/td-folder.ts")
      const { measureProgram } = await import("../../../lab/devices/program.ts")
      using interrupt = interruptSignal()
      const authority = await openTdFolder(folder)
      await using td = await startLabTd(await measureProgram(), { port, authority })
      const laboratoryRoot = certificateFingerprint(authority.root.certificate)
      const [rootFile, collateralFile] = [join(folder, tdFiles.root), join(folder, tdFiles.collateral)]
      output.result({ event: "listening", url: td.url, laboratoryRoot, rootFile, collateralFile, laboratory: insecureLaboratory }, () => {
        output.line(`a TD of the laboratory answers at ${td.url}`, "good")
        output.line(`laboratory root  ${laboratoryRoot} (${rootFile})`)
        output.line(`collateral       ${collateralFile}`)
        output.line(`${insecureLaboratory}: whoever has the folder, or reaches the address, can have anything said in the device's name`, "warn")
      })
      await new Promise<void>((resolve) => {
        if (interrupt.signal.aborted) resolve()
        else interrupt.signal.addEventListener("abort", () => resolve(), { once: true })
      })
    })
  command
    .command("measure")
    .requiredOption("--root <file>", "root certificate (PEM) of the laboratory's device, as perun lab td writes it")
    .requiredOption("--out <file>", "JSON file for perun manager trust --accept; must not exist")
    .description("compute from the files of this checkout what its manager must prove on a laboratory's TDX device; the device is not asked")
    .action(async ({ root: rootFile, out }: { root: string; out: string }) => {
      const { labTdRequirement } = await import("../../../lab/devices/td.ts")
      const { measureProgram } = await import("../../../lab/devices/program.ts")
      const certificates = parsePemCertificates(parseUtf8(await readFileBounded(rootFile, 65_536), rootFile))
      const [certificate, ...more] = certificates
      if (certificate === undefined || more.length > 0)
        throw new MalformedError("malformed", `holds ${certificates.length} certificates, one is expected`, { path: rootFile })
      const requirement = labTdRequirement(await measureProgram(), laboratoryDcapRoot(certificate))
      await createFileDurably(out, `${JSON.stringify([{ tdx: requirement }], null, 1)}\n`)
      const { mrTd, rtmrs, laboratoryRoots } = requirement
      output.result({ ok: true, file: out, mrTd, rtmrs, laboratoryRoots, laboratory: insecureLaboratory }, () => {
        output.line(`wrote ${out}`, "good")
        output.table(
          ["register", "measures", "value"],
          [
            ["MRTD", "this Node's binary", cellOf(mrTd)],
            ["RTMR1", "the program's files (src/)", cellOf(rtmrs[1])],
            ["RTMR2", "the lock file of its packages", cellOf(rtmrs[2])],
            ["root", "the laboratory's", laboratoryRoots.join(" ")],
          ],
        )
        output.line(`${insecureLaboratory}: nothing keeps that manager's memory from whoever runs it`, "warn")
      })
    })
}

function cellOf(accepted: "any" | readonly string[]): string {
  return accepted === "any" ? accepted : accepted.join(" ")
}

function parsePort(text: string): number {
  if (!/^[0-9]{1,5}$/.test(text) || Number(text) > 65_535) throw new InvalidArgumentError("expected a port from 0 to 65535")
  return Number(text)
}

interface BootOptions {
  readonly level: ImageLevelName
  readonly folder: string
  readonly host: string
  readonly manager: string
  readonly key: string
  readonly accept?: string
  readonly once?: true
  readonly foreground?: true
}

function registerBoot(command: Command, output: Output): void {
  command
    .command("boot")
    .addArgument(imageArgument())
    .addOption(levelOption())
    .requiredOption("--folder <folder>", "folder of this machine: TPM, console, process ids")
    .requiredOption("--host <name>", "name under which the machine enrols")
    .requiredOption("--manager <url>", "address of the manager; 127.0.0.1 and localhost mean this host, which the machine sees as 10.0.2.2")
    .requiredOption("--key <key>", "the manager's key, ssh-ed25519 …")
    .option(
      "--accept <file>",
      "what the manager's TEE must prove, as for perun manager trust; without it only a policy of an unattested manager is served",
    )
    .option("--once", "the machine turns itself off after its first run or refusal")
    .option("--foreground", "show the console here; Ctrl-C pulls the machine's plug")
    .description("boot a machine whose only service is Perun's agent; it goes on by itself unless --foreground")
    .action(async (kind: ImageKindName, options: BootOptions) => boot(kind, options, output))
}

async function boot(kind: ImageKindName, options: BootOptions, output: Output): Promise<void> {
  const { folder } = options
  const manager = {
    url: urlForGuest(options.manager),
    key: parseSshPublicKey(options.key).text,
    ...(options.accept === undefined ? {} : { accept: await loadAccept(options.accept) }),
  }
  const configuration = agentConfigSchema.safeParse({ perun: 1, host: options.host, manager, ...(options.once === true ? { once: true } : {}) })
  if (!configuration.success) {
    const [issue] = configuration.error.issues
    throw new UsageError(`${issue?.path.join(".") ?? ""}: ${issue?.message ?? "wrong"}`)
  }
  const { bootMachine, machineRunsIn } = await import("../../../lab/machine/boot.ts")
  const { buildImage } = await import("../../../lab/image/build.ts")
  const { loadTpm } = await import("../../../lab/machine/tpm.ts")
  if (await machineRunsIn(folder)) throw new UsageError(`a machine runs in ${folder}; end it with: perun lab stop ${folder}`)
  const progress = output.progress()
  const image = await buildImage({
    kind,
    level: options.level,
    onProgress: ({ step, done, total }) => progress.update(step, done, total),
  }).finally(() => progress.end())
  const facts = await machineTpm(folder)
  const tpm = await loadTpm(join(folder, "tpm"))
  if (tpm === undefined) throw new Error("internal: the TPM that was just made is not there")
  using interrupt = interruptSignal()
  await using stack = new AsyncDisposableStack()
  const detached = options.foreground !== true
  const machine = await bootMachine({ image, tpm, folder, configuration: JSON.stringify(configuration.data), detached })
  const { endorsementKey, laboratoryRoot, rootFile } = facts
  const result = {
    folder,
    host: options.host,
    pid: machine.pid,
    accelerator: machine.accelerator,
    manager: manager.url,
    console: machine.consolePath,
  }
  output.result({ ...(detached ? { ok: true } : { event: "booted" }), ...result, ...facts, laboratory: insecureLaboratory }, () => {
    output.line(`booted ${options.host}: ${kind}, ${options.level}, under ${machine.accelerator}, process ${machine.pid ?? "?"}`, "good")
    showTpm({ endorsementKey, laboratoryRoot, rootFile }, output)
    if (manager.url !== options.manager) output.line(`manager          ${options.manager}, which the machine reaches as ${manager.url}`)
    output.line(`console          ${machine.consolePath}`)
    if (detached) output.line(`watch it with perun lab console ${folder} --follow, end it with perun lab stop ${folder}`, "dim")
  })
  if (detached) return
  stack.use(machine)
  await showConsole(machine.consolePath, async () => machine.running, interrupt.signal, output)
  const { code, signal } = await machine.ended
  output.result({ ok: code === 0, code, signal }, () => output.line(code === 0 ? "the machine turned itself off" : "the machine ended badly"))
  if (code !== 0)
    throw new UnavailableError("unavailable", `QEMU ended with ${code === null ? signal : `status ${code}`}; see ${join(folder, "host.log")}`)
}

function registerRunning(command: Command, output: Output): void {
  command
    .command("console")
    .argument("<folder>", "folder of the machine")
    .option("--follow", "go on until the machine ends")
    .description("show what a machine wrote to its serial port")
    .action(async (folder: string, options: { follow?: true }) => {
      const { machineRunsIn } = await import("../../../lab/machine/boot.ts")
      const path = join(folder, "console")
      if (!(await isThere(path))) throw new UnavailableError("unavailable", "no machine was booted in this folder", { path: folder })
      using interrupt = interruptSignal()
      await showConsole(path, async () => options.follow === true && (await machineRunsIn(folder)), interrupt.signal, output)
    })
  command
    .command("stop")
    .argument("<folder>", "folder of the machine")
    .description("end a machine, as pulling its plug does; its disks are throw-away layers, its TPM stays")
    .action(async (folder: string) => {
      const { machineRunsIn, stopMachineOf } = await import("../../../lab/machine/boot.ts")
      if (!(await isThere(folder))) throw new UnavailableError("unavailable", "no such folder", { path: folder })
      const stopped = await stopMachineOf(folder)
      const deadline = performance.now() + stopTimeoutMs
      while ((await machineRunsIn(folder)) && performance.now() < deadline) await sleep(50)
      output.result({ ok: true, stopped }, () => output.line(stopped ? "stopped" : "no machine runs there", stopped ? "good" : "dim"))
    })
}

interface TpmFacts {
  readonly endorsementKey: string
  /** SHA-256 of the authority's certificate, which a policy pins. */
  readonly laboratoryRoot: string
  /** The same certificate as PEM, for `manager init --laboratory-root`. */
  readonly rootFile: string
}

/** The TPM of a machine's folder, made if there is none; the root that certified it lies beside it. */
async function machineTpm(folder: string): Promise<TpmFacts & { readonly made: boolean }> {
  const { labCa, loadTpm, manufactureTpm } = await import("../../../lab/machine/tpm.ts")
  const known = await loadTpm(join(folder, "tpm"))
  const tpm = known ?? (await manufactureTpm(join(folder, "tpm")))
  const rootFile = join(folder, "root.pem")
  // A TPM that was there may be of an authority that this cache no longer has.
  if (known === undefined || !(await isThere(rootFile))) await writeFileDurably(rootFile, (await labCa()).rootPem)
  const laboratoryRoot = digestOf(new Uint8Array(new X509Certificate(await readFileBounded(rootFile, 65_536)).raw))
  return { made: known === undefined, endorsementKey: tpm.endorsementKey, laboratoryRoot, rootFile }
}

function showTpm({ endorsementKey, laboratoryRoot, rootFile }: TpmFacts, output: Output): void {
  output.line(`endorsement key  ${endorsementKey} (what policies list)`)
  output.line(`laboratory root  ${laboratoryRoot} (${rootFile})`)
  output.line(`${insecureLaboratory}: whoever has the folder has the TPM's keys`, "warn")
}

/** The address by which a machine in QEMU's user network reaches what this host reaches under `text`. */
export function urlForGuest(text: string): string {
  if (!URL.canParse(text)) throw new UsageError(`--manager wants an address like https://127.0.0.1:7443, found ${text}`)
  const url = new URL(text)
  if (url.protocol !== "https:") throw new UsageError(`--manager wants an https address, found ${text}`)
  if (url.hostname === "[::1]") throw new UsageError("a machine reaches this host over IPv4 only; let the manager listen on 127.0.0.1")
  if (url.hostname === "localhost" || url.hostname === "127.0.0.1") url.hostname = guestsHost
  return url.origin
}

/** Prints a console's lines until `goesOn` says no and everything is shown. A machine's console is untrusted text. */
async function showConsole(path: string, goesOn: () => Promise<boolean>, signal: AbortSignal, output: Output): Promise<void> {
  const { ConsoleFile } = await import("../../../lab/machine/console.ts")
  const file = new ConsoleFile(path)
  let shown = 0
  for (;;) {
    signal.throwIfAborted()
    const last = !(await goesOn())
    const text = await file.text()
    const end = last ? text.length : text.lastIndexOf("\n") + 1
    if (end > shown) {
      for (const line of text.substring(shown, end).replace(/\n$/, "").split("\n")) {
        const clean = printable(line)
        output.result({ event: "console", line: clean }, () => output.line(clean))
      }
      shown = end
    }
    if (last) return
    await sleep(consolePollMs, undefined, { signal }).catch(() => undefined) // The abort is thrown at the loop's start.
  }
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

/** QEMU's user network: the host as its guests see it. */
const guestsHost = "10.0.2.2"
const consolePollMs = 200
const stopTimeoutMs = 5000
