import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import { action, image, makeLog, separator, utf16, variable, variableData } from "../eventlog/log-builder.testing.ts"
import type { EventInput } from "../eventlog/log-builder.testing.ts"
import { Genuine } from "../genuine.ts"
import { assertRefuses, testParserLaws } from "../testing/parser-laws.ts"
import type { CcelClaims } from "./claims.ts"
import { parseCcel, parseDstackLog, replayCcel } from "./format.ts"
import { verifyCcel } from "./verify.ts"
import type { CcelExpectation, CcelQuirk } from "./verify.ts"

const inRegister = (register: number, event: EventInput): EventInput => ({ ...event, pcr: register })
const exitInvocation = action(2, "Exit Boot Services Invocation")
const exitSuccess = action(2, "Exit Boot Services Returned with Success")
const secureBoot = variable("SecureBoot", Uint8Array.of(1), "EV_EFI_VARIABLE_DRIVER_CONFIG", 1)
const authority = variable("db", encodeUtf8("signer"), "EV_EFI_VARIABLE_AUTHORITY", 1)

/** A boot of a TD as TDVF logs it: register 1 is RTMR0. */
const boot: readonly EventInput[] = [
  { pcr: 1, type: "EV_EFI_HANDOFF_TABLES2", data: encodeUtf8("TdxTable"), hashed: encodeUtf8("TD HOB") },
  secureBoot,
  ...["PK", "KEK", "db", "dbx"].map((name) => variable(name, encodeUtf8(name), "EV_EFI_VARIABLE_DRIVER_CONFIG", 1)),
  separator(1),
  { pcr: 1, type: "EV_PLATFORM_CONFIG_FLAGS", data: encodeUtf8("ACPI DATA"), hashed: encodeUtf8("tables") },
  { pcr: 1, type: "EV_EFI_VARIABLE_BOOT", data: variableData("global", "BootOrder", Uint8Array.of(1, 0)), hashed: Uint8Array.of(1, 0) },
  action(2, "Calling EFI Application from Boot Option"),
  separator(2),
  authority,
  { pcr: 2, type: "EV_EFI_GPT_EVENT", data: encodeUtf8("EFI PART") },
  inRegister(2, image("shim")),
  { pcr: 3, type: "EV_IPL", data: encodeUtf8("grub_cmd: linux /vmlinuz quiet\0"), hashed: encodeUtf8("linux /vmlinuz quiet") },
  { pcr: 3, type: "EV_IPL", data: encodeUtf8("kernel_cmdline: /vmlinuz quiet\0"), hashed: encodeUtf8("/vmlinuz quiet") },
  tag("load-options", utf16("/vmlinuz quiet\0")),
  tag("initrd", encodeUtf8("ram disk")),
  exitInvocation,
  exitSuccess,
]
const runtime: EventInput = { pcr: 4, type: "EV_EVENT_TAG", data: encodeUtf8("app started") }

function tag(kind: "load-options" | "initrd", hashed: Uint8Array): EventInput {
  const head = kind === "load-options" ? [0xed, 0x22, 0x3b, 0x8f] : [0xec, 0x22, 0x3b, 0x8f]
  return { pcr: 3, type: "EV_EVENT_TAG", data: Uint8Array.from([...head, 0, 0, 0, 0]), hashed }
}

const log = (events: readonly EventInput[]): Uint8Array => makeLog(events, ["sha384"])

function quotedBy(bytes: Uint8Array): CcelExpectation["rtmrs"] {
  const [r0 = "", r1 = "", r2 = "", r3 = ""] = replayCcel(parseCcel(bytes)).map(encodeHex)
  return [r0, r1, r2, r3]
}

function verify(events: readonly EventInput[], quirks: readonly CcelQuirk[] = []): CcelClaims {
  const bytes = log(events)
  return verifyCcel(parseCcel(bytes), { rtmrs: quotedBy(bytes), quirks }).claims
}

const sha384 = (text: string | Uint8Array): string => encodeHex(hash("sha384", typeof text === "string" ? encodeUtf8(text) : text))
const without = (...gone: readonly EventInput[]): readonly EventInput[] => boot.filter((event) => !gone.includes(event))
const isSeparator = (register: number) => (event: EventInput): boolean => event.pcr === register && event.type === "EV_SEPARATOR" // prettier-ignore
const behind = (event: EventInput, place: (event: EventInput) => boolean): readonly EventInput[] =>
  boot.flatMap((known) => (place(known) ? [known, event] : [known]))

