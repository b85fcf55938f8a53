import assert from "node:assert/strict"
import { existsSync, readFileSync } from "node:fs"
import { resolve } from "node:path"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import { Genuine } from "../genuine.ts"
import type { BootClaims } from "./claims.ts"
import {
  action,
  bootRegisters,
  exitInvocation,
  exitSuccess,
  goodBoot,
  image,
  linuxTag,
  makeLog,
  makeSha1Log,
  quotedBy,
  separator,
  startupLocality,
  utf16,
  variable,
  variableData,
} from "./log-builder.testing.ts"
import type { EventInput } from "./log-builder.testing.ts"
import { verifyEventLog } from "./verify.ts"
import type { EventLogExpectations, FirmwareQuirk } from "./verify.ts"

const boot = goodBoot()

/** Verifies a log against what an honest TPM would hold after it. */
function verify(events: readonly EventInput[], change: Partial<EventLogExpectations> = {}): BootClaims {
  const log = makeLog(events)
  return verifyEventLog(log, { bank: "sha256", quotedPcrs: quotedBy(log, "sha256", bootRegisters), ...change }).claims
}

const without = (matches: (event: EventInput) => boolean): readonly EventInput[] => boot.filter((event) => !matches(event))
const replaced = (matches: (event: EventInput) => boolean, by: (event: EventInput) => EventInput): readonly EventInput[] =>
  boot.map((event) => (matches(event) ? by(event) : event))
/** The boot with an event put in behind the last event that matches. */
function inserted(event: EventInput, behind: (event: EventInput) => boolean): readonly EventInput[] {
  const place = boot.findLastIndex(behind)
  return [...boot.filter((_, index) => index <= place), event, ...boot.filter((_, index) => index > place)]
}
const isSeparator =
  (pcr: number) =>
  (event: EventInput): boolean =>
    event.pcr === pcr && event.type === "EV_SEPARATOR"
const isExit = (event: EventInput): boolean => event === exitInvocation || event === exitSuccess
const isVariable = (name: string) => (event: EventInput): boolean =>
  event.type === "EV_EFI_VARIABLE_DRIVER_CONFIG" && Buffer.from(event.data).toString("latin1").includes(Buffer.from(utf16(name)).toString("latin1")) && event.data[16] === name.length // prettier-ignore
const sha256Text = (data: Uint8Array): string => encodeHex(hash("sha256", data))

test("verifyEventLog() gives what the digests certify", () => {
  const log = makeLog(boot)
  const genuine = verifyEventLog(log, { bank: "sha256", quotedPcrs: quotedBy(log, "sha256", bootRegisters) })
  assert.ok(genuine instanceof Genuine)
  const { claims } = genuine
  assert.equal(claims.bank, "sha256")
  assert.equal(claims.secureBoot, "enabled")
  assert.equal(claims.startupLocality, 0)
  assert.deepEqual(claims.pcrs, quotedBy(log, "sha256", bootRegisters))
  assert.deepEqual(claims.commandLines, [{ pcr: 8, text: "/vmlinuz quiet" }])
  assert.deepEqual(
    claims.images,
    ["shim", "grub", "kernel"].map((name) => sha256Text(encodeUtf8(name))),
  )
  assert.deepEqual(claims.loadOptions, [sha256Text(utf16("/vmlinuz quiet\0"))])
  assert.deepEqual(claims.initrds, [sha256Text(encodeUtf8("ram disk"))])
  assert.deepEqual(claims.quirks, [])
  assert.equal(claims.trailingBytes, 0)
  assert.equal(claims.events.length, boot.length)
  const described = claims.events.filter((event) => event.certified).map(({ pcr, type, description }) => `${pcr} ${type} ${description}`)
  assert.deepEqual(described.slice(0, 4), [
    "0 EV_S_CRTM_VERSION 1.0",
    "7 EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot = 01",
    `7 EV_EFI_VARIABLE_DRIVER_CONFIG PK = ${encodeHex(encodeUtf8("platform key"))}`,
    `7 EV_EFI_VARIABLE_DRIVER_CONFIG KEK = ${encodeHex(encodeUtf8("key exchange key"))}`,
  ])
  assert.ok(described.includes("1 EV_EFI_VARIABLE_BOOT value 0100"))
  assert.ok(described.includes("5 EV_EFI_GPT_EVENT partition table of 8 bytes"))
  assert.ok(described.includes("8 EV_IPL linux /vmlinuz quiet"))
  assert.ok(described.includes("5 EV_EFI_ACTION Exit Boot Services Returned with Success"))
  const firmware = claims.events.find((event) => event.type === "EV_EFI_PLATFORM_FIRMWARE_BLOB")
  assert.deepEqual(firmware, { index: 2, pcr: 0, type: "EV_EFI_PLATFORM_FIRMWARE_BLOB", digest: sha256Text(encodeUtf8("firmware")), description: "", certified: false }) // prettier-ignore
})

