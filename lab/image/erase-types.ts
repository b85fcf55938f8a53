/**
 * Erases the types of every TypeScript file of a tree with Node's own stripper, which keeps lines and columns, and names the files `.js`: so the machine's
 * Node does not spend seconds of emulation on it at each start. Runs as a program of its own, for Node warns that its stripper is young:
 *
 *     node --no-warnings lab/image/erase-types.ts FOLDER
 */
import { readdir, readFile, rm, writeFile } from "node:fs/promises"
import { stripTypeScriptTypes } from "node:module"
import { join } from "node:path"

/** The text of the `.js` file of a `.ts` file: types become blanks, and relative paths name the new files. */
export function eraseTypes(source: string): string {
  return stripTypeScriptTypes(source, { mode: "strip" }).replaceAll(/"(\.{1,2}\/[^"\n]*)\.ts"/g, '"$1.js"')
}

async function eraseTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith(".ts")) continue
    const path = join(entry.parentPath, entry.name)
    await writeFile(path.replace(/\.ts$/, ".js"), eraseTypes(await readFile(path, "utf8")))
    await rm(path)
  }
}

if (import.meta.main) {
  const folder = process.argv[2]
  if (folder === undefined) throw new TypeError("usage: erase-types.ts FOLDER")
  await eraseTree(folder)
}
