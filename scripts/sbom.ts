import { createHash } from "node:crypto"

/**
 * The program's packages as a software bill of materials: CycloneDX 1.6 (ECMA-424), out of the lock file alone, so that the same lock gives the same document. Development packages are no part of it.
 */

interface LockedPackage {
  readonly version?: string
  readonly integrity?: string
  readonly license?: string
  readonly dev?: boolean
  readonly optional?: boolean
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
}

interface Lock {
  readonly name: string
  readonly version: string
  readonly packages: Readonly<Record<string, LockedPackage>>
}

export interface Sbom {
  readonly bomFormat: "CycloneDX"
  readonly specVersion: "1.6"
  readonly serialNumber: string
  readonly version: 1
  readonly metadata: object
  readonly components: readonly Component[]
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[]
}

interface Component {
  readonly type: "library" | "application"
  readonly "bom-ref": string
  readonly name: string
  readonly version: string
  readonly scope: "required" | "optional"
  readonly purl: string
  readonly hashes: readonly { readonly alg: "SHA-512"; readonly content: string }[]
  readonly licenses?: readonly { readonly license: { readonly id: string } }[] | readonly { readonly expression: string }[]
}

/** @throws {TypeError} for a lock file without what it must have: version 3, and a SHA-512 of every package */
export function makeSbom(lockText: string, at: Date): Sbom {
  const lock = JSON.parse(lockText) as Lock
  const packages = Object.entries(lock.packages).filter(([path, entry]) => path !== "" && entry.dev !== true)
  const refOf = new Map(packages.map(([path, { version }]) => [path, purlOf(nameOf(path), version ?? "")]))
  const own = purlOf(lock.name, lock.version)
  const components = new Map(packages.map(([path, entry]) => [refOf.get(path) ?? "", componentOf(path, entry)]))
  const dependsOn = (path: string, entry: LockedPackage | undefined): string[] => {
    const names = Object.keys({ ...entry?.dependencies, ...entry?.optionalDependencies, ...entry?.peerDependencies })
    return [...new Set(names.flatMap((name) => refOf.get(placeOf(lock, path, name) ?? "") ?? []))].toSorted()
  }
  const dependencies = new Map(packages.map(([path, entry]) => [refOf.get(path) ?? "", dependsOn(path, entry)]))
  return {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    serialNumber: `urn:uuid:${uuidOf(`${at.toISOString()} ${lockText}`)}`,
    version: 1,
    metadata: {
      timestamp: at.toISOString(),
      component: { type: "application", "bom-ref": own, name: lock.name, version: lock.version, purl: own },
    },
    components: [...components.values()].toSorted((a, b) => (a.purl < b.purl ? -1 : 1)),
    dependencies: [...new Map([[own, dependsOn("", lock.packages[""])], ...dependencies])]
      .map(([ref, on]) => ({ ref, dependsOn: on }))
      .toSorted((a, b) => (a.ref < b.ref ? -1 : 1)),
  }
}

function nameOf(path: string): string {
  return path.split("node_modules/").at(-1) ?? path
}

/** https://github.com/package-url/purl-spec: the @ of a scope is written out. */
function purlOf(name: string, version: string): string {
  return `pkg:npm/${name.replace(/^@/, "%40")}@${version}`
}

function componentOf(path: string, { version, integrity, license, optional }: LockedPackage): Component {
  const name = nameOf(path)
  const [, base64] = /^sha512-([A-Za-z0-9+/]+={0,2})$/.exec(integrity ?? "") ?? []
  if (version === undefined || base64 === undefined) throw new TypeError(`the lock file holds ${path} without a version or a SHA-512`)
  const purl = purlOf(name, version)
  return {
    type: name.startsWith("node-linux-") ? "application" : "library",
    "bom-ref": purl,
    name,
    version,
    scope: optional === true ? "optional" : "required",
    purl,
    hashes: [{ alg: "SHA-512", content: Buffer.from(base64, "base64").toString("hex") }],
    ...(license === undefined ? {} : { licenses: /[ (]/.test(license) ? [{ expression: license }] : [{ license: { id: license } }] }),
  }
}

/** Where Node finds a package that another one names: beside it, or in a folder above. */
function placeOf({ packages }: Lock, from: string, name: string): string | undefined {
  for (let folder = from; ; folder = folder.substring(0, Math.max(0, folder.lastIndexOf("node_modules/") - 1))) {
    const place = folder === "" ? `node_modules/${name}` : `${folder}/node_modules/${name}`
    if (packages[place] !== undefined) return place
    if (folder === "") return undefined
  }
}

/** A UUID of version 8 (RFC 9562): the form is fixed, the rest is ours. */
function uuidOf(text: string): string {
  const hex = createHash("sha256").update(text).digest("hex")
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