test("verifyEventLog() counts padding", () => {
  const log = concatBytes(makeLog(boot), new Uint8Array(100).fill(0xff))
  const { claims } = verifyEventLog(log, { bank: "sha256", quotedPcrs: quotedBy(log, "sha256", bootRegisters) })
  assert.equal(claims.trailingBytes, 100)
})

test("verifyEventLog() takes the startup locality", () => {
  assert.equal(verify([startupLocality(3), ...boot]).startupLocality, 3)
})

test("verifyEventLog() refuses the SHA-1 bank unless it is named", () => {
  const log = makeSha1Log(boot)
  const expected = { bank: "sha1", quotedPcrs: quotedBy(log, "sha1", bootRegisters) } as const
  assert.throws(() => verifyEventLog(log, expected), { code: "weak-algorithm" })
  assert.equal(verifyEventLog(log, { ...expected, insecureAllowSha1: true }).claims.bank, "sha1")
})

test("verifyEventLog() refuses values of another length and form than the bank's", () => {
  const log = makeLog(boot)
  const quoted = (value: string): EventLogExpectations => ({ bank: "sha256", quotedPcrs: new Map([[4, value]]) })
  assert.throws(() => verifyEventLog(log, quoted("00".repeat(20))), TypeError)
  assert.throws(() => verifyEventLog(log, quoted("xx")), { code: "malformed" })
})

test("verifyEventLog() refuses each quoted register that the log does not explain", () => {
  const log = makeLog(boot)
  for (const pcr of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) {
    const quotedPcrs = new Map(quotedBy(log, "sha256", bootRegisters))
    quotedPcrs.set(pcr, "11".repeat(32))
    assert.throws(() => verifyEventLog(log, { bank: "sha256", quotedPcrs }), { code: "pcr-mismatch", message: new RegExp(`PCR ${pcr} `) })
  }
})

test("verifyEventLog() refuses a quoted register that holds something without an event for it", () => {
  const log = makeLog(boot)
  const quotedPcrs = new Map([...quotedBy(log, "sha256", bootRegisters), [11, "11".repeat(32)] as const])
  assert.throws(() => verifyEventLog(log, { bank: "sha256", quotedPcrs }), { code: "log-incomplete" })
  quotedPcrs.set(11, "00".repeat(32)).set(17, "ff".repeat(32))
  assert.equal(verifyEventLog(log, { bank: "sha256", quotedPcrs }).claims.pcrs.get(17), "ff".repeat(32))
  quotedPcrs.set(17, "00".repeat(32))
  assert.throws(() => verifyEventLog(log, { bank: "sha256", quotedPcrs }), { code: "log-incomplete" })
})

test("verifyEventLog() takes nothing from registers that are not quoted", () => {
  const log = makeLog([...boot.filter((event) => !isExit(event)), { pcr: 12, type: "EV_IPL", data: utf16("evil\0") }, exitInvocation, exitSuccess])
  const quotedPcrs = quotedBy(log, "sha256", [0, 2, 3, 4, 5, 6])
  const { claims } = verifyEventLog(log, { bank: "sha256", quotedPcrs })
  assert.deepEqual(new Set(claims.events.map((event) => event.pcr)), new Set([0, 2, 3, 4, 5, 6]))
  assert.deepEqual(claims.commandLines, [])
  assert.deepEqual(claims.initrds, [])
  assert.equal(claims.secureBoot, "unknown")
})

