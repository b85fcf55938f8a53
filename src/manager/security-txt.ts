import { MalformedError } from "../bytes/error.ts"

/** How long a copy of the file may be believed; RFC 9116, 2.5.5 recommends less than a year. */
const validMilliseconds = 180 * 86_400_000

/**
 * Whom to tell of a fault in this manager: what `/.well-known/security.txt` answers (RFC 9116).
 * `contact` is an address as `parseSecurityContact` takes it.
 */
export function securityTxt(contact: string, now: Date): string {
  return `Contact: ${contact}\nExpires: ${new Date(now.getTime() + validMilliseconds).toISOString()}\nPreferred-Languages: en\n`
}

/** `mailto:`, `https:` or `tel:` (RFC 9116, 2.5.3). @throws {MalformedError} */
export function parseSecurityContact(text: string): string {
  const url = URL.parse(text)
  if (url === null || !["mailto:", "https:", "tel:"].includes(url.protocol) || url.pathname === "" || /[^\x21-\x7e]/.test(text) || text.length > 256)
    throw new MalformedError("malformed", "a contact is mailto:ADDRESS, https://… or tel:+…")
  return text
}
