import { readFile } from "node:fs/promises"
import { LabError } from "../error.ts"
import { memoryMiB } from "../image/recipe.ts"
import { type Bootable, defaultProcessors } from "./boot.ts"
import { findFirmware } from "./firmware.ts"

/** What a machine starts from, as the bytes that QEMU reads. */
export interface Launch {
  readonly firmwareCode: Uint8Array
  /** The variable store before the first boot. */
  readonly firmwareVariables: Uint8Array
  /** The file; QEMU changes its header on the way to the firmware, see `kernelAsQemuLoadsIt`. */
  readonly kernel: Uint8Array
  readonly initrd: Uint8Array
  readonly commandLine: string
  readonly memoryMiB: number
  readonly processors: number
}

/**
 * Reads what QEMU would read, by QEMU's own arguments and nothing else.
 * @throws {LabError} `build-failed` for arguments that could start something else as well
 */
export async function launchOfQemu(words: readonly string[]): Promise<Launch> {
  const options = parseOptions(words)
  const only = (name: string): string => {
    const [value, ...more] = options.filter(([option]) => option === name).map(([, text]) => text)
    if (value === undefined || more.length > 0) throw new LabError("build-failed", `QEMU needs ${name} exactly once`)
    return value
  }
  const drives = options.filter(([option]) => option === "-drive").map(([, text]) => parseProperties(text))
  const flash = async (unit: string): Promise<Uint8Array> => {
    const [drive, ...more] = drives.filter((candidate) => candidate.get("if") === "pflash" && candidate.get("unit") === unit)
    const path = drive?.get("file")
    if (path === undefined || more.length > 0) throw new LabError("build-failed", `QEMU needs one flash of unit ${unit}`)
    return bytesOf(path)
  }
  return {
    firmwareCode: await flash("0"),
    firmwareVariables: await flash("1"),
    kernel: await bytesOf(only("-kernel")),
    initrd: await bytesOf(only("-initrd")),
    commandLine: only("-append"),
    memoryMiB: parseNumber(only("-m"), /^(\d{1,7})M$/),
    processors: parseNumber(only("-smp"), /^(\d{1,4})$/),
  }
}

/** What a machine of this image will start from: for policies, which are written before it boots. */
export async function launchOfImage(
  image: Pick<Bootable, "kind" | "kernel" | "initrd" | "commandLine">,
  hardware: { readonly memoryMiB?: number; readonly processors?: number } = {},
): Promise<Launch> {
  const firmware = await findFirmware()
  return {
    firmwareCode: await bytesOf(firmware.code),
    firmwareVariables: await bytesOf(firmware.variables),
    kernel: await bytesOf(image.kernel),
    initrd: await bytesOf(image.initrd),
    commandLine: image.commandLine,
    memoryMiB: hardware.memoryMiB ?? memoryMiB[image.kind],
    processors: hardware.processors ?? defaultProcessors,
  }
}

async function bytesOf(path: string): Promise<Uint8Array> {
  return new Uint8Array(await readFile(path))
}

/** Name and value of each option, in order. An option that is not known might load code that nobody measures. */
function parseOptions(words: readonly string[]): readonly (readonly [name: string, value: string])[] {
  const options: (readonly [string, string])[] = []
  for (let at = 0; at < words.length; at++) {
    const name = words[at] ?? ""
    if (flags.has(name)) continue
    const value = words[++at]
    if (!known.has(name) || value === undefined) throw new LabError("build-failed", `QEMU's argument ${name} has no known place in the measurements`)
    options.push([name, value])
  }
  return options
}

/** `a=b,c=d`, where two commas stand for one in a value. */
function parseProperties(text: string): ReadonlyMap<string, string> {
  const parts = text.match(/(?:[^,]|,,)+/g) ?? []
  return new Map(
    parts.map((part) => {
      const at = part.indexOf("=")
      return [part.substring(0, at), part.substring(at + 1).replaceAll(",,", ",")] as const
    }),
  )
}

function parseNumber(text: string, form: RegExp): number {
  const digits = form.exec(text)?.[1]
  if (digits === undefined) throw new LabError("build-failed", `QEMU's ${text} is not a number as expected`)
  return Number(digits)
}

const flags: ReadonlySet<string> = new Set(["-nodefaults", "-no-user-config", "-no-reboot"])
const known: ReadonlySet<string> = new Set(
  ["-display", "-name", "-machine", "-accel", "-cpu", "-smp", "-m", "-drive", "-fw_cfg", "-kernel", "-initrd", "-append"].concat(
    ...["-chardev", "-tpmdev", "-device", "-object", "-netdev", "-serial"],
  ),
)