test("verifyEventLog() refuses an event that lacks a digest of the judged bank", () => {
  const log = makeLog(replaced(isSeparator(5), (event) => ({ ...event, without: ["sha256"] })))
  const quotedPcrs = quotedBy(log, "sha256", bootRegisters)
  assert.throws(() => verifyEventLog(log, { bank: "sha256", quotedPcrs }), { code: "log-incomplete" })
})

test("verifyEventLog() refuses an event without a digest of the bank, though the register's other events explain its value", () => {
  const hidden: EventInput = { pcr: 8, type: "EV_IPL", data: encodeUtf8("grub_cmd: hidden"), hashed: encodeUtf8("hidden"), without: ["sha256"] }
  assert.throws(() => verify(inserted(hidden, isSeparator(0))), { code: "log-incomplete" })
})

test("verifyEventLog() refuses a cut log", () => {
  const log = makeLog(boot)
  const quotedPcrs = quotedBy(log, "sha256", bootRegisters)
  assert.throws(() => verifyEventLog(log.slice(0, -5), { bank: "sha256", quotedPcrs }), { code: "truncated" })
  const cutBehindRecord = makeLog(boot.slice(0, -1))
  assert.throws(() => verifyEventLog(cutBehindRecord, { bank: "sha256", quotedPcrs }), { code: "pcr-mismatch" })
})

