import { readFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { encodeUtf8 } from "../../src/bytes/text.ts"
import { LabError } from "../error.ts"
import { type CpioEntry, encodeCpio } from "./cpio.ts"
import { appUuid, diskSerials, guestPaths, initrdLibraries, kernelModules, kernelSettings, rootUuid, veritySalt } from "./recipe.ts"
import { listTree } from "./tree.ts"

/** Files of the initial ram disk: programs, modules in loading order, settings and the script that is process 1 until the root takes over. */
export async function initrdEntries(bootTree: string): Promise<readonly CpioEntry[]> {
  const modules = await modulesInOrder(bootTree, kernelModules)
  const files: (readonly [path: string, data: Uint8Array, mode: number])[] = [
    ["bin/busybox", await readFile(join(bootTree, "bin/busybox")), 0o755],
    ["bin/dmsetup", await readFile(join(bootTree, "sbin/dmsetup")), 0o755],
    ...(await sharedLibraries(bootTree)),
    ...(await Promise.all(
      modules.map(
        async (path, index) => [`modules/${String(index).padStart(2, "0")}-${path.split("/").at(-1) ?? ""}`, await readFile(path), 0o644] as const,
      ),
    )),
    [
      "settings",
      encodeUtf8(
        Object.entries(kernelSettings)
          .map(([name, value]) => `${name} ${value}\n`)
          .join(""),
      ),
      0o644,
    ],
    ["names", encodeUtf8(shellNames()), 0o644],
    ["init", await readFile(guestFile("initrd-init")), 0o755],
  ]
  return withFolders(files)
}

/** The initial ram disk as the machine gets it; equal entries give equal bytes. */
export function encodeInitrd(entries: readonly CpioEntry[]): Uint8Array {
  return new Uint8Array(gzipSync(encodeCpio(entries), { level: 6 }))
}

/** Adds the folders that the files lie in and the mount points. */
export function withFolders(files: readonly (readonly [path: string, data: Uint8Array, mode: number])[]): readonly CpioEntry[] {
  const folders = new Set(["dev", "proc", "sys", "root", "app"])
  for (const [path] of files) for (let folder = dirname(path); folder !== "."; folder = dirname(folder)) folders.add(folder)
  return [
    ...[...folders].sort().map((path): CpioEntry => ({ path, kind: "folder", mode: 0o755 })),
    { path: "bin/sh", kind: "link", target: "busybox" },
    { path: "dev/console", kind: "device", mode: 0o600, major: 5, minor: 1 },
    ...files.map(([path, data, mode]): CpioEntry => ({ path, kind: "file", mode, data })),
  ]
}

/** A file of lab/image/guest: what runs in the machine beside the agent. */
export function guestFile(name: string): string {
  return fileURLToPath(new URL(`guest/${name}`, import.meta.url))
}

/** Paths of modules with all that they need, each after what it needs, as the modules themselves state it. */
export async function modulesInOrder(bootTree: string, wanted: readonly string[]): Promise<readonly string[]> {
  const entries = await listTree(join(bootTree, "lib/modules"))
  const modules = new Map(
    entries.filter(({ path }) => path.endsWith(".ko")).map(({ path }) => [moduleName(path), join(bootTree, "lib/modules", path)]),
  )
  const ordered = new Set<string>()
  async function add(name: string): Promise<void> {
    const path = modules.get(name)
    if (path === undefined) throw new LabError("build-failed", `the kernel package has no module ${name}`)
    if (ordered.has(path)) return
    for (const other of moduleNeeds(await readFile(path))) await add(moduleName(other))
    ordered.add(path)
  }
  for (const name of wanted) await add(moduleName(name))
  return [...ordered]
}

/** Names of the modules that a kernel module needs: the `depends=` entry of its .modinfo section, a list of NUL-terminated texts. */
export function moduleNeeds(module: Uint8Array): readonly string[] {
  const text = Buffer.from(module.buffer, module.byteOffset, module.byteLength).toString("latin1")
  const list = /\0depends=([A-Za-z0-9_,-]*)\0/.exec(text)?.[1]
  if (list === undefined) throw new LabError("build-failed", "a kernel module states no dependencies")
  return list.split(",").filter((name) => name !== "")
}

/** The kernel takes `-` and `_` in module names for the same. */
function moduleName(path: string): string {
  return (path.split("/").at(-1) ?? "").replace(/\.ko$/, "").replaceAll("-", "_")
}

async function sharedLibraries(bootTree: string): Promise<(readonly [path: string, data: Uint8Array, mode: number])[]> {
  const paths = initrdLibraries.map(
    (name) => [name.startsWith("ld-linux") ? `lib64/${name}` : `lib/${name}`, join(bootTree, "libraries", name)] as const,
  )
  return await Promise.all(paths.map(async ([path, source]) => [path, await readFile(source), 0o755] as const))
}

/** What the scripts of the guest call things, as shell variables. */
function shellNames(): string {
  const names = { NODE: guestPaths.node, APP: guestPaths.app, INIT: guestPaths.init, SALT: veritySalt, ROOT_UUID: rootUuid, APP_UUID: appUuid }
  const serials = Object.entries(diskSerials).map(([name, serial]) => `DISK_${name.toUpperCase()}=${serial}\n`)
  return Object.entries(names)
    .map(([name, value]) => `${name}=${value}\n`)
    .concat(serials)
    .join("")
}
