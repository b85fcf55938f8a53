import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { LabError } from "../error.ts"
import { runProgram } from "../process.ts"
import { imageEpochSeconds } from "./recipe.ts"

/**
 * Makes the disk of an administrator: an ext4 file system with programs, which a machine of level `administered` runs once, in order of their names, before
 * its agent starts. Nothing measures the disk at boot; IMA lists what runs from it as `/mnt/<name>`.
 * @returns the path that was given
 */
export async function makeMaintenanceDisk(path: string, programs: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "perun-maintenance-"))
  try {
    const tree = join(folder, "tree")
    await mkdir(tree)
    for (const [name, content] of Object.entries(programs)) {
      if (!/^[A-Za-z0-9._-]+$/.test(name)) throw new LabError("build-failed", `no name for a program: ${JSON.stringify(name)}`)
      await writeFile(join(tree, name), content, { mode: 0o755 })
    }
    await rm(path, { force: true })
    const environment = { E2FSPROGS_FAKE_TIME: String(imageEpochSeconds), MKE2FS_CONFIG: "/dev/null" }
    await runProgram("mke2fs", ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, path, "8M"], { environment })
    return path
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
