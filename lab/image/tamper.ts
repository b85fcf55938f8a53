import { open, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { digestOf, digestOfJson } from "../../src/bytes/digest.ts"
import { cachedFolder } from "../cache.ts"
import { LabError } from "../error.ts"
import { runProgram } from "../process.ts"
import type { Image, ImageDisk } from "./build.ts"
import { commandLine } from "./command-line.ts"
import { appUuid, diskSerials, guestPaths, rootUuid } from "./recipe.ts"
import { blockSize, formatVerity } from "./verity.ts"

export interface Tampering {
  /** Absolute path in the guest of the file to change; no symbolic link. */
  readonly path: string
  /** Place of the byte, from 0; default is the file's last, which in an ELF program belongs to a table that nothing reads when it runs. */
  readonly offset?: number
}

/**
 * The image as an attacker makes it who can write to the host's disk: one bit of one byte of a program is changed, and verity tree and command line are
 * rebuilt to fit, so that the machine boots and runs as before. The list of files stays the good image's.
 * @throws {LabError} `build-failed` where there is no such file
 */
export async function tamperImage(image: Image, { path, offset }: Tampering): Promise<Image> {
  const serial = path.startsWith(`${guestPaths.app}/`) ? diskSerials.app : diskSerials.root
  const disk = image.disks.find((candidate) => candidate.serial === serial)
  if (disk === undefined) throw new Error(`internal: the image has no disk ${serial}`)
  const inside = serial === diskSerials.app ? path.slice(guestPaths.app.length) : path
  const key = digestOfJson({ version: 1, rootHash: disk.rootHash, path, offset: offset ?? -1 })
  const folder = await cachedFolder(`tampered-${key.slice("sha256:".length, "sha256:".length + 16)}`, async (temporary) => {
    await runProgram("cp", ["--sparse=always", "--reflink=auto", disk.path, join(temporary, "disk.img")])
    await flipBit(join(temporary, "disk.img"), inside, offset)
    const { rootHash } = await formatVerity(join(temporary, "disk.img"), disk.dataBlocks, serial === diskSerials.app ? appUuid : rootUuid)
    await writeFile(join(temporary, "root-hash"), rootHash)
  })
  const changed: ImageDisk = { ...disk, path: join(folder, "disk.img"), rootHash: await readFile(join(folder, "root-hash"), "utf8") }
  const disks = image.disks.map((other) => (other.serial === serial ? changed : other))
  const [root, app] = [disks.find((other) => other.serial === diskSerials.root), disks.find((other) => other.serial === diskSerials.app)]
  if (root === undefined || app === undefined) throw new Error("internal: an image has a root and an app disk")
  const line = commandLine({ level: image.level, root, app })
  const digest = digestOfJson({ kernel: digestOf(await readFile(image.kernel)), initrd: digestOf(await readFile(image.initrd)), commandLine: line })
  return { ...image, disks, commandLine: line, digest }
}

/** Changes the lowest bit of one byte of a file inside an ext4 file system, past the file system, so that nothing else changes. */
async function flipBit(diskPath: string, path: string, wanted: number | undefined): Promise<void> {
  const quoted = `"${path.replaceAll('"', "")}"`
  const stat = await runProgram("debugfs", ["-R", `stat ${quoted}`, diskPath])
  const size = /^User:.*\sSize: (\d+)$/m.exec(stat)?.[1]
  if (size === undefined || !/Type: regular/.test(stat)) throw new LabError("build-failed", `the image has no file ${path}`)
  const offset = wanted ?? Number(size) - 1
  if (offset < 0 || offset >= Number(size)) throw new LabError("build-failed", `${path} has ${size} bytes, none at ${offset}`)
  const block = (await runProgram("debugfs", ["-R", `bmap ${quoted} ${Math.floor(offset / blockSize)}`, diskPath])).trim()
  if (!/^[1-9]\d*$/.test(block)) throw new LabError("build-failed", `no block of ${path} at byte ${offset}`)
  const position = Number(block) * blockSize + (offset % blockSize)
  const file = await open(diskPath, "r+")
  try {
    const byte = new Uint8Array(1)
    await file.read(byte, 0, 1, position)
    byte[0] = (byte[0] ?? 0) ^ 1
    await file.write(byte, 0, 1, position)
  } finally {
    await file.close()
  }
}
