import { InvalidArgumentError, type Command } from "commander"
import { join } from "node:path"
import { createIdentity, loadIdentityCard, type IdentityCard } from "../../client/identity.ts"
import { identityFolder } from "../home.ts"
import type { Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  command
    .command("create")
    .argument("<name>", "what policies call you: lower-case letters, digits and hyphens")
    .description("make a new identity: an Ed25519 key that signs for you and an age recipient that results are sealed to")
    .option("--recipient <kind>", "hybrid (post-quantum, default) or x25519 (for age older than 1.3)", parseRecipientKind, "hybrid")
    .action(async (name: string, options: { recipient: "hybrid" | "x25519" }) => {
      const identity = await createIdentity(identityFolder(), { name, recipient: options.recipient })
      show(identity, output)
      output.line(`secrets lie in ${identityFolder()}, readable by you only; keep a copy in a safe place`, "dim")
    })
  command
    .command("show")
    .description("show the public part of your identity, as it stands in policies")
    .action(async () => show(await loadIdentityCard(identityFolder()), output))
}

function show(card: IdentityCard, output: Output): void {
  const { name, key, recipient } = card
  output.result({ ok: true, name, key, recipient }, () => {
    output.line(`name       ${name}`)
    output.line(`key        ${key}`)
    output.line(`recipient  ${recipient.length > 80 ? `${recipient.slice(0, 40)}… (${recipient.length} characters)` : recipient}`)
    output.line(`card       ${join(identityFolder(), "identity.json")} (all of it, to hand to the other parties)`)
  })
}

function parseRecipientKind(text: string): "hybrid" | "x25519" {
  if (text === "hybrid" || text === "x25519") return text
  throw new InvalidArgumentError("must be hybrid or x25519")
}
