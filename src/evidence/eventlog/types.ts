/**
 * Event types of the TCG PC Client Platform Firmware Profile (PFP) 1.06 §10.4.1, and what this verifier knows about each. The type of an event is
 * covered by no hash: the table says what may stand where, and when the data is certified by the digest.
 */
export const eventTypes = {
  EV_PREBOOT_CERT: 0x00000000,
  EV_POST_CODE: 0x00000001,
  EV_UNUSED: 0x00000002,
  EV_NO_ACTION: 0x00000003,
  EV_SEPARATOR: 0x00000004,
  EV_ACTION: 0x00000005,
  EV_EVENT_TAG: 0x00000006,
  EV_S_CRTM_CONTENTS: 0x00000007,
  EV_S_CRTM_VERSION: 0x00000008,
  EV_CPU_MICROCODE: 0x00000009,
  EV_PLATFORM_CONFIG_FLAGS: 0x0000000a,
  EV_TABLE_OF_DEVICES: 0x0000000b,
  EV_COMPACT_HASH: 0x0000000c,
  EV_IPL: 0x0000000d,
  EV_IPL_PARTITION_DATA: 0x0000000e,
  EV_NONHOST_CODE: 0x0000000f,
  EV_NONHOST_CONFIG: 0x00000010,
  EV_NONHOST_INFO: 0x00000011,
  EV_OMIT_BOOT_DEVICE_EVENTS: 0x00000012,
  EV_POST_CODE2: 0x00000013,
  EV_EFI_VARIABLE_DRIVER_CONFIG: 0x80000001,
  EV_EFI_VARIABLE_BOOT: 0x80000002,
  EV_EFI_BOOT_SERVICES_APPLICATION: 0x80000003,
  EV_EFI_BOOT_SERVICES_DRIVER: 0x80000004,
  EV_EFI_RUNTIME_SERVICES_DRIVER: 0x80000005,
  EV_EFI_GPT_EVENT: 0x80000006,
  EV_EFI_ACTION: 0x80000007,
  EV_EFI_PLATFORM_FIRMWARE_BLOB: 0x80000008,
  EV_EFI_HANDOFF_TABLES: 0x80000009,
  EV_EFI_PLATFORM_FIRMWARE_BLOB2: 0x8000000a,
  EV_EFI_HANDOFF_TABLES2: 0x8000000b,
  EV_EFI_VARIABLE_BOOT2: 0x8000000c,
  EV_EFI_GPT_EVENT2: 0x8000000d,
  EV_EFI_HCRTM_EVENT: 0x80000010,
  EV_EFI_VARIABLE_AUTHORITY: 0x800000e0,
  EV_EFI_SPDM_FIRMWARE_BLOB: 0x800000e1,
  EV_EFI_SPDM_FIRMWARE_CONFIG: 0x800000e2,
  EV_EFI_SPDM_DEVICE_POLICY: 0x800000e3,
  EV_EFI_SPDM_DEVICE_AUTHORITY: 0x800000e4,
} as const

export type EventTypeName = keyof typeof eventTypes

const namesByType = new Map<number, EventTypeName>((Object.entries(eventTypes) as [EventTypeName, number][]).map(([name, type]) => [type, name]))

/** TCG name of an event type, or `0x…` (8 digits) where the number is unknown. */
export function eventTypeName(type: number): EventTypeName | `0x${string}` {
  return namesByType.get(type) ?? `0x${type.toString(16).padStart(8, "0")}`
}

/**
 * Types allowed to extend each register, PFP 1.06 §3.3.4 and §10.4, with what boot loaders put into 8 to 15 (GRUB: IPL; Linux EFI stub: EVENT_TAG;
 * systemd-boot and -stub: IPL, EVENT_TAG; shim: IPL; Windows: COMPACT_HASH, EVENT_TAG, SEPARATOR). Registers that are not listed take no boot events.
 */