const other = encodeUtf8("other")
const refusals: readonly (readonly [string, readonly EventInput[], string])[] = [
  ["a type that may not extend its register", inserted({ pcr: 6, type: "EV_IPL", data: other }, isSeparator(6)), "log-order"],
  ["an unknown type", inserted({ pcr: 1, type: 0x20, data: other }, isSeparator(0)), "log-order"],
  ["a separator whose data is not what was measured", replaced(isSeparator(3), (event) => ({ ...event, hashed: other })), "log-mismatch"],
  ["an action whose text is not what was measured", replaced((event) => event.pcr === 4 && event.type === "EV_EFI_ACTION", (event) => ({ ...event, hashed: other })), "log-mismatch"], // prettier-ignore
  ["a variable whose value is not what was measured", replaced(isVariable("PK"), (event) => ({ ...event, hashed: other })), "log-mismatch"],
  ["a driver variable of which only the value was measured", replaced(isVariable("PK"), (event) => ({ ...event, hashed: encodeUtf8("platform key") })), "log-mismatch"], // prettier-ignore
  ["a boot variable whose value is not what was measured", replaced((event) => event.type === "EV_EFI_VARIABLE_BOOT", (event) => ({ ...event, hashed: other })), "log-mismatch"], // prettier-ignore
  ["a boot variable 2 of another value", inserted({ pcr: 1, type: "EV_EFI_VARIABLE_BOOT2", data: variableData("global", "X", other), hashed: encodeUtf8("y") }, isSeparator(1)), "log-mismatch"], // prettier-ignore
  ["a partition table that is not what was measured", replaced((event) => event.type === "EV_EFI_GPT_EVENT", (event) => ({ ...event, hashed: other })), "log-mismatch"], // prettier-ignore
  ["a partition table 2 that is not what was measured", inserted({ pcr: 5, type: "EV_EFI_GPT_EVENT2", data: other, hashed: encodeUtf8("x") }, isSeparator(5)), "log-mismatch"], // prettier-ignore
  ["an old action that is not what was measured", inserted({ pcr: 4, type: "EV_ACTION", data: other, hashed: encodeUtf8("x") }, isSeparator(4)), "log-mismatch"], // prettier-ignore
  ["a firmware version that is not what was measured", replaced((event) => event.type === "EV_S_CRTM_VERSION", (event) => ({ ...event, hashed: other })), "log-mismatch"], // prettier-ignore
  ["an authority that is not what was measured", replaced((event) => event.type === "EV_EFI_VARIABLE_AUTHORITY", (event) => ({ ...event, hashed: other })), "log-mismatch"], // prettier-ignore
  ["a separator's digest under another type", inserted({ pcr: 1, type: "EV_NONHOST_CONFIG", data: other, hashed: new Uint8Array(4) }, isSeparator(0)), "log-mismatch"], // prettier-ignore
  ["the other separator's digest under another type", inserted({ pcr: 4, type: "EV_IPL", data: other, hashed: new Uint8Array(4).fill(0xff) }, isSeparator(4)), "log-mismatch"], // prettier-ignore
  ["the error separator's digest under another type", inserted({ pcr: 1, type: "EV_NONHOST_CONFIG", data: other, hashed: Uint8Array.of(1, 0, 0, 0) }, isSeparator(0)), "log-mismatch"], // prettier-ignore
  ["a separator's digest under another type in PCR 7", inserted({ pcr: 7, type: "EV_EFI_SPDM_DEVICE_POLICY", data: other, hashed: new Uint8Array(4) }, isSeparator(7)), "log-mismatch"], // prettier-ignore
  ["a separator disguised as a boot variable", inserted({ pcr: 1, type: "EV_EFI_VARIABLE_BOOT", data: variableData("global", "X", new Uint8Array(4)), hashed: new Uint8Array(4) }, isSeparator(1)), "log-mismatch"], // prettier-ignore
  ["a separator that marks an error", replaced(isSeparator(2), (event) => ({ ...event, data: Uint8Array.of(1, 0, 0, 0) })), "log-mismatch"],
  ["firmware code behind its separator", inserted({ pcr: 0, type: "EV_POST_CODE", data: other }, isSeparator(0)), "log-order"],
  ["a driver behind its separator", inserted(image("late", 2, "EV_EFI_BOOT_SERVICES_DRIVER"), isSeparator(2)), "log-order"],
  ["driver configuration behind its separator", inserted(variable("X", other, "EV_EFI_VARIABLE_DRIVER_CONFIG", 3), isSeparator(3)), "log-order"],
  ["no ExitBootServices events", without(isExit), "log-incomplete"],
  ["an ExitBootServices that only began", without((event) => event === exitSuccess), "log-incomplete"],
  ["an event behind ExitBootServices", [...boot, image("late")], "log-order"],
  ["a command line behind ExitBootServices", [...boot, { pcr: 8, type: "EV_IPL", data: encodeUtf8("kernel_cmdline: /late") , hashed: encodeUtf8("/late") }], "log-order"], // prettier-ignore
  ["ExitBootServices events of another register only", [...without(isExit), action(4, "Exit Boot Services Returned with Success")], "log-incomplete"],
  ["Secure Boot without an authority", without((event) => event.type === "EV_EFI_VARIABLE_AUTHORITY"), "log-incomplete"],
  ["Secure Boot with an authority of shim's only", replaced((event) => event.type === "EV_EFI_VARIABLE_AUTHORITY", (event) => ({ ...event, data: variableData("shim", "SbatLevel", encodeUtf8("sbat,1")) })), "log-incomplete"], // prettier-ignore
  ["Secure Boot with a db that is not the firmware's", replaced((event) => event.type === "EV_EFI_VARIABLE_AUTHORITY", (event) => ({ ...event, data: variableData("shim", "db", encodeUtf8("signer")) })), "log-incomplete"], // prettier-ignore
  ["Secure Boot with an authority from dbx", replaced((event) => event.type === "EV_EFI_VARIABLE_AUTHORITY", (event) => ({ ...event, data: variableData("image-security", "dbx", encodeUtf8("signer")) })), "log-incomplete"], // prettier-ignore
  ["a SecureBoot variable of another value", replaced(isVariable("SecureBoot"), () => variable("SecureBoot", Uint8Array.of(2))), "log-mismatch"],
  ["a SecureBoot variable of two bytes", replaced(isVariable("SecureBoot"), () => variable("SecureBoot", Uint8Array.of(1, 0))), "log-mismatch"],
  ["firmware in debug mode", inserted(action(7, "UEFI Debug Mode"), isVariable("dbx")), "unsupported"],
  ...[0, 1, 2, 3, 4, 5, 6, 7].flatMap((pcr) => [
    [`no separator in PCR ${pcr}`, without(isSeparator(pcr)), "log-incomplete"] as const,
    [`two separators in PCR ${pcr}`, inserted(separator(pcr), isSeparator(pcr)), "log-order"] as const,
  ]),
  ...["SecureBoot", "PK", "KEK", "db", "dbx"].flatMap((name) => [
    [`no ${name} variable`, without(isVariable(name)), "log-incomplete"] as const,
    [`the ${name} variable twice`, inserted(variable(name, Uint8Array.of(1)), isVariable(name)), "log-order"] as const,
    [`the ${name} variable behind the separator only`, [...without((event) => isVariable(name)(event) || isExit(event)), variable(name, Uint8Array.of(1)), exitInvocation, exitSuccess], "log-order"] as const, // prettier-ignore
  ]),
]
for (const [what, events, code] of refusals)
  test(`verifyEventLog() refuses ${what}`, () => {
    assert.throws(() => verify(events), { code })
  })

