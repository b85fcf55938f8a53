import { z } from "zod"

/** UTC time to the second, `YYYY-MM-DDThh:mm:ssZ`; one text per time, and only times that exist. */
export const utcTime = z.string().refine(isUtcTime, "expected a UTC time like 2027-06-30T00:00:00Z")

/** Whether `time` has reached `expires`. A time that cannot be read counts as over. */
export function isOver(expires: string, time: Date): boolean {
  return !(time.getTime() < Date.parse(expires))
}

/** `2027-02-30T00:00:00Z` has the form of a time but is none: Date moves it to March, and the texts differ. */
function isUtcTime(text: string): boolean {
  const milliseconds = Date.parse(text)
  return !Number.isNaN(milliseconds) && new Date(milliseconds).toISOString().replace(".000Z", "Z") === text
}
