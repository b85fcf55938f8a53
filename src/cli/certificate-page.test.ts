/** The page that verifies certificates in a browser: its code's verdicts are those of the command, in this process and in a real browser. */
import assert from "node:assert/strict"
import { existsSync } from "node:fs"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { pathToFileURL } from "node:url"
import { chromium } from "playwright-core"
import { makeParts } from "../manager/study.testing.ts"
import { PerunError } from "../bytes/error.ts"
import { notProved, parseRunCertificate, proofLines, verifyRunCertificate } from "../protocol/run-certificate.ts"
import { at, changedAt, type Finished, finishedRun, otherThan, places, reported } from "./finished-run.testing.ts"
import { demandStatus } from "./process.testing.ts"

type Judge = typeof import("../../page/judge.ts").judge
const browsers = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
const browser = browsers.find((path) => existsSync(path))

describe("the page", () => {
  let folder: string
  let good: Finished
  let judge: Judge
  let page: string

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "perun-page-"))
    good = await finishedRun(await makeParts(), reported)
    const { bundle } = await import("../../page/build.ts")
    const module = join(folder, "judge.mjs")
    await writeFile(module, await bundle("judge.ts"))
    judge = ((await import(pathToFileURL(module).href)) as { judge: Judge }).judge
    page = join(folder, "page.html")
    await demandStatus(["certificate", "page", "--out", page], 0, {})
  })
  after(async () => rm(folder, { recursive: true }))

  /** What the command's own code says. */
  function native(text: string): object {
    try {
      const proof = verifyRunCertificate(parseRunCertificate(text), { ...good.pins, parties: {} })
      return { ok: true, lines: proofLines(proof), notProved: notProved(proof), laboratory: proof.laboratory }
    } catch (error) {
      assert.ok(error instanceof PerunError)
      return { ok: false, code: error.code, message: error.message }
    }
  }

  test("its code says of the certificate, and of each one with a value changed, what the command says", () => {
    const key = good.pins.managers.join("\n")
    const text = JSON.stringify(good.certificate)
    assert.deepEqual(judge(text, key), native(text))
    assert.equal(judge(text, key).ok, true)
    for (const path of places(good.certificate).filter((one) => typeof at(good.certificate, one) !== "object")) {
      const changed = JSON.stringify(changedAt(good.certificate, path, otherThan))
      const [here, there] = [native(changed), judge(changed, key)]
      assert.equal(there.ok, false, path.join("."))
      assert.deepEqual(there, here, path.join("."))
    }
  })

  test("no key, another key, a key that is none, and a party that has not signed are refused", () => {
    const text = JSON.stringify(good.certificate)
    const [key = ""] = good.pins.managers
    const code = (...words: readonly string[]): string => {
      const verdict = judge(text, words[0] ?? "", words[1])
      return verdict.ok ? "ok" : verdict.code
    }
    const clinic = good.certificate.approvals[0]?.signature.key ?? ""
    assert.deepEqual(
      [code(""), code(clinic), code("ssh-ed25519 AAAA"), code(key, `clinic=${clinic}`), code(key, `vendor=${clinic}`), code(key, "clinic")],
      ["usage", "wrong-manager", "truncated", "ok", "wrong-run-certificate", "malformed"],
    )
    assert.equal(code(key, `clinic=${clinic}\nclinic=${clinic}`), "usage")
  })

  test("the same sources make the same page, and it asks for nothing from anywhere", async () => {
    const other = join(folder, "again.html")
    await demandStatus(["certificate", "page", "--out", other], 0, {})
    const html = await readFile(page, "utf8")
    assert.equal(await readFile(other, "utf8"), html)
    assert.match(html, /Content-Security-Policy" content="default-src 'none'; script-src 'sha256-/)
    assert.doesNotMatch(html.replace(/<script type="module">[\s\S]*<\/script>/, ""), /https?:|<link|<img|src=/)
    await demandStatus(["certificate", "page", "--out", page], 2, {})
  })

  test("in Chromium, from a file, without a network", { skip: browser === undefined ? "no Chromium here" : false }, async () => {
    const certificate = join(folder, "certificate.json")
    await writeFile(certificate, JSON.stringify(good.certificate))
    const spoilt = join(folder, "spoilt.json")
    await writeFile(spoilt, JSON.stringify({ ...good.certificate, run: "0".repeat(32) }))
    const started = await chromium.launch({ executablePath: browser ?? "", args: ["--no-sandbox"] })
    try {
      const context = await started.newContext({ offline: true })
      const tab = await context.newPage()
      const faults: string[] = []
      tab.on("pageerror", (error) => faults.push(error.message))
      tab.on("console", (message) => {
        if (message.type() === "error") faults.push(message.text())
      })
      await tab.goto(pathToFileURL(page).href)
      await tab.setInputFiles("#file", certificate)
      await tab.locator("#verdict.bad").waitFor()
      await tab.fill("#manager", good.pins.managers[0] ?? "")
      await tab.locator("#verdict.laboratory").waitFor()
      const shown = await tab.locator("#verdict").innerText()
      for (const { text } of proofLines(verifyRunCertificate(good.certificate, good.pins))) assert.ok(shown.includes(text), text)
      assert.match(shown, /INSECURE LABORATORY/)
      await tab.setInputFiles("#file", spoilt)
      await tab.locator("#verdict.bad").waitFor()
      assert.match(await tab.locator("#verdict").innerText(), /Refused/)
      assert.equal(
        await tab.evaluate(() =>
          fetch("https://example.org").then(
            () => "sent",
            () => "kept",
          ),
        ),
        "kept",
      )
      assert.deepEqual(
        faults.filter((line) => !line.includes("example.org")),
        [],
      )
    } finally {
      await started.close()
    }
  })
})