test("verifyEventLog() asks what the firmware's registers have to hold of these only", () => {
  const zeros: EventInput = { pcr: 14, type: "EV_IPL", data: other, hashed: new Uint8Array(4) }
  assert.equal(verify(inserted(zeros, isSeparator(0))).secureBoot, "enabled")
  assert.deepEqual(verify(inserted(action(4, "UEFI Debug Mode"), isSeparator(4))).quirks, [])
  const odd: EventInput = { pcr: 7, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data: other }
  assert.equal(verify(inserted(odd, isVariable("dbx"))).secureBoot, "enabled")
})

test("verifyEventLog() knows the five variables by vendor and name", () => {
  const foreign: EventInput = { pcr: 7, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data: variableData("shim", "PK", other) }
  assert.throws(() => verify(replaced(isVariable("PK"), () => foreign)), { code: "log-incomplete" })
  assert.equal(verify(inserted(foreign, isVariable("PK"))).secureBoot, "enabled")
  const elsewhere: EventInput = { ...variable("SecureBoot", Uint8Array.of(0)), pcr: 1 }
  assert.equal(verify(inserted(elsewhere, isVariable("PK"))).secureBoot, "enabled")
})

test("verifyEventLog() reads the state of Secure Boot", () => {
  assert.equal(verify(replaced(isVariable("SecureBoot"), () => variable("SecureBoot", Uint8Array.of(0)))).secureBoot, "disabled")
  assert.equal(verify(replaced(isVariable("SecureBoot"), () => variable("SecureBoot", new Uint8Array(0)))).secureBoot, "unknown")
  const noAuthority = boot.filter((event) => event.type !== "EV_EFI_VARIABLE_AUTHORITY")
  const disabled = noAuthority.map((event) => (isVariable("SecureBoot")(event) ? variable("SecureBoot", Uint8Array.of(0)) : event))
  assert.equal(verify(disabled).secureBoot, "disabled")
})

test("verifyEventLog() takes an authority only where its data was measured, and in PCR 7", () => {
  const bad = replaced((event) => event.type === "EV_EFI_VARIABLE_AUTHORITY", (event) => ({ ...event, hashed: other })) // prettier-ignore
  assert.throws(() => verify(bad, { quirks: ["authority-not-hashed"] }), { code: "log-incomplete" })
  // Old shims hash the value alone: it may stand beside the firmware's, but nothing says which variable it is of.
  const isAuthority = (event: EventInput): boolean => event.type === "EV_EFI_VARIABLE_AUTHORITY"
  const valueOnly = (event: EventInput): EventInput => ({ ...event, hashed: encodeUtf8("signer") })
  assert.throws(() => verify(replaced(isAuthority, valueOnly)), { code: "log-incomplete" })
  const claims = verify(boot.flatMap((event) => (isAuthority(event) ? [event, valueOnly(event)] : [event])))
  assert.equal(claims.secureBoot, "enabled")
  const last = claims.events.findLast((event) => event.type === "EV_EFI_VARIABLE_AUTHORITY")
  assert.equal(last?.description, `value ${encodeHex(encodeUtf8("signer"))}`)
})

test("verifyEventLog() accepts both separators and a BootOrder that has the error separator's bytes", () => {
  verify(replaced(isSeparator(6), (event) => ({ ...event, data: new Uint8Array(4).fill(0xff) })))
  const order = Uint8Array.of(1, 0, 0, 0)
  verify(replaced((event) => event.type === "EV_EFI_VARIABLE_BOOT", (event) => ({ ...event, data: variableData("global", "BootOrder", order), hashed: order }))) // prettier-ignore
})