testParserLaws({
  name: "parseCcel",
  parse: parseCcel,
  samples: [log(boot)],
  wholePrefixes: (sample) => recordEnds(sample),
  refusesTrailing: true,
})

function recordEnds(sample: Uint8Array): readonly number[] {
  const ends: number[] = []
  for (let length = 1; length < sample.length; length++) {
    try {
      parseCcel(sample.slice(0, length))
      ends.push(length)
    } catch {
      // Cut inside a record.
    }
  }
  // One per record, the Spec ID event included; more would mean that a cut record passes.
  assert.equal(ends.length, boot.length)
  return ends
}

test("verifyCcel() gives what the digests certify", () => {
  const bytes = log(boot)
  const genuine = verifyCcel(parseCcel(bytes), { rtmrs: quotedBy(bytes), quirks: [] })
  assert.ok(genuine instanceof Genuine)
  const { claims } = genuine
  assert.equal(claims.secureBoot, "enabled")
  assert.equal(claims.rtmr3, "unused")
  assert.deepEqual(claims.commandLines, ["/vmlinuz quiet"])
  assert.deepEqual(claims.images, [sha384("shim")])
  assert.deepEqual(claims.loadOptions, [sha384(utf16("/vmlinuz quiet\0"))])
  assert.deepEqual(claims.initrds, [sha384("ram disk")])
  assert.deepEqual(claims.quirks, [])
  assert.deepEqual(claims.rtmrs, quotedBy(bytes).slice(0, 3))
  assert.equal(claims.events.length, boot.length)
  assert.deepEqual(claims.events[1], { index: 2, rtmr: 0, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", digest: sha384(secureBoot.data), description: "SecureBoot = 01", certified: true }) // prettier-ignore
})

test("verifyCcel() refuses registers that the log does not lead to, each by itself", () => {
  const bytes = log([...boot, runtime])
  const rtmrs = quotedBy(bytes)
  for (const at of [0, 1, 2, 3]) {
    const changed = rtmrs.map((value, place) => (place === at ? "01".repeat(48) : value)) as unknown as CcelExpectation["rtmrs"]
    assertRefuses(() => verifyCcel(parseCcel(bytes), { rtmrs: changed, quirks: [] }), `RTMR${at}`, "pcr-mismatch")
  }
  assert.throws(() => verifyCcel(parseCcel(bytes), { rtmrs: ["00", "00", "00", "00"], quirks: [] }), TypeError)
  const short = log(boot.slice(0, -1))
  assertRefuses(() => verifyCcel(parseCcel(short), { rtmrs, quirks: ["no-exit-boot-services"] }), "an event is missing", "pcr-mismatch")
})

test("verifyCcel() says what it knows of RTMR3", () => {
  assert.equal(verify([...boot, runtime]).rtmr3, "explained")
  assert.equal(verify([...boot, runtime]).events.at(-1)?.rtmr, 3)
  const bytes = log(boot)
  const [r0, r1, r2] = quotedBy(bytes)
  assert.equal(verifyCcel(parseCcel(bytes), { rtmrs: [r0, r1, r2, "01".repeat(48)], quirks: [] }).claims.rtmr3, "unexplained")
})

const refusals: readonly (readonly [what: string, code: string, events: readonly EventInput[]])[] = [
  ["a second separator of RTMR0", "log-order", behind(separator(1), isSeparator(1))],
  ["a second separator of RTMR1", "log-order", behind(separator(2), isSeparator(2))],
  ["the separator of RTMR1 in RTMR0", "log-order", boot.map((event) => (isSeparator(2)(event) ? separator(1) : event))],
  ["no separator in RTMR0", "log-incomplete", boot.filter((event) => !isSeparator(1)(event))],
  ["no separator in RTMR1", "log-incomplete", boot.filter((event) => !isSeparator(2)(event))],
  ["a separator that marks an error", "log-mismatch", boot.map((event) => (isSeparator(1)(event) ? { ...event, data: Uint8Array.of(1, 0, 0, 0) } : event))],
  ["a separator that does not hash", "log-mismatch", boot.map((event) => (isSeparator(1)(event) ? { ...event, hashed: encodeUtf8("x") } : event))],
  ["a separator under another type", "log-mismatch", behind({ pcr: 1, type: "EV_PLATFORM_CONFIG_FLAGS", data: new Uint8Array(4) }, isSeparator(1))],
  ["an action that does not hash", "log-mismatch", boot.map((event) => (event === exitInvocation ? { ...event, hashed: encodeUtf8("x") } : event))],
  ["a variable that does not hash", "log-mismatch", boot.map((event) => (event === secureBoot ? { ...event, hashed: encodeUtf8("x") } : event))],
  ["an authority that does not hash", "log-mismatch", behind({ pcr: 1, type: "EV_EFI_VARIABLE_AUTHORITY", data: encodeUtf8("a"), hashed: encodeUtf8("b") }, isSeparator(1))],
  ["a partition table that does not hash", "log-mismatch", boot.map((event) => (event.type === "EV_EFI_GPT_EVENT" ? { ...event, hashed: encodeUtf8("x") } : event))],
  ["a type that may not stand there", "log-order", behind({ pcr: 3, type: "EV_EFI_BOOT_SERVICES_APPLICATION", data: encodeUtf8("x") }, isSeparator(2))],
  ["a loader's event in RTMR0", "log-order", behind({ pcr: 1, type: "EV_IPL", data: encodeUtf8("x") }, isSeparator(1))],
  ["Secure Boot without an authority", "log-incomplete", boot.filter((event) => event !== authority)],
  ["Secure Boot with an authority of shim's only", "log-incomplete", boot.map((event) => (event === authority ? { ...authority, data: variableData("shim", "SbatLevel", encodeUtf8("sbat,1")) } : event))],
  ["Secure Boot with a db that is not the firmware's", "log-incomplete", boot.map((event) => (event === authority ? { ...authority, data: variableData("shim", "db", encodeUtf8("signer")) } : event))],
  ["Secure Boot with an authority from dbx", "log-incomplete", boot.map((event) => (event === authority ? { ...authority, data: variableData("image-security", "dbx", encodeUtf8("signer")) } : event))],
  ["Secure Boot with an authority in RTMR3 only, which software extends", "log-incomplete", [...boot.filter((event) => event !== authority), { ...authority, pcr: 4 }]],
  ["Secure Boot with an authority of which only the value was measured", "log-incomplete", boot.map((event) => (event === authority ? { ...authority, hashed: encodeUtf8("signer") } : event))],
  ["a Secure Boot authority in RTMR1", "log-order", behind({ pcr: 2, type: "EV_EFI_VARIABLE_AUTHORITY", data: encodeUtf8("x") }, isSeparator(2))],
  ["a Secure Boot authority in RTMR2", "log-order", behind({ pcr: 3, type: "EV_EFI_VARIABLE_AUTHORITY", data: encodeUtf8("x") }, isSeparator(2))],
  ["an unknown type", "log-order", behind({ pcr: 2, type: 0x99, data: encodeUtf8("x") }, isSeparator(2))],
  ["no ExitBootServices", "log-incomplete", without(exitInvocation, exitSuccess)],
  ["an event behind ExitBootServices", "log-order", [...boot, { pcr: 3, type: "EV_IPL", data: encodeUtf8("late") }]],
  ["SecureBoot twice", "log-order", behind(secureBoot, (event) => event === secureBoot)],
  ["SecureBoot behind the separator", "log-order", behind(secureBoot, isSeparator(1)).filter((event, at) => event !== secureBoot || at > 3)],
  ["no SecureBoot", "log-incomplete", without(secureBoot)],
  ["a SecureBoot of another vendor", "log-incomplete", boot.map((event) => (event === secureBoot ? { ...event, data: variableData("image-security", "SecureBoot", Uint8Array.of(1)) } : event))],
  ["SecureBoot under another type", "log-incomplete", boot.map((event) => (event === secureBoot ? { ...event, type: "EV_EFI_VARIABLE_BOOT" } : event))],
  ["ExitBootServices in RTMR2 only", "log-incomplete", boot.map((event) => (event === exitSuccess ? { pcr: 3, type: "EV_IPL", data: exitSuccess.data } : event))],
  ["the error separator's digest under another type", "log-mismatch", behind({ pcr: 1, type: "EV_PLATFORM_CONFIG_FLAGS", data: Uint8Array.of(1, 0, 0, 0) }, isSeparator(1))],
  ["a good separator's digest under a boot variable", "log-mismatch", behind({ pcr: 1, type: "EV_EFI_VARIABLE_BOOT", data: new Uint8Array(4) }, isSeparator(1))],
  ["td-shim's configuration in RTMR2", "log-order", behind({ pcr: 3, type: "EV_PLATFORM_CONFIG_FLAGS", data: encodeUtf8("x") }, isSeparator(2))],
  ["a SecureBoot that is neither", "log-mismatch", boot.map((event) => (event === secureBoot ? variable("SecureBoot", Uint8Array.of(2), "EV_EFI_VARIABLE_DRIVER_CONFIG", 1) : event))],
] // prettier-ignore

for (const [what, code, events] of refusals) test(`verifyCcel() refuses ${what}`, () => assertRefuses(() => verify(events), what, code))

const hashedTypes: readonly (readonly [type: EventInput["type"], register: number])[] = [
  ["EV_ACTION", 1],
  ["EV_EFI_VARIABLE_BOOT", 1],
  ["EV_EFI_VARIABLE_BOOT2", 1],
  ["EV_S_CRTM_VERSION", 1],
  ["EV_EFI_GPT_EVENT2", 2],
]
for (const [type, pcr] of hashedTypes)
  test(`verifyCcel() refuses data of ${type} that does not hash`, () => {
    const event = { pcr, type, data: encodeUtf8("said") }
    verify(behind(event, isSeparator(pcr)))
    assertRefuses(() => verify(behind({ ...event, hashed: encodeUtf8("measured") }, isSeparator(pcr))), `${type}`, "log-mismatch")
  })

test("verifyCcel() takes the types of every PCR that a register stands for", () => {
  const types: readonly (readonly [register: number, type: EventInput["type"]])[] = [
    [1, "EV_POST_CODE"],
    [1, "EV_CPU_MICROCODE"],
    [1, "EV_EFI_SPDM_DEVICE_POLICY"],
    [2, "EV_NONHOST_CODE"],
    [2, "EV_EFI_SPDM_FIRMWARE_CONFIG"],
    [2, "EV_OMIT_BOOT_DEVICE_EVENTS"],
    [2, "EV_IPL_PARTITION_DATA"],
    [2, "EV_PLATFORM_CONFIG_FLAGS"],
    [3, "EV_IPL"],
    [3, "EV_EVENT_TAG"],
    [3, "EV_COMPACT_HASH"],
    [3, "EV_SEPARATOR"],
  ]
  // The same register, so that each type is judged in each.
  for (const [pcr, type] of types) {
    const place = (event: EventInput): boolean => (pcr === 3 ? event.type === "EV_IPL" : isSeparator(pcr)(event))
    assert.equal(
      verify(boot.flatMap((event) => (place(event) ? [{ pcr, type, data: encodeUtf8("x") }, event] : [event]))).events[1]?.rtmr,
      0,
      `${type}`,
    )
  }
})

test("verifyCcel() reads SecureBoot where its digest stands behind name and value, whatever stands beside it", () => {
  const as = (event: EventInput): CcelClaims["secureBoot"] => verify(boot.map((known) => (known === secureBoot ? event : known))).secureBoot
  assert.equal(as({ ...secureBoot, data: variableData("global", "SecureBoot", Uint8Array.of(0)) }), "disabled")
  // Where Secure Boot is off, nothing has to allow an image, whatever shim measures.
  const off = { ...secureBoot, data: variableData("global", "SecureBoot", Uint8Array.of(0)) }
  assert.equal(
    verify(without(authority, secureBoot).flatMap((event) => (event.type === "EV_EFI_HANDOFF_TABLES2" ? [event, off] : [event]))).secureBoot,
    "disabled",
  )
  // Firmware measures a variable that does not exist as one without bytes.
  assert.equal(as({ ...secureBoot, data: variableData("global", "SecureBoot", new Uint8Array(0)) }), "unknown")
  const others: readonly EventInput[] = [
    authority,
    { pcr: 1, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data: variableData("shim", "SecureBoot", Uint8Array.of(0)) },
    { pcr: 1, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data: variableData("global", "Other", Uint8Array.of(0)) },
    { pcr: 1, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data: encodeUtf8("no variable") },
    { pcr: 2, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data: secureBoot.data },
  ]
  for (const event of others) assert.equal(verify(behind(event, isSeparator(1))).secureBoot, "enabled")
  // A boot order of two entries may have the bytes of the error separator.
  const order = Uint8Array.of(1, 0, 0, 0)
  verify(behind({ pcr: 1, type: "EV_EFI_VARIABLE_BOOT", data: variableData("global", "BootOrder", order), hashed: order }, isSeparator(1)))
  // Registers are extended independently of each other: RTMR1's separator says nothing of RTMR0.
  assert.equal(verify([separator(2), ...boot.filter((event) => !isSeparator(2)(event))]).secureBoot, "enabled")
})

test("verifyCcel() takes command lines and tags from the register of loaders only", () => {
  const text = "/other quiet"
  const claims = verify(boot.flatMap((event) => (isSeparator(2)(event) ? [event, { pcr: 2, type: "EV_IPL", data: encodeUtf8(text) }, { ...tag("load-options", encodeUtf8(text)), pcr: 2 }, { ...tag("initrd", encodeUtf8(text)), pcr: 2 }] : [event]))) // prettier-ignore
  const { commandLines, loadOptions, initrds } = verify(boot)
  assert.deepEqual([claims.commandLines, claims.loadOptions, claims.initrds], [commandLines, loadOptions, initrds])
  const line = (hashed: string): readonly string[] =>
    verify(
      boot.map((event) =>
        event.hashed === undefined || encodeUtf8("/vmlinuz quiet").length !== event.hashed.length
          ? event
          : { ...event, data: encodeUtf8(`kernel_cmdline: ${hashed}\0`), hashed: encodeUtf8(hashed) },
      ),
    ).commandLines
  assert.deepEqual(line("/vmlinuz quiet\0\0"), ["/vmlinuz quiet"])
  assert.deepEqual(line("(hd0,1)/vmlinuz \0 quiet"), ["(hd0,1)/vmlinuz \0 quiet"])
  assert.deepEqual(line("echo /vmlinuz"), [])
})

test("verifyCcel() accepts firmware faults that are named, shows them, and no others", () => {
  const moved = boot.map((event) => (isSeparator(2)(event) ? separator(1) : event))
  assert.deepEqual(verify(moved, ["separator-in-rtmr0"]).quirks, ["separator-in-rtmr0"])
  assertRefuses(() => verify(moved, ["no-exit-boot-services", "secure-boot-variables-missing"]), "others", "log-order")
  assert.deepEqual(verify(without(exitInvocation, exitSuccess), ["no-exit-boot-services"]).quirks, ["no-exit-boot-services"])
  const silent = verify(without(secureBoot), ["secure-boot-variables-missing"])
  assert.deepEqual([silent.secureBoot, silent.quirks], ["unknown", ["secure-boot-variables-missing"]])
  assert.deepEqual(verify(boot, ["separator-in-rtmr0", "no-exit-boot-services"]).quirks, [])
  assertRefuses(() => verify(behind(separator(1), isSeparator(1)), ["separator-in-rtmr0"]), "three separators", "log-order")
  assertRefuses(() => verify([exitSuccess, ...without(exitSuccess)], ["no-exit-boot-services"]), "everything behind ExitBootServices", "log-order")
})

test("parseCcel() refuses other registers and logs without SHA-384", () => {
  for (const register of [0, 5, 0xffffffff]) assertRefuses(() => parseCcel(log([{ pcr: register, type: "EV_IPL", data: encodeUtf8("x") }])), `register ${register}`, "log-order") // prettier-ignore
  assertRefuses(() => parseCcel(makeLog(boot, ["sha256"])), "SHA-256 only", "log-incomplete")
  assertRefuses(() => parseCcel(makeLog([], ["sha256"])), "SHA-256 only, no events", "log-incomplete")
  assert.deepEqual(parseCcel(makeLog(boot, ["sha256", "sha384"])), parseCcel(log(boot)))
  const lacking = makeLog([{ pcr: 1, type: "EV_IPL", data: encodeUtf8("x"), without: ["sha384"] }], ["sha256", "sha384"])
  assertRefuses(() => parseCcel(lacking), "an event without SHA-384", "log-incomplete")
})

/** An event of dstack's log; run-time events hash type, name and payload. */
function dstackEvent(name: string, payload: string, change: object = {}): object {
  const type = 0x08000001
  const prefix = Buffer.alloc(4)
  prefix.writeUInt32LE(type)
  const digest = hash("sha384", prefix, encodeUtf8(`:${name}:`), new Uint8Array(Buffer.from(payload, "hex")))
  return { imr: 3, event_type: type, digest: encodeHex(digest), event: name, event_payload: payload, ...change }
}

const dstackBoot = parseCcel(log(boot)).records.map(({ rtmr, type, digest, data }) => ({
  imr: rtmr,
  event_type: type,
  digest: encodeHex(digest),
  event: "",
  event_payload: encodeHex(data),
}))

function verifyDstack(events: readonly object[]): CcelClaims {
  const parsed = parseDstackLog(JSON.stringify(events))
  const [r0 = "", r1 = "", r2 = "", r3 = ""] = replayCcel(parsed).map(encodeHex)
  return verifyCcel(parsed, { rtmrs: [r0, r1, r2, r3], quirks: [] }).claims
}

test("verifyCcel() takes dstack's log with its run-time events", () => {
  const claims = verifyDstack([...dstackBoot, dstackEvent("compose-hash", "2911")])
  assert.equal(claims.rtmr3, "explained")
  assert.equal(claims.events.at(-1)?.description, "compose-hash = 2911")
  assert.equal(claims.secureBoot, "enabled")
  const forged = dstackEvent("compose-hash", "2911", { event_payload: "2912" })
  assertRefuses(() => verifyDstack([...dstackBoot, forged]), "another payload", "log-mismatch")
  assertRefuses(() => verifyDstack([...dstackBoot, dstackEvent("compose-hash", "2911", { event: "other" })]), "another name", "log-mismatch")
})

test("parseDstackLog() refuses other forms", () => {
  const changes: readonly (readonly [string, object])[] = [
    ["malformed", { imr: 4 }],
    ["malformed", { imr: -1 }],
    ["malformed", { imr: "3" }],
    ["malformed", { imr: 1.5 }],
    ["malformed", { event_type: 2 ** 32 }],
    ["malformed", { event_type: -1 }],
    ["malformed", { event_type: 0.5 }],
    ["malformed", { event_type: "1" }],
    ["malformed", { event: 1 }],
    ["malformed", { event_payload: 1 }],
    ["malformed", { digest: "00" }],
    ["malformed", { digest: 0 }],
    ["malformed", { event_payload: "0" }],
    ["unknown-field", { more: 1 }],
  ]
  for (const [code, change] of changes) assertRefuses(() => parseDstackLog(JSON.stringify([dstackEvent("a", "", change)])), JSON.stringify(change), code) // prettier-ignore
  assertRefuses(() => parseDstackLog("{}"), "no list", "malformed")
  for (const item of ["1", "null", '"x"', "[]", "[1]"]) assertRefuses(() => parseDstackLog(`[${item}]`), `item ${item}`, "malformed")
  assertRefuses(() => parseDstackLog(`[{"more":[[1]]}]`), "four levels", "unknown-field")
  assertRefuses(() => parseDstackLog(`[{"more":[[[1]]]}]`), "five levels", "too-large")
  assertRefuses(() => parseDstackLog(`[${"1,".repeat(65_535)}1]`), "65536 records", "malformed")
  assertRefuses(() => parseDstackLog(`[${"1,".repeat(65_536)}1]`), "65537 records", "too-large")
  assertRefuses(() => parseDstackLog(`[]${" ".repeat(8 * 1024 * 1024)}`), "8 MiB", "too-large")
  const types = [0, 0xffffffff].map((type) => dstackEvent("a", "", { event_type: type }))
  assert.deepEqual(parseDstackLog(JSON.stringify(types)).records.map(({ type }) => type), [0, 0xffffffff]) // prettier-ignore
  assert.equal(parseDstackLog("[]").trailingBytes, 0)
})
