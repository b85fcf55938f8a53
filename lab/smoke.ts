/**
 * Boots a laboratory machine for real and holds what it measured against the reference values that were computed from its image's build, without booting
 * it. Then the same for a changed image, which must differ in the boot events and nowhere else.
 *
 *     node lab/smoke.ts [small|pytorch] [sealed|administered]
 */
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseJson } from "../src/bytes/json.ts"
import { verifyEventLog } from "../src/evidence/eventlog/verify.ts"
import { verifyIma } from "../src/evidence/ima/verify.ts"
import { bootFindings } from "../src/policy/appraise-boot.ts"
import { imaFindings } from "../src/policy/appraise-ima.ts"
import { imaPolicyFindings } from "../src/policy/appraise-ima-policy.ts"
import { sealedFindings } from "../src/policy/appraise-sealed.ts"
import type { Finding } from "../src/policy/findings.ts"
import { buildImage, type Image } from "./image/build.ts"
import { guestFile } from "./image/initrd.ts"
import { makeMaintenanceDisk } from "./image/maintenance.ts"
import { tamperImage } from "./image/tamper.ts"
import { bootMachine } from "./machine/boot.ts"
import { shownBytes } from "./machine/shown.ts"
import { labCa, manufactureTpm } from "./machine/tpm.ts"
import { type ImageReferences, imageReferences } from "./reference/image-references.ts"
import { missingPackages } from "./setup.ts"

let passed = 0
let failed = 0

function check(name: string, good: boolean, detail = ""): void {
  if (good) passed++
  else failed++
  console.log(`${good ? "ok    " : "FAILED"} ${name}${detail === "" ? "" : `: ${detail}`}`)
}

/** What a machine showed, judged by the code that judges evidence. */
interface Judged {
  readonly boot: readonly Finding[]
  readonly sealed: readonly Finding[]
  readonly ima: readonly Finding[]
}

async function bootAndJudge(image: Image, references: ImageReferences, folder: string, maintenanceDisk?: string): Promise<Judged> {
  const tpm = await manufactureTpm(join(folder, "tpm"))
  const started = performance.now()
  const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`
  await using machine = await bootMachine({
    image,
    tpm,
    folder: join(folder, "machine"),
    configuration: "{}",
    network: "none",
    ...(maintenanceDisk === undefined ? {} : { maintenanceDisk }),
  })
  console.log(`       ${image.kind} ${image.level} image under ${machine.accelerator}, endorsement key ${tpm.endorsementKey}`)
  for (const text of ["initrd starts", "root starts", "begin events"]) {
    await machine.waitForConsole(text, { timeoutSeconds: 300 })
    console.log(`       ${text === "begin events" ? "Node runs" : text} after ${seconds()}`)
  }
  await machine.ended
  const text = await machine.consoleText()
  console.log(`       ${/perun: root starts at .*/.exec(text)?.[0] ?? ""} by the guest's clock; off after ${seconds()}`)
  const pcrs = parseJson(shownBytes(text, "pcrs"), { maxBytes: 1 << 16 })
  if (!Array.isArray(pcrs)) throw new Error("internal: the probe shows a list of registers")
  const values = new Map(pcrs.map((value, index) => [index, String(value)] as const))
  const bootPcrs = new Map([...values].filter(([pcr]) => pcr <= 9))
  const eventLog = shownBytes(text, "events")
  const { claims } = verifyEventLog(eventLog, {
    bank: "sha256",
    quotedPcrs: bootPcrs,
    commandLineCandidates: references.boot.commandLines.map((line) => line.text),
  })
  const list = shownBytes(text, "ima")
  const ima = verifyIma({
    list,
    bank: "sha256",
    quotedPcrs: new Map([...values].filter(([pcr]) => pcr === 10)),
    bootPcrs: new Map([["sha256", bootPcrs]]),
  })
  console.log(
    `       event log ${eventLog.length} bytes, ${claims.events.length} events; IMA list ${list.length} bytes, ${ima.claims.entries.length} entries`,
  )
  return {
    boot: bootFindings(claims, references.boot),
    sealed: sealedFindings(claims, references.boot),
    ima: [
      ...imaFindings(ima.claims, references.ima, "deny", undefined),
      ...imaPolicyFindings(claims, ima.claims, references.ima.imaPolicy, image.level),
    ],
  }
}

function texts(findings: readonly Finding[]): string {
  return findings
    .slice(0, 5)
    .map(({ code, subject, found, expected }) => `${code} ${subject}: found ${found}, expected ${expected}`)
    .join("; ")
}

const missing = await missingPackages()
if (missing.length > 0) {
  console.log(`install first: ${missing.map(({ name }) => name).join(" ")}`)
  process.exit(50)
}
const kind = process.argv[2] === "pytorch" ? "pytorch" : "small"
const level = process.argv[3] === "administered" ? "administered" : "sealed"
const folder = await mkdtemp(join(tmpdir(), "perun-smoke-"))
try {
  const overlay = { "src/agent/main.ts": await readFile(guestFile("show-logs.ts"), "utf8") }
  let step = ""
  const onProgress = (progress: { readonly step: string }): void => {
    if (progress.step !== step) console.log(`       ${progress.step}`)
    step = progress.step
  }
  const built = performance.now()
  const image = await buildImage({ kind, level, overlay, onProgress })
  const references = await imageReferences(image, onProgress)
  console.log(
    `       image and reference values after ${((performance.now() - built) / 1000).toFixed(1)} s; TPM authority ${(await labCa()).fingerprint}`,
  )

  const control = await bootAndJudge(image, references, join(folder, "control"))
  check("the boot is the reference's, event by event", control.boot.length === 0, texts(control.boot))
  check("every IMA entry is in the reference", control.ima.length === 0, texts(control.ima))
  if (level === "sealed") {
    check("the machine is sealed", control.sealed.length === 0, texts(control.sealed))
    const tampered = await bootAndJudge(await tamperImage(image, { path: "/usr/bin/bwrap" }), references, join(folder, "tampered"))
    check("a changed byte of a program shows in the boot events", tampered.boot.length > 0, texts(tampered.boot))
    const elsewhere = tampered.ima.filter(({ code }) => code !== "ima-policy-unmeasured")
    check("a changed byte of a program that did not run shows nowhere else but in the command line", elsewhere.length === 0, texts(elsewhere))
  } else {
    const disk = await makeMaintenanceDisk(join(folder, "maintenance.img"), { "look-around": "#!/bin/sh\necho looking around\n" })
    const visited = await bootAndJudge(image, references, join(folder, "visited"), disk)
    check("an administrator's program shows in the IMA list", visited.ima.length > 0, texts(visited.ima))
    check("an administrator's program does not show in the boot events", visited.boot.length === 0, texts(visited.boot))
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 10
