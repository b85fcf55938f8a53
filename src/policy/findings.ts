/**
 * What an appraisal can find. `refusal`: no key is released; `note`: it is said wherever the decision is shown. Meaning and advice stand here once.
 * No configuration turns a refusal into a note: what may differ is said in the policy.
 */
export const findingCodes = {
  "job-not-in-policy": {
    effect: "refusal",
    meaning: "the policy has no such job, or the job no such machine",
    advice: "queue a job that the policy names",
  },
  "policy-expired": { effect: "refusal", meaning: "the policy's time is over", advice: "let the parties sign a successor with a later expiry" },
  "reference-missing": {
    effect: "refusal",
    meaning: "a reference document that the policy names is not there, or is of another kind",
    advice: "submit the reference with the policy",
  },
  "reference-expired": {
    effect: "refusal",
    meaning: "a reference document's time is over",
    advice: "build or capture the reference again and let the parties sign a successor",
  },
  "reference-updated": {
    effect: "note",
    meaning: "the machine was held against a reference that a delegate of the policy put in the place of the policy's own",
    advice: "perun reference fetch gets it; perun reference diff says what is otherwise",
  },
  "identity-missing": {
    effect: "refusal",
    meaning: "nothing proves that the attestation key belongs to a TPM with an endorsement certificate",
    advice: "enrol the host: perun host enrol",
  },
  "endorsement-key-not-listed": {
    effect: "refusal",
    meaning: "the machine is genuine, but not one that the policy lists: another machine may be answering for it",
    advice: "list the endorsement key in a successor policy if this machine is meant",
  },
  "laboratory-root-not-accepted": {
    effect: "refusal",
    meaning: "the machine's endorsement chains to a laboratory root that the policy does not accept",
    advice: "use a machine with a vendor's TPM; only for trials, list the root under laboratoryRoots",
  },
  "insecure-laboratory": {
    effect: "note",
    meaning: "INSECURE LABORATORY: the machine's root of trust is a laboratory's, so whoever holds it can imitate the machine",
    advice: "use it for trials only",
  },
  "tee-kind-not-accepted": {
    effect: "refusal",
    meaning: "evidence of this kind of TEE is not among what the policy accepts",
    advice: "use a TEE that the policy names, or let the parties sign a successor that accepts this one",
  },
  "tee-measurement-differs": {
    effect: "refusal",
    meaning: "the TEE was started with, or has loaded since, something else than the policy accepts",
    advice: "start the exact image, program and settings that the policy names",
  },
  "tee-setting-differs": {
    effect: "refusal",
    meaning: "the TEE was started with a setting that the policy does not accept",
    advice: "start it with the settings that the policy names",
  },
  "tee-debug": {
    effect: "refusal",
    meaning: "the TEE was started so that the host can look inside: it protects nothing",
    advice: "start it without debugging and profiling",
  },
  "tee-migration-possible": {
    effect: "refusal",
    meaning: "the TEE can be moved to another machine, by somebody whom the policy does not name",
    advice: "start it without migration, migration agents and service TDs",
  },
  "tee-not-bound": {
    effect: "refusal",
    meaning: "nobody held the TEE's report data against this session, so it may be evidence of another one",
    advice: "verify the evidence with the session's report data",
  },
  "tee-collateral-missing": {
    effect: "refusal",
    meaning: "what the processor's maker says of the platform is not there, so its patch level or revocation is unknown",
    advice: "send the collateral with the evidence, or fetch it: perun collateral fetch",
  },
  "tee-tcb-not-accepted": {
    effect: "refusal",
    meaning: "the platform's firmware or microcode is not at a level that the policy accepts",
    advice: "update the platform, or let the parties sign a successor that accepts its level",
  },
  "tee-platform-not-listed": {
    effect: "refusal",
    meaning: "the processor is genuine, but not one that the policy lists",
    advice: "list it in a successor policy if this machine is meant",
  },
  "tee-log-missing": {
    effect: "refusal",
    meaning: "no event log explains the TEE's run-time measurements, which the policy asks for",
    advice: "send the CC event log with the quote",
  },
  "startup-locality-differs": {
    effect: "refusal",
    meaning: "the firmware was started from another locality than demanded",
    advice: "check how the machine starts its root of trust",
  },
  "clock-not-safe": {
    effect: "refusal",
    meaning: "the TPM's clock may have been set back by a loss of power",
    advice: "leave the machine on until the TPM has saved its clock, then try again",
  },
  "weak-hash": { effect: "refusal", meaning: "SHA-1 was used for a bank or a signature", advice: "configure the sha256 bank and a SHA-256 key" },
  "wrong-bank": {
    effect: "refusal",
    meaning: "the boot was judged in another hash bank than the reference",
    advice: "quote the bank that the reference states",
  },
  "register-not-quoted": {
    effect: "refusal",
    meaning: "the quote does not cover a register that the policy's references need",
    advice: "quote every register that the reference states, and register 10",
  },
  "secure-boot-differs": {
    effect: "refusal",
    meaning: "Secure Boot is in another state than the reference states",
    advice: "set Secure Boot as in the reference",
  },
  "boot-quirk-not-accepted": {
    effect: "refusal",
    meaning: "the boot log was accepted only with a firmware fault that the reference does not name",
    advice: "update the firmware, or name the fault in the reference",
  },
  "boot-quirk-accepted": {
    effect: "note",
    meaning: "the boot log was accepted with a firmware fault that the reference names",
    advice: "update the firmware when there is one without it",
  },
  "boot-register-unexpected": {
    effect: "refusal",
    meaning: "the boot extended a register of which the reference says nothing",
    advice: "boot the machine as the reference was built",
  },
  "boot-event-unexpected": {
    effect: "refusal",
    meaning: "something was measured at boot that is not in the reference",
    advice: "remove what was added to the boot",
  },
  "boot-event-missing": {
    effect: "refusal",
    meaning: "something that the reference states was not measured at boot",
    advice: "boot the machine as the reference was built",
  },
  "boot-event-differs": {
    effect: "refusal",
    meaning: "something other than the reference states was measured at this place of the boot",
    advice: "boot the exact kernel, initrd, firmware and settings of the reference",
  },
  "command-line-differs": {
    effect: "refusal",
    meaning: "the kernel's measured command lines are not exactly those of the reference",
    advice: "boot with the exact command line of the reference",
  },
  "ima-list-incomplete": {
    effect: "refusal",
    meaning: "entries at the start of the measurement list were never judged",
    advice: "send the list from its first entry",
  },
  "ima-boot-aggregate-missing": {
    effect: "refusal",
    meaning: "the measurement list is not tied to this boot by its first entry",
    advice: "send the list from its first entry",
  },
  "ima-wrong-register": { effect: "refusal", meaning: "an entry stands in another register than 10", advice: "remove pcr= from the IMA policy" },
  "ima-weak-extend": {
    effect: "refusal",
    meaning: "the kernel extended padded SHA-1 digests, which rest on SHA-1",
    advice: "use a kernel of version 5.8 or later",
  },
  "ima-weak-hash": { effect: "refusal", meaning: "a file was measured with a hash weaker than SHA-256", advice: "boot with ima_hash=sha256" },
  "ima-unknown-file": {
    effect: "refusal",
    meaning: "a file was run or read whose content is not in the reference",
    advice: "remove the file and reboot; if it is meant, build the reference with it and let the parties sign a successor",
  },
  "ima-unknown-buffer": {
    effect: "refusal",
    meaning: "the kernel measured data (a key, critical data, a kexec command line) that is not in the reference",
    advice: "remove what loaded it and reboot, or build the reference with it",
  },
  "ima-violation": {
    effect: "refusal",
    meaning: "a file was changed while it was measured, so nobody knows what was read",
    advice: "reboot; if programs write such files rightly, let the policy allow their path class",
  },
  "ima-policy-missing": {
    effect: "refusal",
    meaning: "the list does not begin with the load of the reference's IMA policy, so what was measured is unknown",
    advice: "load the IMA policy by path from the initrd, before anything else runs",
  },
  "ima-policy-unmeasured": {
    effect: "refusal",
    meaning: "the kernel was not bound to list the load of an IMA policy, so another may have been loaded",
    advice: "boot with ima_policy=tcb on a measured command line",
  },
  "ima-policy-weak": {
    effect: "refusal",
    meaning: "the reference's IMA policy leaves out of the list what must be in it",
    advice: "correct the policy in the image and build the reference again",
  },
  "ima-policy-replaceable": {
    effect: "refusal",
    meaning: "the kernel takes another IMA policy after the first, which nothing lists when it is written as text",
    advice: "use a kernel without CONFIG_IMA_WRITE_POLICY",
  },
  "ima-tail-not-certified": {
    effect: "refusal",
    meaning: "entries that had been logged but not yet certified are still not certified by the new quote",
    advice: "send a fresh quote with the whole new part of the list",
  },
  "piece-missing": {
    effect: "refusal",
    meaning: "the machine shows no evidence of a piece that the policy demands",
    advice: "run the job on a machine that has it, with an agent that shows it",
  },
  "piece-not-asked-for": {
    effect: "refusal",
    meaning: "the machine shows evidence that the policy has no demands on",
    advice: "show only what the policy asks for",
  },
  "boot-session-changed": {
    effect: "refusal",
    meaning: "the machine was reset, resumed or replaced since the last evidence; a lease does not outlive a boot",
    advice: "claim the job again",
  },
  "appliance-not-stated": {
    effect: "refusal",
    meaning: "the reference states no appliance facts, which level sealed demands",
    advice: "use the reference of an appliance image, or level administered",
  },
  "command-line-not-measured": {
    effect: "refusal",
    meaning: "no command line was measured, or one of which only a digest is known, so that none of the facts on it is proved",
    advice: "boot in a way that measures the command line",
  },
  "command-line-unreadable": {
    effect: "refusal",
    meaning: "the measured command line is not wholly what the kernel reads: it is cut off where it is too long or holds a line end",
    advice: "write the command line in one line of printable ASCII",
  },
  "unknown-boot-parameter": {
    effect: "refusal",
    meaning: "the command line holds a parameter, or a value of one, that is not known to leave the appliance sealed",
    advice: "boot with the appliance's own command line; what may stand there is listed in src/policy/appraise-command-line.ts",
  },
  "initrd-not-measured": {
    effect: "refusal",
    meaning: "the command line names an initial ram disk, but none was measured, so the first program is unknown",
    advice: "let the boot loader hand the ram disk to the kernel, which then measures it",
  },
  "verity-root-not-measured": {
    effect: "refusal",
    meaning: "the root hash of a verified disk does not stand, exactly once, in the parameter of the command line that the image's loader reads",
    advice: "boot the appliance image with its own command line",
  },
  "lockdown-not-confidentiality": {
    effect: "refusal",
    meaning: "the kernel is not locked down for confidentiality, so root can read its memory",
    advice: "boot with lockdown=confidentiality",
  },
  "module-signatures-not-enforced": {
    effect: "refusal",
    meaning: "the kernel would load unsigned modules",
    advice: "boot with module.sig_enforce=1",
  },
  "iommu-not-strict": {
    effect: "refusal",
    meaning: "devices are not kept strictly from memory that is not theirs",
    advice: "boot with intel_iommu=on amd_iommu=force_isolation iommu.passthrough=0 iommu.strict=1",
  },
  "login-possible": { effect: "refusal", meaning: "a person can log in", advice: "build the image without login, SSH and shells" },
  "tpm-open-to-others": {
    effect: "refusal",
    meaning: "other processes than the agent can have quotes made",
    advice: "give the TPM device to the agent's user only",
  },
  "ptrace-possible": { effect: "refusal", meaning: "processes can read each other's memory", advice: "set kernel.yama.ptrace_scope=3 in the image" },
  "swap-possible": { effect: "refusal", meaning: "memory can be written to swap", advice: "build the image without swap" },
  "core-dumps-possible": {
    effect: "refusal",
    meaning: "memory can be written to core dumps",
    advice: "set kernel.core_pattern and limits in the image",
  },
  "suspend-possible": {
    effect: "refusal",
    meaning: "the machine can be suspended with secrets in memory",
    advice: "build the image without suspend",
  },
  "kexec-possible": {
    effect: "refusal",
    meaning: "another kernel can be started without a measured boot",
    advice: "set kernel.kexec_load_disabled=1 in the image",
  },
  "programs-outside-root": {
    effect: "refusal",
    meaning: "programs can come from other than the verified root",
    advice: "mount everything writable noexec in the image",
  },
} as const satisfies Record<string, { readonly effect: "refusal" | "note"; readonly meaning: string; readonly advice: string }>

