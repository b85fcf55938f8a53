import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { build } from "esbuild"
import { pageOf } from "./template.ts"

/**
 * Builds the page that verifies run certificates: one HTML file with everything in it. Its own policy lets it load, send and frame nothing, and run only the one script and style whose digests
 * stand in it. The same sources make the same bytes.
 */

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** The code of an entry of this folder, as one module without imports. */
export async function bundle(entry: "main.ts" | "judge.ts"): Promise<string> {
  const { outputFiles, errors } = await build({
    entryPoints: [here(entry)],
    bundle: true,
    format: "esm",
    platform: "neutral",
    mainFields: ["module", "main"],
    target: "es2024",
    minify: true,
    charset: "utf8",
    legalComments: "none",
    alias: { "node:crypto": here("node-crypto.ts") },
    inject: [here("buffer.ts")],
    write: false,
    logLevel: "silent",
  })
  const [file] = outputFiles
  if (file === undefined || errors.length > 0) throw new TypeError("internal: the page's code was not built")
  return file.text
}

export async function buildCertificatePage(): Promise<string> {
  // The end of a script is where HTML finds it first.
  const script = (await bundle("main.ts")).replaceAll("</script", "<\\/script")
  const style = await readFile(here("page.css"), "utf8")
  const policy = [
    "default-src 'none'",
    `script-src '${source(script)}'`,
    `style-src '${source(style)}'`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ")
  return pageOf({ policy, style, script })
}

/** As a content security policy names what may run. */
function source(content: string): string {
  return `sha256-${createHash("sha256").update(content).digest("base64")}`
}
