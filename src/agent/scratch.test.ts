import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { existsSync } from "node:fs"
import { chmod, chown, lchown, mkdir, mkdtemp, open, readFile, readdir, rm, stat, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { describe, test } from "node:test"
import { Scratch, walk, wipeScratch } from "./scratch.ts"

const user = { uid: 60700, gid: 60700 }
const possible = process.getuid?.() === 0 && canMount()

function canMount(): boolean {
  try {
    execFileSync("mount", ["--version"], { stdio: "ignore" })
    execFileSync("unshare", ["--mount", "true"], { stdio: "ignore" })
    return true
  } catch {
    return false // No such program, or not allowed here.
  }
}

async function withBase(action: (base: string) => Promise<void>): Promise<void> {
  const base = await mkdtemp("/tmp/perun-scratch-")
  try {
    await action(base)
  } finally {
    await wipeScratch(base)
    await rm(base, { recursive: true })
  }
}

async function mountsUnder(base: string): Promise<string[]> {
  return (await readFile("/proc/self/mountinfo", "utf8")).split("\n").filter((line) => line.includes(` ${base}/`))
}

describe("Scratch", { skip: possible ? false : "skipped: needs root and mounts", concurrency: 1 }, () => {
  test("create() mounts memory that holds no programs, devices or set-user-id files", async () => {
    await withBase(async (base) => {
      const scratch = await Scratch.create(base, 1_000_000)
      await scratch.area("output", 500_000, user)
      const mounts = await mountsUnder(base)
      assert.equal(mounts.length, 2)
      for (const mount of mounts) for (const word of ["noexec", "nosuid", "nodev", "tmpfs"]) assert.match(mount, new RegExp(word))
    })
  })

  test("create() uses no folder that somebody else made or may write", async () => {
    await withBase(async (base) => {
      const refused = (path: string): Promise<void> => assert.rejects(Scratch.create(path, 1_000_000), { code: "scratch-unavailable" })
      const elsewhere = join(base, "elsewhere")
      await mkdir(elsewhere, { mode: 0o750 })
      await symlink(elsewhere, join(base, "link"))
      await lchown(join(base, "link"), user.uid, user.gid)
      await refused(join(base, "link"))
      assert.equal((await stat(elsewhere)).mode & 0o777, 0o750)
      await chmod(elsewhere, 0o777)
      await refused(elsewhere)
      await chmod(elsewhere, 0o755)
      await chown(elsewhere, user.uid, user.gid)
      await refused(elsewhere)
    })
  })

  test("create() keeps others out of the list of what is inside", async () => {
    await withBase(async (base) => {
      const scratch = await Scratch.create(base, 1_000_000)
      for (const path of [base, scratch.path, await scratch.folder("inputs", "a")]) assert.equal((await stat(path)).mode & 0o777, 0o711)
    })
  })

  test("wipe() ends every mount whatever a job left: sparse files, names that are no text, paths that are too long", async () => {
    await withBase(async (base) => {
      const scratch = await Scratch.create(base, 1_000_000)
      await writeFile(join(await scratch.folder("inputs"), "records.csv"), "patient data")
      const area = await scratch.area("output", 500_000, user)
      await (await open(join(area, "sparse"), "w")).truncate(2 ** 30)
      await writeFile(Buffer.concat([Buffer.from(`${area}/`), Buffer.from([0x63, 0xe9])]), "x")
      const deepen =
        "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(30):\n  os.mkdir(sys.argv[2])\n  os.chdir(sys.argv[2])\nopen('file', 'w').write('deep')"
      execFileSync("python3", ["-c", deepen, area, "d".repeat(200)])
      await scratch.wipe()
      assert.deepEqual(await mountsUnder(base), [])
      const again = await Scratch.create(base, 1_000_000)
      assert.deepEqual(await readdir(again.path), [])
    })
  })

  test("wipe() finds its mounts through a linked base", async () => {
    await withBase(async (base) => {
      const link = `${base}-link`
      await symlink(base, link)
      try {
        await (await Scratch.create(link, 1_000_000)).wipe()
        assert.deepEqual(await mountsUnder(base), [])
      } finally {
        await rm(link)
      }
    })
  })

  test("the size cap holds", async () => {
    await withBase(async (base) => {
      const scratch = await Scratch.create(base, 100_000)
      await assert.rejects(writeFile(join(scratch.path, "large"), new Uint8Array(200_000)), { code: "ENOSPC" })
    })
  })

  test("area() belongs to the job's user alone and has a cap of its own", async () => {
    await withBase(async (base) => {
      const scratch = await Scratch.create(base, 1_000_000)
      const area = await scratch.area("output", 100_000, user)
      const { mode, uid, gid } = await stat(area)
      assert.deepEqual([mode & 0o777, uid, gid], [0o700, user.uid, user.gid])
      await assert.rejects(writeFile(join(area, "large"), new Uint8Array(200_000)), { code: "ENOSPC" })
    })
  })

  test("giveForReading() lets the job's group read and nobody write", async () => {
    await withBase(async (base) => {
      const scratch = await Scratch.create(base, 1_000_000)
      const folder = await scratch.folder("inputs", "a")
      await mkdir(join(folder, "sub"))
      await writeFile(join(folder, "sub", "table.csv"), "x")
      await scratch.giveForReading(folder, user)
      const modes = await Promise.all(["", "sub", "sub/table.csv"].map(async (name) => stat(join(folder, name))))
      assert.deepEqual(
        modes.map(({ mode, uid, gid }) => [mode & 0o777, uid, gid]),
        [
          [0o550, 0, user.gid],
          [0o550, 0, user.gid],
          [0o440, 0, user.gid],
        ],
      )
    })
  })

  test("giveForReading() refuses links in what was opened", async () => {
    await withBase(async (base) => {
      const scratch = await Scratch.create(base, 1_000_000)
      const folder = await scratch.folder("inputs", "a")
      await symlink("/etc/shadow", join(folder, "link"))
      await assert.rejects(scratch.giveForReading(folder, user), { code: "output-kind" })
    })
  })

  test("wipe() overwrites every file and unmounts", async () => {
    await withBase(async (base) => {
      const scratch = await Scratch.create(base, 3_000_000)
      const area = await scratch.area("output", 2_000_000, user)
      await writeFile(join(area, "weights"), new Uint8Array(1_500_000).fill(7))
      await symlink("/etc/hostname", join(area, "link"))
      const held = await open(join(area, "weights"), "r")
      try {
        await scratch.wipe()
        assert.deepEqual(await mountsUnder(base), [])
        assert.ok((await held.readFile()).every((byte) => byte === 0))
        assert.deepEqual(await readdir(scratch.path), [])
        await scratch.wipe()
      } finally {
        await held.close()
      }
    })
  })

  test("create() wipes what an agent that was killed left behind", async () => {
    await withBase(async (base) => {
      const left = await Scratch.create(base, 1_000_000)
      await writeFile(join(left.path, "plaintext"), "secret")
      await left.area("output", 100_000, user)
      const scratch = await Scratch.create(base, 1_000_000)
      assert.ok(!existsSync(join(scratch.path, "plaintext")))
      assert.equal((await mountsUnder(base)).length, 1)
    })
  })
})

test("walk() lists folders before their content and follows no link", async () => {
  const base = await mkdtemp("/tmp/perun-walk-")
  try {
    await mkdir(join(base, "b"))
    await writeFile(join(base, "b", "file"), "12345")
    await symlink("/etc", join(base, "a"))
    assert.deepEqual(await walk(base), [
      { path: base, kind: "folder", sizeBytes: (await stat(base)).size },
      { path: join(base, "a"), kind: "other", sizeBytes: 4 },
      { path: join(base, "b"), kind: "folder", sizeBytes: (await stat(join(base, "b"))).size },
      { path: join(base, "b", "file"), kind: "file", sizeBytes: 5 },
    ])
  } finally {
    await rm(base, { recursive: true })
  }
})
