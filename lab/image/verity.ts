import { open, truncate } from "node:fs/promises"
import { runProgram } from "../process.ts"
import { LabError } from "../error.ts"
import { imageEpochSeconds, veritySalt } from "./recipe.ts"
import type { TreeEntry } from "./tree.ts"

/** A disk image: an ext4 file system with its dm-verity hash tree behind it in the same file. */
export interface VerityDisk {
  readonly path: string
  /** Blocks of 4096 bytes of the file system; the verity superblock is the next one, the tree follows it. */
  readonly dataBlocks: number
  /** Lower-case hexadecimal, SHA-256. */
  readonly rootHash: string
}

/** Makes an ext4 file system with the tree's content, of the size that it needs. */
export async function makeFileSystem(path: string, tree: string, entries: readonly TreeEntry[], uuid: string): Promise<number> {
  const dataBytes =
    entries.reduce((sum, { kind, sizeBytes }) => sum + (kind === "file" || kind === "folder" ? Math.ceil(sizeBytes / blockSize) : 1), 0) * blockSize
  const inodes = entries.length + 64
  // Extent blocks, folders, inode tables and group descriptors: measured at under 3 % of data, plus 256 bytes for each inode.
  const blocks = Math.ceil((dataBytes * 1.04 + inodes * 300) / blockSize) + 2048
  const features = "^has_journal,^resize_inode,^metadata_csum,^uninit_bg,^orphan_file,^huge_file,extents,sparse_super"
  const options = `hash_seed=${uuid},lazy_itable_init=0,root_owner=0:0,no_copy_xattrs`
  await runProgram(
    "mke2fs",
    [
      "-q",
      "-F",
      "-t",
      "ext4",
      "-U",
      uuid,
      "-O",
      features,
      "-E",
      options,
      "-m",
      "0",
      "-b",
      String(blockSize),
      "-I",
      "256",
      "-N",
      String(inodes),
      "-d",
      tree,
      path,
      String(blocks),
    ],
    { environment: { E2FSPROGS_FAKE_TIME: String(imageEpochSeconds), SOURCE_DATE_EPOCH: String(imageEpochSeconds), MKE2FS_CONFIG: "/dev/null" } },
  )
  await fixTimes(path, imageEpochSeconds)
  return blocks
}

/**
 * Gives every inode one time: mke2fs takes the change time from the tree, where nobody can set it, and two builds would differ. Offsets are those of the
 * ext4 on-disk format (Documentation/filesystems/ext4): super block at 1024, group descriptors in the block behind it, 4096-byte blocks.
 */
async function fixTimes(path: string, epochSeconds: number): Promise<void> {
  const file = await open(path, "r+")
  try {
    const at = async (position: number, length: number): Promise<DataView> => {
      const bytes = new Uint8Array(length)
      await file.read(bytes, 0, length, position)
      return new DataView(bytes.buffer)
    }
    const superBlock = await at(1024, 1024)
    const inodesPerGroup = superBlock.getUint32(0x28, true)
    const inodeBytes = superBlock.getUint16(0x58, true)
    const groups = Math.ceil(superBlock.getUint32(0, true) / inodesPerGroup)
    const descriptorBytes = (superBlock.getUint32(0x60, true) & 0x80) === 0 ? 32 : superBlock.getUint16(0xfe, true)
    const descriptors = await at(blockSize, groups * descriptorBytes)
    for (let group = 0; group < groups; group++) {
      const position = descriptors.getUint32(group * descriptorBytes + 8, true) * blockSize
      const table = await at(position, inodesPerGroup * inodeBytes)
      for (let inode = 0; inode < table.byteLength; inode += inodeBytes) {
        if (table.getUint16(inode, true) === 0) continue // Mode 0: not in use.
        for (const seconds of [0x08, 0x0c, 0x10, 0x90]) table.setUint32(inode + seconds, epochSeconds, true)
        for (const nanoseconds of [0x84, 0x88, 0x8c, 0x94]) table.setUint32(inode + nanoseconds, 0, true)
      }
      await file.write(table, 0, table.byteLength, position)
    }
  } finally {
    await file.close()
  }
}

/** Puts the hash tree behind the file system, replacing an older one. */
export async function formatVerity(path: string, dataBlocks: number, uuid: string): Promise<VerityDisk> {
  const offset = dataBlocks * blockSize
  await truncate(path, offset)
  const text = await runProgram("veritysetup", [
    "format",
    `--salt=${veritySalt}`,
    `--uuid=${uuid}`,
    `--data-blocks=${dataBlocks}`,
    `--hash-offset=${offset}`,
    path,
    path,
  ])
  const rootHash = /^Root hash:\s+([0-9a-f]{64})$/m.exec(text)?.[1]
  if (rootHash === undefined) throw new LabError("build-failed", "veritysetup gave no root hash")
  return { path, dataBlocks, rootHash }
}

export const blockSize = 4096