export type FindingCode = keyof typeof findingCodes

/** One thing that an appraisal found. Plain data: it goes into refusals, receipts and screens. */
export interface Finding {
  readonly code: FindingCode
  readonly effect: "refusal" | "note"
  /** What it is about: a file's name, a register and event, a key. Printable ASCII. */
  readonly subject: string
  readonly found: string
  readonly expected: string
  readonly advice: string
}

export function finding(code: FindingCode, subject: string, found: string, expected: string): Finding {
  return { code, effect: findingCodes[code].effect, subject, found, expected, advice: findingCodes[code].advice }
}

/** One line for a person. */
export function findingText({ code, subject, found, expected, advice }: Finding): string {
  const about = subject === "" ? "" : `${subject}: `
  return `${code}: ${about}${findingCodes[code].meaning}; found ${found}, expected ${expected}; ${advice}`
}

/**
 * Bytes from a machine as text that is safe on a terminal and in JSON: printable ASCII, a backslash doubled, everything else as \xNN. Different bytes
 * give different texts.
 */
export function printableBytes(bytes: Uint8Array): string {
  // Nearly every path is plain already, and a list has thousands.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1")
  if (plain.test(text)) return text
  return Array.from(bytes, (byte) => {
    if (byte === 0x5c) return "\\\\"
    return byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`
  }).join("")
}

/** Printable ASCII without the backslash. */
const plain = /^[\x20-\x5b\x5d-\x7e]*$/

/** The same for text from a machine. */
export function printable(text: string): string {
  return printableBytes(new TextEncoder().encode(text))
}
