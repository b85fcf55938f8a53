import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { digestOf, digestOfJson, type Digest } from "../../src/bytes/digest.ts"
import { encodeUtf8 } from "../../src/bytes/text.ts"
import type { Appliance, ImaPolicyReference } from "../../src/policy/reference.ts"
import { cachedFolder } from "../cache.ts"
import type { OnProgress } from "../progress.ts"
import { type AppOptions, buildApp } from "./app.ts"
import { applianceOf } from "./appliance.ts"
import { buildBase } from "./base.ts"
import { commandLine, rootHashParameters } from "./command-line.ts"
import { encodeInitrd, guestFile, initrdEntries } from "./initrd.ts"
import { diskSerials, guestPaths, type ImageKind, type ImageLevel, recipeVersion } from "./recipe.ts"
import type { ImageFile } from "./tree.ts"
import type { VerityDisk } from "./verity.ts"

/** All that a machine boots from, and what is known about it. Everything is content-addressed: the paths lie in the cache and are never written again. */
export interface Image {
  readonly kind: ImageKind
  readonly level: ImageLevel
  readonly kernel: string
  /** Unpacked packages that the initrd is made from. */
  readonly bootTree: string
  readonly initrd: string
  /** As given to the kernel; the firmware's loader adds to it, see `measuredCommandLine`. */
  readonly commandLine: string
  readonly disks: readonly ImageDisk[]
  /** Digest over kernel, initrd and command line, and by the command line's root hashes over the disks of a sealed image. */
  readonly digest: Digest
  /** Path as the initrd sees it, which is the name under which the kernel lists the policy, and its text. */
  readonly imaPolicy: Pick<ImaPolicyReference, "path" | "rules">
  readonly appliance: "none" | Appliance
  readonly packages: readonly string[]
  /** Every regular file of disks and initrd. */
  readonly files: readonly ImageFile[]
}

export interface ImageDisk extends VerityDisk {
  readonly serial: string
}

export interface ImageOptions extends AppOptions {
  readonly kind: ImageKind
  /** Default `sealed`. */
  readonly level?: ImageLevel
  /** The Node program of the image; default is the one that runs this. */
  readonly node?: string
  readonly onProgress?: OnProgress
}

/**
 * Builds an image or finds it in the cache. The first build of a kind takes Debian's packages from the network; a change of Perun's source takes a second
 * or two.
 * @throws {LabError} `program-failed`, `build-failed`
 */
export async function buildImage(options: ImageOptions): Promise<Image> {
  const { kind, level = "sealed" } = options
  const onProgress = options.onProgress ?? (() => undefined)
  const base = await buildBase(kind, options.node ?? process.execPath, onProgress)
  const app = await buildApp(options)
  const entries = await initrdEntries(base.bootTree)
  const initrdKey = digestOfJson({
    recipeVersion,
    entries: entries.map((entry) => ("data" in entry ? { ...entry, data: digestOf(entry.data) } : entry)),
  })
  const initrdFolder = await cachedFolder(`initrd-${initrdKey.slice("sha256:".length, "sha256:".length + 16)}`, async (temporary) => {
    await writeFile(join(temporary, "initrd.img"), encodeInitrd(entries))
  })
  const initrd = join(initrdFolder, "initrd.img")
  const disks = [
    { ...base.root, serial: diskSerials.root },
    { ...app.disk, serial: diskSerials.app },
  ]
  const verity = [
    { parameter: rootHashParameters.root, rootHash: base.root.rootHash },
    { parameter: rootHashParameters.app, rootHash: app.disk.rootHash },
  ]
  const policyPath = `${guestPaths.app}/guest/ima-policy.${level}`
  const rules = await readFile(guestFile(`ima-policy.${level}`), "utf8")
  if (app.files.find(({ path }) => path === policyPath)?.digest !== digestOf(encodeUtf8(rules)))
    throw new Error(`internal: the app disk lacks ${policyPath}`)
  const initrdFiles = entries.flatMap((entry): ImageFile[] =>
    entry.kind === "file"
      ? [{ path: `/${entry.path}`, digest: digestOf(entry.data), program: (entry.mode & 0o111) !== 0 || entry.path.endsWith(".ko") }]
      : [],
  )
  const line = commandLine({ level, root: base.root, app: app.disk })
  return {
    kind,
    level,
    kernel: base.kernel,
    bootTree: base.bootTree,
    initrd,
    commandLine: line,
    disks,
    digest: digestOfJson({ kernel: digestOf(await readFile(base.kernel)), initrd: digestOf(await readFile(initrd)), commandLine: line }),
    imaPolicy: { path: `${initrdRoot}${policyPath}`, rules },
    appliance: level === "sealed" ? applianceOf(base.facts, verity) : "none",
    packages: base.packages,
    files: [...base.files, ...app.files, ...initrdFiles],
  }
}

/** Where guest/initrd-init mounts the root before it loads the IMA policy. */
const initrdRoot = "/root"