const allowedTypes: ReadonlyMap<number, ReadonlySet<string>> = new Map<number, ReadonlySet<EventTypeName>>([
  [
    0,
    new Set([
      "EV_POST_CODE",
      "EV_POST_CODE2",
      "EV_SEPARATOR",
      "EV_ACTION",
      "EV_S_CRTM_CONTENTS",
      "EV_S_CRTM_VERSION",
      "EV_NONHOST_CODE",
      "EV_NONHOST_INFO",
      "EV_EFI_BOOT_SERVICES_DRIVER",
      "EV_EFI_RUNTIME_SERVICES_DRIVER",
      "EV_EFI_PLATFORM_FIRMWARE_BLOB",
      "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
      "EV_EFI_HANDOFF_TABLES",
      "EV_EFI_HANDOFF_TABLES2",
      "EV_EFI_HCRTM_EVENT",
    ]),
  ],
  [
    1,
    new Set([
      "EV_SEPARATOR",
      "EV_ACTION",
      "EV_EVENT_TAG",
      "EV_CPU_MICROCODE",
      "EV_PLATFORM_CONFIG_FLAGS",
      "EV_TABLE_OF_DEVICES",
      "EV_NONHOST_CONFIG",
      "EV_EFI_VARIABLE_DRIVER_CONFIG",
      "EV_EFI_VARIABLE_BOOT",
      "EV_EFI_VARIABLE_BOOT2",
      "EV_EFI_ACTION",
      "EV_EFI_HANDOFF_TABLES",
      "EV_EFI_HANDOFF_TABLES2",
    ]),
  ],
  [
    2,
    new Set([
      "EV_SEPARATOR",
      "EV_ACTION",
      "EV_NONHOST_CODE",
      "EV_NONHOST_INFO",
      "EV_EFI_BOOT_SERVICES_APPLICATION",
      "EV_EFI_BOOT_SERVICES_DRIVER",
      "EV_EFI_RUNTIME_SERVICES_DRIVER",
      "EV_EFI_PLATFORM_FIRMWARE_BLOB",
      "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
      "EV_EFI_SPDM_FIRMWARE_BLOB",
    ]),
  ],
  [
    3,
    new Set([
      "EV_SEPARATOR",
      "EV_ACTION",
      "EV_EVENT_TAG",
      "EV_EFI_VARIABLE_DRIVER_CONFIG",
      "EV_EFI_HANDOFF_TABLES",
      "EV_EFI_HANDOFF_TABLES2",
      "EV_EFI_SPDM_FIRMWARE_CONFIG",
    ]),
  ],
  [
    4,
    new Set([
      "EV_SEPARATOR",
      "EV_ACTION",
      "EV_COMPACT_HASH",
      "EV_IPL",
      "EV_OMIT_BOOT_DEVICE_EVENTS",
      "EV_EFI_BOOT_SERVICES_APPLICATION",
      "EV_EFI_ACTION",
    ]),
  ],
  [
    5,
    new Set([
      "EV_SEPARATOR",
      "EV_ACTION",
      "EV_EVENT_TAG",
      "EV_IPL_PARTITION_DATA",
      "EV_EFI_ACTION",
      "EV_EFI_GPT_EVENT",
      "EV_EFI_GPT_EVENT2",
      "EV_EFI_VARIABLE_BOOT",
      "EV_EFI_VARIABLE_BOOT2",
    ]),
  ],
  [6, new Set(["EV_SEPARATOR", "EV_ACTION", "EV_EVENT_TAG", "EV_COMPACT_HASH"])],
  [
    7,
    new Set([
      "EV_SEPARATOR",
      "EV_ACTION",
      "EV_EFI_ACTION",
      "EV_EFI_VARIABLE_DRIVER_CONFIG",
      "EV_EFI_VARIABLE_AUTHORITY",
      "EV_EFI_SPDM_DEVICE_POLICY",
      "EV_EFI_SPDM_DEVICE_AUTHORITY",
    ]),
  ],
  [8, new Set(["EV_IPL"])],
  [9, new Set(["EV_IPL", "EV_EVENT_TAG"])],
  [11, new Set(["EV_IPL", "EV_EVENT_TAG", "EV_COMPACT_HASH", "EV_SEPARATOR"])],
  [12, new Set(["EV_IPL", "EV_EVENT_TAG", "EV_SEPARATOR"])],
  [13, new Set(["EV_IPL", "EV_EVENT_TAG", "EV_SEPARATOR"])],
  [14, new Set(["EV_IPL", "EV_EVENT_TAG", "EV_SEPARATOR"])],
])

/** Whether an event of this type may extend this register. */
export function isTypeAllowed(pcr: number, typeName: string): boolean {
  return allowedTypes.get(pcr)?.has(typeName) ?? false
}

/** Hash algorithms that event logs use, TPM_ALG_ID of the TCG Algorithm Registry. Others are skipped by the size that the Spec ID event states. */
export const logAlgorithms: ReadonlyMap<number, { readonly name: string; readonly digestBytes: number }> = new Map([
  [0x0004, { name: "sha1", digestBytes: 20 }],
  [0x000b, { name: "sha256", digestBytes: 32 }],
  [0x000c, { name: "sha384", digestBytes: 48 }],
  [0x000d, { name: "sha512", digestBytes: 64 }],
  [0x0012, { name: "sm3-256", digestBytes: 32 }],
])
