import { chmod, copyFile, mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { digestOfJson } from "../../src/bytes/digest.ts"
import { cachedFolder, exists } from "../cache.ts"
import { LabError } from "../error.ts"
import { runProgram } from "../process.ts"
import type { OnProgress } from "../progress.ts"
import { applianceFaults, inspectRoot, type RootFacts } from "./appliance.ts"
import { modulesInOrder } from "./modules.ts"
import {
  bootPackages,
  estimatedSeconds,
  excludedPaths,
  guestPaths,
  imageEpochSeconds,
  initrdLibraries,
  kernelModules,
  type ImageKind,
  mountPoints,
  recipeVersion,
  removedPaths,
  rootPackages,
  rootUuid,
  suite,
  veritySalt,
} from "./recipe.ts"
import { hostAptOptions, hostSources } from "./sources.ts"
import { digestOfFile, digestTree, type ImageFile, listTree, setTimes } from "./tree.ts"
import { formatVerity, makeFileSystem, type VerityDisk } from "./verity.ts"

/** The slow part of an image: Debian's packages and Node on a verity disk, and the kernel and programs that its initrd is made from. */
export interface Base {
  readonly kind: ImageKind
  readonly folder: string
  readonly root: VerityDisk
  readonly kernel: string
  /** What initrds are made of: `bin/busybox`, `bin/dmsetup`, `lib/*`, `modules/NN-name.ko` in loading order. */
  readonly bootTree: string
  readonly facts: RootFacts
  /** `name version` of each package in root and boot tree, sorted. */
  readonly packages: readonly string[]
  readonly files: readonly ImageFile[]
}

/**
 * Gives the base of an image, built if the cache lacks it. An interrupted build leaves nothing that counts; two builders wait for each other.
 * @throws {LabError} `program-failed`, `build-failed`
 */
export async function buildBase(kind: ImageKind, node: string, onProgress: OnProgress): Promise<Base> {
  const key = digestOfJson({
    recipeVersion,
    kind,
    packages: rootPackages[kind],
    bootPackages,
    excludedPaths,
    removedPaths,
    mountPoints,
    initrdLibraries,
    kernelModules,
    suite,
    rootUuid,
    veritySalt,
    imageEpochSeconds,
    node: await digestOfFile(node),
  })
  const name = `base-${kind}-${key.slice("sha256:".length, "sha256:".length + 16)}`
  const total = estimatedSeconds[kind]
  const folder = await cachedFolder(
    name,
    (temporary) => makeBase(kind, node, temporary, onProgress),
    () => onProgress({ step: `waiting for another build of the ${kind} image`, done: 0, total }),
  )
  return await loadBase(folder)
}

interface BaseRecord {
  readonly kind: ImageKind
  readonly dataBlocks: number
  readonly rootHash: string
  readonly facts: RootFacts
  readonly packages: readonly string[]
  readonly files: readonly ImageFile[]
}

async function loadBase(folder: string): Promise<Base> {
  // Written by makeBase into a folder that is moved into place as a whole: our own words, on our own disk.
  const { dataBlocks, rootHash, ...record } = JSON.parse(await readFile(join(folder, "base.json"), "utf8")) as BaseRecord
  return {
    ...record,
    folder,
    root: { path: join(folder, "root.img"), dataBlocks, rootHash },
    kernel: join(folder, "vmlinuz"),
    bootTree: join(folder, "boot"),
  }
}

async function makeBase(kind: ImageKind, node: string, folder: string, onProgress: OnProgress): Promise<void> {
  const total = estimatedSeconds[kind]
  const started = process.hrtime.bigint()
  const report = (step: string, atLeast: number): void => {
    const seconds = Number((process.hrtime.bigint() - started) / 1_000_000_000n)
    onProgress({ step: `${kind} image: ${step}`, done: Math.min(Math.max(seconds, Math.round(total * atLeast)), total - 1), total })
  }
  const root = join(folder, "root")
  const unpacked = join(folder, "unpacked")
  await mkdir(unpacked)
  let current = "starting"
  const ticker = setInterval(() => report(current, 0), 1000)
  try {
    await installPackages(kind, root, unpacked, (line) => report((current = line), 0))
  } finally {
    clearInterval(ticker)
  }
  report("taking out what is not needed", 0.8)
  const packages = await installedPackages(root, join(folder, "packages"))
  await rm(join(folder, "packages"), { recursive: true, force: true })
  await takeBootParts(unpacked, root, join(folder, "boot"))
  await takeKernel(unpacked, join(folder, "vmlinuz"))
  await rm(unpacked, { recursive: true })
  await trimRoot(root)
  await mkdir(dirname(join(root, guestPaths.node)), { recursive: true })
  await copyFile(node, join(root, guestPaths.node))
  await chmod(join(root, guestPaths.node), 0o755)
  const entries = await listTree(root)
  const facts = await inspectRoot(root, entries)
  const faults = applianceFaults(facts)
  if (faults.length > 0) throw new LabError("build-failed", `the root is no appliance: ${faults.join("; ")}`)
  report("taking digests of all files", 0.84)
  const files = await digestTree(root, entries, "")
  await setTimes(root, entries, imageEpochSeconds)
  report("making the file system", 0.88)
  const disk = join(folder, "root.img")
  const dataBlocks = await makeFileSystem(disk, root, entries, rootUuid)
  report("making the verity tree", 0.95)
  const { rootHash } = await formatVerity(disk, dataBlocks, rootUuid)
  await rm(root, { recursive: true })
  const record: BaseRecord = { kind, dataBlocks, rootHash, facts, packages, files }
  await writeFile(join(folder, "base.json"), JSON.stringify(record))
  onProgress({ step: `${kind} image: base is ready`, done: total, total })
}

/** Debian's packages into `root`; kernel and initrd programs unpacked into `unpacked`, with their package files kept in `<root>/../packages` for their versions. */
async function installPackages(kind: ImageKind, root: string, unpacked: string, onLine: (line: string) => void): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), "perun-image-"))
  try {
    const sources = await hostSources()
    const sourcePaths: string[] = []
    for (const { name, text } of sources) {
      const path = join(work, name)
      await writeFile(path, text)
      sourcePaths.push(path)
    }
    const packages = join(dirname(root), "packages")
    await mkdir(join(packages, "partial"), { recursive: true })
    // Runs outside the new root with apt told to work on it. $1 is the new root.
    const hook = [
      `APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q -y --download-only --no-install-recommends -o Dir::Cache::archives='${packages}' -o APT::Sandbox::User=root install ${bootPackages.join(" ")}`,
      `for package in linux-image dmsetup libdevmapper busybox-static; do for file in '${packages}'/"$package"*.deb; do [ ! -e "$file" ] || dpkg-deb -x "$file" '${unpacked}'; done; done`,
    ].join(" && ")
    const options = [
      "--variant=minbase",
      `--include=${rootPackages[kind].join(",")}`,
      '--aptopt=APT::Install-Recommends "false"',
      ...(await hostAptOptions()).map((option) => `--aptopt=${option}`),
      ...excludedPaths.map((path) => `--dpkgopt=path-exclude=${path}`),
      "--dpkgopt=force-unsafe-io",
      `--customize-hook=${hook}`,
      "--format=directory",
      suite,
      root,
      ...sourcePaths,
    ]
    await runProgram("mmdebstrap", options, {
      environment: { SOURCE_DATE_EPOCH: String(imageEpochSeconds) },
      onLine: (line) => {
        if (line.includes("customize-hook")) onLine("fetching the signed kernel")
        else if (line.startsWith("I: ")) onLine(line.slice("I: ".length))
      },
    })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

async function installedPackages(root: string, downloaded: string): Promise<readonly string[]> {
  const format = "${Package} ${Version}\\n"
  const installed = await runProgram("dpkg-query", [`--admindir=${join(root, "var/lib/dpkg")}`, "-W", "-f", format])
  const archives = (await readdir(downloaded)).filter((name) => name.endsWith(".deb"))
  const boot = await Promise.all(archives.map((name) => runProgram("dpkg-deb", ["-W", `--showformat=${format}`, join(downloaded, name)])))
  return [...new Set([installed, ...boot].flatMap((text) => text.split("\n")).filter((line) => line !== ""))].sort()
}

/** Leaves what the agent and its jobs need: no ways in, no setuid bits, no caches. */
async function trimRoot(root: string): Promise<void> {
  for (const path of removedPaths) await rm(join(root, path), { recursive: true, force: true })
  for (const path of ["dev", "run", "tmp", "var/tmp"]) {
    for (const name of await readdir(join(root, path))) await rm(join(root, path, name), { recursive: true, force: true })
  }
  for (const { path, kind, mode } of await listTree(root)) {
    if (kind === "file" && (mode & 0o6000) !== 0) await chmod(join(root, path), mode & 0o1777)
    if (kind === "file" && path.endsWith("/__pycache__/")) await rm(join(root, path))
    if (path.endsWith("~") || /^etc\/(?:passwd|group|shadow|gshadow)-$/.test(path)) await rm(join(root, path), { recursive: true, force: true })
  }
  for (const path of mountPoints) await mkdir(join(root, path), { recursive: true })
  const passwd = await readFile(join(root, "etc/passwd"), "utf8")
  await writeFile(join(root, "etc/passwd"), passwd.replace(/:[^:\n]*$/gm, ":/usr/sbin/nologin"))
  const shadow = await readFile(join(root, "etc/shadow"), "utf8")
  const names = shadow.split("\n").flatMap((line) => (line === "" ? [] : [line.split(":")[0]]))
  await writeFile(join(root, "etc/shadow"), names.map((name) => `${name}:!*:::::::\n`).join(""))
  await writeFile(join(root, "etc/hostname"), "perun\n")
  await writeFile(join(root, "etc/hosts"), "127.0.0.1 localhost perun\n")
}

/** Picks what initrds are made of out of the unpacked boot packages and the root. */
async function takeBootParts(unpacked: string, root: string, boot: string): Promise<void> {
  for (const folder of ["bin", "lib", "modules"]) await mkdir(join(boot, folder), { recursive: true })
  await copyFile(join(unpacked, "bin/busybox"), join(boot, "bin/busybox"))
  await copyFile(join(unpacked, "sbin/dmsetup"), join(boot, "bin/dmsetup"))
  for (const name of initrdLibraries) await copyFile(await findLibrary(name, [unpacked, root]), join(boot, "lib", name))
  for (const [index, path] of (await modulesInOrder(unpacked, kernelModules)).entries()) {
    await copyFile(path, join(boot, "modules", `${String(index).padStart(2, "0")}-${basename(path)}`))
  }
}

async function findLibrary(name: string, trees: readonly string[]): Promise<string> {
  for (const path of trees.flatMap((tree) => [join(tree, "lib/x86_64-linux-gnu", name), join(tree, "usr/lib/x86_64-linux-gnu", name)])) {
    if (await exists(path)) return path
  }
  throw new LabError("build-failed", `no library ${name} for the initrd`)
}

async function takeKernel(unpacked: string, path: string): Promise<void> {
  const names = (await readdir(join(unpacked, "boot"))).filter((name) => name.startsWith("vmlinuz-"))
  const [name] = names
  if (name === undefined || names.length > 1) throw new LabError("build-failed", `expected one kernel, found ${names.length}`)
  await rename(join(unpacked, "boot", name), path)
}
