import assert from "node:assert/strict"
import { test } from "node:test"
import { ByteReader } from "../bytes/reader.ts"
import { seccompFilter, type SeccompArchitecture } from "./seccomp.ts"

const allow = 0x7fff0000
const kill = 0x80000000
const eperm = 0x00050001
const enosys = 0x00050026
const auditArch = { x64: 0xc000003e, arm64: 0xc00000b7 } as const

/** Runs the program over one `struct seccomp_data`, as the kernel's verifier and interpreter would. */
function decide(architecture: SeccompArchitecture, number: number, args: readonly number[] = [], arch: number = auditArch[architecture]): number {
  const reader = new ByteReader("filter", seccompFilter(architecture))
  const program: { code: number; ifTrue: number; ifFalse: number; value: number }[] = []
  while (reader.remaining > 0)
    program.push({ code: reader.u16le("code"), ifTrue: reader.u8("jt"), ifFalse: reader.u8("jf"), value: reader.u32le("k") })
  const words = new Map<number, number>([
    [0, number],
    [4, arch],
  ])
  args.forEach((value, index) => words.set(16 + 8 * index, value))
  let accumulator = 0
  for (let at = 0; ; at++) {
    const instruction = program[at]
    assert.ok(instruction, "program runs past its end")
    const { code, ifTrue, ifFalse, value } = instruction
    if (code === 0x20) accumulator = words.get(value) ?? 0
    else if (code === 0x54) accumulator = (accumulator & value) >>> 0
    else if (code === 0x15) at += accumulator === value ? ifTrue : ifFalse
    else if (code === 0x35) at += accumulator >= value ? ifTrue : ifFalse
    else if (code === 0x06) return value
    else assert.fail(`unknown instruction ${code}`)
  }
}

test("seccompFilter() allows what every program does", () => {
  for (const number of [0, 1, 3, 9, 39, 59, 202, 257, 319, 334]) assert.equal(decide("x64", number), allow, `x64 ${number}`)
  for (const number of [56, 57, 63, 64, 98, 172, 221, 222, 279]) assert.equal(decide("arm64", number), allow, `arm64 ${number}`)
})

test("seccompFilter() ends processes that call by another instruction set", () => {
  assert.equal(decide("x64", 1, [], 0x40000003), kill)
  assert.equal(decide("arm64", 1, [], 0x40000028), kill)
  assert.equal(decide("x64", 0x40000001), kill)
  assert.equal(decide("x64", 0xffffffff), kill)
})

test("seccompFilter() answers ENOSYS to calls newer than its table", () => {
  assert.equal(decide("x64", 450), allow)
  assert.equal(decide("x64", 451), enosys)
  assert.equal(decide("arm64", 451), enosys)
  assert.equal(decide("x64", 0x3fffffff), enosys)
})

test("seccompFilter() refuses the calls that have no use in a job", () => {
  const x64 = [
    101, 310, 311, 312, 438, 440, 256, 279, 321, 298, 323, 425, 426, 427, 250, 248, 249, 154, 134, 447, 165, 166, 155, 161, 428, 429, 430, 431,
  ]
  x64.push(
    432,
    433,
    442,
    272,
    308,
    303,
    304,
    300,
    301,
    246,
    320,
    175,
    313,
    176,
    174,
    178,
    177,
    179,
    443,
    167,
    168,
    169,
    164,
    227,
    305,
    159,
    172,
    173,
    163,
  )
  x64.push(103, 170, 171, 153, 180, 212, 156, 136, 139)
  for (const number of x64) assert.equal(decide("x64", number), eperm, `x64 ${number}`)
  const arm64 = [
    117, 270, 271, 272, 238, 239, 280, 241, 282, 219, 217, 218, 40, 39, 41, 51, 97, 268, 264, 265, 262, 263, 104, 294, 105, 273, 106, 60, 224, 225,
  ]
  arm64.push(142, 170, 112, 266, 171, 89, 116, 161, 162, 58, 42, 18, 425, 426, 427, 428, 447)
  for (const number of arm64) assert.equal(decide("arm64", number), eperm, `arm64 ${number}`)
  assert.equal(decide("x64", 435), enosys)
  assert.equal(decide("arm64", 435), enosys)
})

test("seccompFilter() allows sockets of the job's own network only", () => {
  for (const [architecture, socket, pair] of [
    ["x64", 41, 53],
    ["arm64", 198, 199],
  ] as const) {
    for (const family of [1, 2, 10]) assert.equal(decide(architecture, socket, [family, 1, 0]), allow)
    assert.equal(decide(architecture, socket, [16, 3, 0]), allow)
    assert.equal(decide(architecture, socket, [16, 3, 9]), eperm)
    for (const family of [0, 3, 17, 38, 40, 44]) assert.equal(decide(architecture, socket, [family, 1, 0]), eperm, `family ${family}`)
    assert.equal(decide(architecture, pair, [1, 1, 0]), allow)
    assert.equal(decide(architecture, pair, [40, 1, 0]), eperm)
  }
})

test("seccompFilter() allows threads and processes but no namespaces", () => {
  for (const [architecture, clone] of [
    ["x64", 56],
    ["arm64", 220],
  ] as const) {
    assert.equal(decide(architecture, clone, [0x003d0f00]), allow)
    assert.equal(decide(architecture, clone, [0x01200011]), allow)
    for (const flag of [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000])
      assert.equal(decide(architecture, clone, [flag + 17]), eperm, flag.toString(16))
  }
})

test("seccompFilter() refuses terminal injection and odd personalities", () => {
  assert.equal(decide("x64", 16, [0, 0x5401]), allow)
  assert.equal(decide("x64", 16, [0, 0x5412]), eperm)
  assert.equal(decide("x64", 16, [0, 0x541c]), eperm)
  assert.equal(decide("x64", 135, [0]), allow)
  assert.equal(decide("x64", 135, [0xffffffff]), allow)
  assert.equal(decide("x64", 135, [0x0040000]), eperm)
  assert.equal(decide("arm64", 92, [0x0400000]), eperm)
})