const quirkCases: readonly (readonly [FirmwareQuirk, readonly EventInput[]])[] = [
  ["no-exit-boot-services", without(isExit)],
  ["secure-boot-variables-missing", without(isVariable("dbx"))],
  ["crtm-version-not-hashed", replaced((event) => event.type === "EV_S_CRTM_VERSION", (event) => ({ ...event, hashed: other }))], // prettier-ignore
  ["authority-not-hashed", inserted({ pcr: 7, type: "EV_EFI_VARIABLE_AUTHORITY", data: other, hashed: encodeUtf8("x") }, isSeparator(7))],
  ["debug-mode", inserted(action(7, "UEFI Debug Mode"), isVariable("dbx"))],
]
for (const [quirk, events] of quirkCases)
  test(`verifyEventLog() accepts and shows the firmware quirk ${quirk} where it is named`, () => {
    assert.deepEqual(verify(events, { quirks: [quirk] }).quirks, [quirk])
    const others = quirkCases.map(([name]) => name).filter((name) => name !== quirk)
    assert.throws(() => verify(events, { quirks: others }))
    assert.deepEqual(verify(boot, { quirks: [quirk] }).quirks, [])
  })

test("verifyEventLog() accepts ExitBootServices events that the log lacks where that quirk is named", () => {
  const quotedPcrs = quotedBy(makeLog(boot), "sha256", bootRegisters)
  const log = makeLog(without(isExit))
  const verifyWith = (quirks: readonly FirmwareQuirk[], quoted = quotedPcrs): BootClaims =>
    verifyEventLog(log, { bank: "sha256", quotedPcrs: quoted, quirks }).claims
  assert.throws(() => verifyWith([]), { code: "pcr-mismatch" })
  assert.throws(() => verifyWith(["no-exit-boot-services"]), { code: "pcr-mismatch" })
  assert.deepEqual(verifyWith(["unlogged-exit-boot-services"]).quirks, ["unlogged-exit-boot-services"])
  const wrong = new Map(quotedPcrs).set(5, "11".repeat(32))
  assert.throws(() => verifyWith(["unlogged-exit-boot-services"], wrong), { code: "pcr-mismatch" })
  const exitTexts = [exitInvocation, exitSuccess].map(({ data }) => hash("sha256", data))
  for (const pcr of [0, 4, 7, 14]) {
    const register = exitTexts.reduce((value, text) => hash("sha256", value, text), parseHex(quotedPcrs.get(pcr) ?? ""))
    const elsewhere = new Map(quotedPcrs).set(pcr, encodeHex(register))
    assert.throws(() => verifyWith(["unlogged-exit-boot-services"], elsewhere), { code: "pcr-mismatch" })
  }
  const half = new Map(quotedPcrs).set(5, quotedBy(makeLog(without((event) => event === exitSuccess)), "sha256", [5]).get(5) ?? "")
  assert.throws(() => verifyWith(["unlogged-exit-boot-services"], half), { code: "pcr-mismatch" })
})

test("verifyEventLog() refuses what follows an ExitBootServices that stands first", () => {
  const log = makeLog([exitSuccess, separator(5)])
  assert.throws(() => verifyEventLog(log, { bank: "sha256", quotedPcrs: quotedBy(log, "sha256", [5]) }), { code: "log-order" })
})

test("verifyEventLog() asks nothing of ExitBootServices where PCR 5 is not quoted", () => {
  const log = makeLog(without(isExit))
  verifyEventLog(log, { bank: "sha256", quotedPcrs: quotedBy(log, "sha256", [0, 4]) })
})

