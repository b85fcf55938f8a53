import { readFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { encodeUtf8 } from "../../src/bytes/text.ts"
import { type CpioEntry, encodeCpio } from "./cpio.ts"
import { appUuid, diskSerials, guestPaths, kernelSettings, rootUuid, veritySalt } from "./recipe.ts"
import { listTree } from "./tree.ts"

/** Files of the initial ram disk: programs, modules in loading order, settings and the script that is process 1 until the root takes over. */
export async function initrdEntries(bootTree: string): Promise<readonly CpioEntry[]> {
  const parts = (await listTree(bootTree)).filter(({ kind }) => kind === "file").map(({ path }) => path)
  return withFolders([
    ...(await Promise.all(
      parts.map(async (path) => [initrdPath(path), await readFile(join(bootTree, path)), path.endsWith(".ko") ? 0o644 : 0o755] as const),
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
  ])
}

/** The dynamic loader has its place; everything else keeps its own. */
function initrdPath(path: string): string {
  return path.startsWith("lib/ld-linux") ? path.replace("lib/", "lib64/") : path
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

/** What the scripts of the guest call things, as shell variables. */
function shellNames(): string {
  const names = { NODE: guestPaths.node, APP: guestPaths.app, INIT: guestPaths.init, SALT: veritySalt, ROOT_UUID: rootUuid, APP_UUID: appUuid }
  const serials = Object.entries(diskSerials).map(([name, serial]) => `DISK_${name.toUpperCase()}=${serial}\n`)
  return Object.entries(names)
    .map(([name, value]) => `${name}=${value}\n`)
    .concat(serials)
    .join("")
}
