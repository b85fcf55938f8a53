import { join } from "node:path"

/**
 * A manager's folder: `manager.json` (configuration), `vault.json` (where the vault key comes from, mode 0600), `manager.db` (store, sealed rows), `blobs/`,
 * `members` (keys that may propose policies), `collateral/` (what vouches for the processors of machines; may be missing).
 */
const names = {
  configuration: "manager.json",
  vault: "vault.json",
  database: "manager.db",
  blobs: "blobs",
  members: "members",
  collateral: "collateral",
} as const

/** Path of a part of a manager's folder. */
export function folderPart(folder: string, part: keyof typeof names): string {
  return join(folder, names[part])
}

/** Where a manager looks for what vouches for the processors of machines that send only their quotes. */
export function managerCollateralFolder(folder: string): string {
  return folderPart(folder, "collateral")
}

/** The members file of a manager's folder. */
export function membersPath(folder: string): string {
  return folderPart(folder, "members")
}