test("verifyEventLog() takes a kernel's command line by its text, not by GRUB's label", () => {
  const relabelled = boot.map((event): EventInput => {
    const text = Buffer.from(event.data).toString()
    if (text.startsWith("kernel_cmdline: ")) return { ...event, data: encodeUtf8("grub_cmd: /vmlinuz quiet\0") }
    if (text.startsWith("grub_cmd: ")) return { ...event, data: encodeUtf8("kernel_cmdline: linux /vmlinuz quiet\0") }
    return event
  })
  assert.deepEqual(verify(relabelled).commandLines, [{ pcr: 8, text: "/vmlinuz quiet" }])
  const forged = replaced((event) => Buffer.from(event.data).toString().startsWith("kernel_cmdline"), (event) => ({ ...event, data: encodeUtf8("kernel_cmdline: /other\0") })) // prettier-ignore
  assert.deepEqual(verify(forged).commandLines, [])
  const redHat = replaced((event) => Buffer.from(event.data).toString().startsWith("kernel_cmdline"), (event) => ({ ...event, data: encodeUtf8("grub_kernel_cmdline (hd0)/vmlinuz\0"), hashed: encodeUtf8("(hd0)/vmlinuz") })) // prettier-ignore
  assert.deepEqual(verify(redHat).commandLines, [{ pcr: 8, text: "(hd0)/vmlinuz" }])
})

test("verifyEventLog() takes systemd-boot's command line from PCR 12", () => {
  const events = inserted({ pcr: 12, type: "EV_IPL", data: utf16("root=/dev/vda quiet \0") }, isSeparator(0))
  const log = makeLog(events)
  const { claims } = verifyEventLog(log, { bank: "sha256", quotedPcrs: quotedBy(log, "sha256", [...bootRegisters, 12]) })
  assert.deepEqual(claims.commandLines, [{ pcr: 12, text: "root=/dev/vda quiet " }, { pcr: 8, text: "/vmlinuz quiet" }]) // prettier-ignore
})

test("verifyEventLog() takes no command line from what is none in PCR 12, nor from other registers", () => {
  const tag: EventInput = { pcr: 12, type: "EV_EVENT_TAG", data: other, hashed: encodeUtf8("x") }
  const log = makeLog([...inserted({ pcr: 14, type: "EV_IPL", data: encodeUtf8("/vmlinuz other") }, isSeparator(0)).filter((event) => !isExit(event)), tag, exitInvocation, exitSuccess]) // prettier-ignore
  const { claims } = verifyEventLog(log, { bank: "sha256", quotedPcrs: quotedBy(log, "sha256", [...bootRegisters, 12]) })
  assert.deepEqual(claims.commandLines, [{ pcr: 8, text: "/vmlinuz quiet" }])
})

test("verifyEventLog() explains load options by a given candidate", () => {
  const { commandLines } = verify(boot, { commandLineCandidates: ["something else", "/vmlinuz quiet"] })
  assert.deepEqual(commandLines, [{ pcr: 8, text: "/vmlinuz quiet" }, { pcr: 9, text: "/vmlinuz quiet" }]) // prettier-ignore
  assert.deepEqual(verify(boot, { commandLineCandidates: ["/vmlinuz"] }).commandLines, [{ pcr: 8, text: "/vmlinuz quiet" }])
})

test("verifyEventLog() counts as images what no certified text explains in PCR 4, whatever its label", () => {
  const disguised = inserted({ pcr: 4, type: "EV_IPL", data: encodeUtf8("harmless"), hashed: encodeUtf8("hidden loader") }, isSeparator(4))
  assert.ok(verify(disguised).images.includes(sha256Text(encodeUtf8("hidden loader"))))
})

test("verifyEventLog() takes load options and ram disks from PCR 9 only", () => {
  const tag = { ...linuxTag("initrd", other), pcr: 14 }
  const untagged: EventInput = { ...linuxTag("initrd", other), type: "EV_IPL" }
  assert.equal(verify(inserted(untagged, isSeparator(0))).initrds.length, 1)
  assert.equal(verify(inserted(tag, isSeparator(0))).initrds.length, 1)
  assert.equal(verify(inserted({ ...linuxTag("load-options", other), pcr: 14 }, isSeparator(0))).loadOptions.length, 1)
})

test("verifyEventLog() makes descriptions that cannot drive a terminal", () => {
  const text = "\u001b[2J\u202eevil\n"
  const events = inserted({ pcr: 8, type: "EV_IPL", data: encodeUtf8(`grub_cmd: ${text}`), hashed: encodeUtf8(text) }, isSeparator(0))
  assert.ok(verify(events).events.some((event) => event.description === "\\u{1b}[2J\\u{202e}evil\\u{a}"))
})

