import * as z from "zod"
import { MalformedError } from "../../bytes/error.ts"
import { parseJson } from "../../bytes/json.ts"
import type { JsonValue } from "../../bytes/json.ts"
import { parseBase64Url, parseHex } from "../../bytes/text.ts"

/** What the paravisor says in its runtime data: the keys of the virtual TPM, how the VM is set up, and what the guest asked to be included. */
export interface RuntimeData {
  readonly attestationKey: RuntimeKey
  /** Undefined in older reports. */
  readonly endorsementKey: RuntimeKey | undefined
  readonly vmConfiguration: VmConfiguration
  /** 64 bytes that the guest wrote to NV index 0x01400002; undefined in older reports. */
  readonly userData: Uint8Array | undefined
}

/** An RSA key of 2048 bits with exponent 65537. */
export interface RuntimeKey {
  /** Big-endian, 256 bytes. */
  readonly modulus: Uint8Array
  readonly keyOps: "sign" | "encrypt"
}

/** `vm-configuration` as it stands; the names that are known have the type that they must have. */
export type VmConfiguration = Readonly<Record<string, JsonValue>>

const maxBytes = 8192
const modulusBytes = 256
const userDataDigits = 128

const keySchema = (kid: string): z.ZodType<{ readonly n: string; readonly key_ops: readonly string[] }> =>
  z.strictObject({
    kid: z.literal(kid),
    key_ops: z.array(z.enum(["sign", "encrypt"])).length(1),
    kty: z.literal("RSA"),
    e: z.literal("AQAB"),
    n: z.string(),
  })

const attestationKeyId = "HCLAkPub"
const endorsementKeyId = "HCLEkPub"

/** Settings by name. OpenVMM, openhcl_attestation_protocol, AttestationVmConfig. */
const settings: Readonly<Record<string, z.ZodType>> = {
  "current-time": z.int().min(0),
  "root-cert-thumbprint": z.string().max(1024),
  "console-enabled": z.boolean(),
  "interactive-console-enabled": z.boolean(),
  "ipmi-enabled": z.boolean(),
  "secure-boot": z.boolean(),
  "tpm-enabled": z.boolean(),
  "tpm-version": z.string().max(64),
  "tpm-persisted": z.boolean(),
  "filtered-vpci-devices-allowed": z.boolean(),
  "hardware-sealing-policy": z.string().max(64),
  "key-release-context-hash": z.string().max(1024),
  "vmgs-provisioner": z.record(z.string(), z.string().max(1024)),
  vmUniqueId: z.string().max(1024),
}

const documentSchema = z.strictObject({
  keys: z.union([z.tuple([keySchema(attestationKeyId)]), z.tuple([keySchema(attestationKeyId), keySchema(endorsementKeyId)])]),
  "vm-configuration": z.record(z.string(), z.json()),
  "user-data": z
    .string()
    .regex(/^[0-9A-Fa-f]*$/)
    .length(userDataDigits)
    .optional(),
})

/**
 * Reads runtime data: no key that is not known but inside `vm-configuration`, where new settings appear (see `unknownSettings`).
 * @throws {MalformedError} `malformed`, `duplicate`, `too-large`, `unknown-field`
 */
export function parseRuntimeData(bytes: Uint8Array): RuntimeData {
  const document = check(documentSchema, parseJson(bytes, { maxBytes }), "runtimeData")
  const vmConfiguration = document["vm-configuration"]
  for (const [name, schema] of Object.entries(settings))
    if (Object.hasOwn(vmConfiguration, name)) check(schema, vmConfiguration[name], `runtimeData.vm-configuration.${name}`)
  const [attestation, endorsement] = document.keys
  const userData = document["user-data"]
  return {
    attestationKey: readKey(attestation, attestationKeyId),
    endorsementKey: endorsement === undefined ? undefined : readKey(endorsement, endorsementKeyId),
    vmConfiguration: vmConfiguration as VmConfiguration,
    userData: userData === undefined ? undefined : parseHex(userData.toLowerCase(), "runtimeData.user-data"),
  }
}

/** Names in `vm-configuration` that this program does not know: what they allow, nobody here can say. */
export function unknownSettings(configuration: VmConfiguration): readonly string[] {
  return Object.keys(configuration)
    .filter((name) => !Object.hasOwn(settings, name))
    .sort()
}

function readKey({ n, key_ops: [keyOps] }: { readonly n: string; readonly key_ops: readonly string[] }, kid: string): RuntimeKey {
  const path = `runtimeData.keys.${kid}.n`
  const modulus = parseBase64Url(n, path)
  if (modulus.length !== modulusBytes || (modulus[0] ?? 0) < 0x80)
    throw new MalformedError("malformed", `modulus of ${modulus.length} bytes, expected 2048 bits`, { path })
  return { modulus, keyOps: keyOps === "sign" ? "sign" : "encrypt" }
}

function check<T>(schema: z.ZodType<T>, value: unknown, path: string): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const code = issue?.code === "unrecognized_keys" ? "unknown-field" : "malformed"
  throw new MalformedError(code, issue?.message.toLowerCase() ?? "another form", {
    path: [path, ...(issue?.path ?? [])].join("."),
    cause: parsed.error,
  })
}
