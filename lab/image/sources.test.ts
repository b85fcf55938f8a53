import assert from "node:assert/strict"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { debianLines, debianStanzas, hostSources } from "./sources.ts"

test("debianLines() takes Debian's main component of our suite only", () => {
  const text = [
    "deb http://mirror.example/debian bookworm main contrib",
    "deb [arch=amd64] http://mirror.example/debian bookworm-updates main",
    "deb http://mirror.example/debian trixie main",
    "deb-src http://mirror.example/debian bookworm main",
    "deb [signed-by=/etc/apt/keyrings/other.gpg] http://other.example/linux bookworm main",
    "deb http://other.example/linux bookworm stable",
    "# deb http://mirror.example/debian bookworm main",
  ].join("\n")
  assert.deepEqual(debianLines(text), text.split("\n").slice(0, 2))
})

test("debianStanzas() takes Debian's main component of our suite only", () => {
  const good =
    "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg"
  const others = [
    "Types: deb\nURIs: http://other.example\nSuites: nodistro\nComponents: main",
    "Types: deb\nURIs: http://other.example\nSuites: bookworm\nComponents: stable",
    "Types: deb\nURIs: http://other.example\nSuites: bookworm\nComponents: main\nSigned-By: /usr/share/keyrings/other.gpg",
    "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main",
    "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main",
  ]
  assert.deepEqual(debianStanzas([`# comment\n${good}`, ...others].join("\n\n")), [good])
})

test("hostSources() is empty on a system without sources for our suite", async () => {
  const etc = await mkdtemp(join(tmpdir(), "perun-sources-"))
  try {
    assert.deepEqual(await hostSources(etc), [])
    await mkdir(join(etc, "apt/sources.list.d"), { recursive: true })
    await writeFile(
      join(etc, "apt/sources.list.d/ubuntu.sources"),
      "Types: deb\nURIs: http://mirror.example/ubuntu\nSuites: noble\nComponents: main\n",
    )
    await writeFile(join(etc, "apt/sources.list"), "deb http://mirror.example/debian bookworm main\n")
    assert.deepEqual(await hostSources(etc), [{ name: "host.list", text: "deb http://mirror.example/debian bookworm main\n" }])
  } finally {
    await rm(etc, { recursive: true })
  }
})
