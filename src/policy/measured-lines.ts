import type { BootClaims } from "../evidence/eventlog/claims.ts"

/**
 * Why the measured command lines are not all known; undefined where they are. A line of which the log holds a digest only (the kernel's EFI stub writes no
 * text) may be the one that counts, whatever another line says, so a single one is enough.
 */
export function unreadLines({ commandLines, loadOptions }: Pick<BootClaims, "commandLines" | "loadOptions">): string | undefined {
  // Each of these digests that the reference explains has given one line.
  const explained = commandLines.filter(({ pcr }) => pcr === stubRegister).length
  if (loadOptions.length > explained) return `${loadOptions.length - explained} of ${loadOptions.length} as a digest only (${loadOptions.join(", ")})`
  return commandLines.length === 0 ? "none" : undefined
}

const stubRegister = 9
