/** TPM_CC, TPM 2.0 Library Part 2, 6.5.2: the commands that this client sends. */
export const commandCodes = {
  EvictControl: 0x120,
  NvDefineSpace: 0x12a,
  NvUndefineSpace: 0x122,
  Clear: 0x126,
  HierarchyChangeAuth: 0x129,
  CreatePrimary: 0x131,
  NvIncrement: 0x134,
  NvWrite: 0x137,
  Startup: 0x144,
  ActivateCredential: 0x147,
  NvRead: 0x14e,
  PolicySecret: 0x151,
  Create: 0x153,
  Load: 0x157,
  Quote: 0x158,
  Unseal: 0x15e,
  FlushContext: 0x165,
  NvReadPublic: 0x169,
  ReadPublic: 0x173,
  StartAuthSession: 0x176,
  GetCapability: 0x17a,
  GetRandom: 0x17b,
  PcrRead: 0x17e,
  PolicyPcr: 0x17f,
  PcrExtend: 0x182,
  PolicyGetDigest: 0x189,
} as const

export type CommandName = keyof typeof commandCodes

/** TPM_RH, TPM 2.0 Library Part 2, 7.4: permanent handles. */
export const permanentHandles = {
  owner: 0x40000001,
  null: 0x40000007,
  password: 0x40000009,
  endorsement: 0x4000000b,
} as const

/** TPMA_SESSION, TPM 2.0 Library Part 2, 8.4. */
export const sessionAttributes = { continueSession: 0x01, decrypt: 0x20, encrypt: 0x40 } as const
