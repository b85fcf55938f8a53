import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { LabError } from "../error.ts"
import { listTree } from "./tree.ts"

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