test("verifyEventLog() reads odd variables as opaque", () => {
  const short = new ByteWriter().bytes(new Uint8Array(16)).u64le(0xffff_ffff_ffff_ffffn).u64le(1n).take()
  const events = inserted({ pcr: 1, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data: short }, isSeparator(0))
  assert.ok(verify(events).events.some((event) => event.description === "variable of unknown form, 32 bytes" && event.certified))
  for (const [nameLength, valueLength] of [
    [0xffff_ffff_ffff_ffffn, 0n],
    [0n, 0xffff_ffff_ffff_ffffn],
  ] as const) {
    // prettier-ignore
    const huge = new ByteWriter().bytes(new Uint8Array(16)).u64le(nameLength).u64le(valueLength).take()
    assert.equal(verify(inserted({ pcr: 1, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data: huge }, isSeparator(0))).secureBoot, "enabled")
  }
  const shown = (event: EventInput): readonly string[] => verify(inserted(event, isSeparator(0))).events.map(({ description }) => description)
  const config = "EV_EFI_VARIABLE_DRIVER_CONFIG"
  assert.ok(shown({ pcr: 1, type: config, data: variableData("global", "", Uint8Array.of(1, 2)) }).includes(" = 0102"))
  assert.ok(shown(variable("X", new Uint8Array(32).fill(1), config, 1)).includes(`X = ${"01".repeat(32)}`))
  assert.ok(shown(variable("X", new Uint8Array(33), config, 1)).includes("X = 33 bytes"))
  assert.ok(shown(variable("X", new Uint8Array(0), config, 1)).includes("X = (empty)"))
  assert.ok(shown({ pcr: 14, type: "EV_IPL", data: utf16("A") }).includes("A"))
  const tagged = inserted({ pcr: 1, type: "EV_EVENT_TAG", data: other }, isSeparator(0))
  assert.ok(verify(tagged).events.some((event) => event.description === "tagged event of 5 bytes"))
  const latin = Uint8Array.of(0xe9, 0x41)
  const bytes = inserted({ pcr: 8, type: "EV_IPL", data: latin }, isSeparator(0))
  assert.ok(verify(bytes).events.some((event) => event.description === "éA"))
})

const vectors = resolve(import.meta.dirname, "../../..", process.env["PERUN_VECTORS"] ?? "../shared/vectors")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

/** Real logs, with the quirks of their firmware. */
const realLogs: readonly (readonly [string, readonly FirmwareQuirk[], BootClaims["secureBoot"]])[] = [
  ["host/ng", [], "disabled"],
  ["eventlog/gce-rhel8-three-banks", [], "enabled"],
  ["eventlog/keylime-secure-boot", [], "enabled"],
  ["eventlog/hp-elitebook-830g6", [], "enabled"],
  ["eventlog/gce-ubuntu2104-no-dbx", [], "disabled"],
  ["eventlog/gce-sp800-155-events", [], "enabled"],
  ["eventlog/sd-boot-fedora37", [], "unknown"],
  ["eventlog/arch-workstation-truncated-variable", ["no-exit-boot-services"], "unknown"],
  ["eventlog/gce-cos93-amd-sev", ["authority-not-hashed"], "enabled"],
  ["eventlog/server-startup-locality-3", ["crtm-version-not-hashed"], "disabled"],
  ["tpm/supermicro-windows-two-banks", ["no-exit-boot-services", "secure-boot-variables-missing"], "unknown"],
  ["tpm/dell-latitude-windows", [], "disabled"],
]
for (const [name, quirks, secureBoot] of realLogs)
  test(`verifyEventLog() judges the real log ${name}`, { skip }, () => {
    const log = new Uint8Array(readFileSync(resolve(vectors, name, "eventlog.bin")))
    const quotedPcrs = quotedBy(log, "sha256", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    if (quirks.length > 0) assert.throws(() => verifyEventLog(log, { bank: "sha256", quotedPcrs }))
    const { claims } = verifyEventLog(log, { bank: "sha256", quotedPcrs, quirks })
    assert.equal(claims.secureBoot, secureBoot)
    assert.deepEqual([...claims.quirks].sort(), [...quirks].sort())
  })
