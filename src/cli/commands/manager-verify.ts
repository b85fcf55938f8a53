import type { Command } from "commander"
import { readFileBounded } from "../../bytes/durable.ts"
import { evidenceKinds } from "../../evidence/kinds.ts"
import { hardwareOf, type TeeEvidence } from "../../evidence/tee/format.ts"
import { maxTeeEvidenceBytes } from "../../evidence/tee/hardware.ts"
import { parseVouchers, supplementedBy } from "../../evidence/tee/vouchers.ts"
import { timeWords } from "../../policy/manager-time.ts"
import { demandOperation } from "../../protocol/manager-attestation.ts"
import { verifyManagerByCertificate } from "../../protocol/manager-connection.ts"
import { createTlsIdentity } from "../../protocol/tls.ts"
import { insecureLaboratory, parseManagerUrl } from "../connect.ts"
import { UsageError } from "../exit.ts"
import type { Output } from "../output.ts"
import { loadPolicyFile } from "../policy-file.ts"

/** `perun manager verify`: the proof in the certificate of a manager's TLS handshake, for who wants to look before it sends anything. Pins nothing. */
export function registerVerify(command: Command, output: Output): void {
  command
    .command("verify")
    .argument("<url>", "address, e.g. https://manager.example:7443")
    .requiredOption("--policy <file>", "policy whose demands on its manager are held against the certificate")
    .option("--collateral <file>", "what vouches for its platform (perun collateral fetch --out); with it nothing at all is sent to the manager")
    .description("verify a manager by the evidence in its TLS certificate (RA-TLS), and over a fresh nonce too unless --collateral; pins nothing")
    .action(async (url: string, options: { policy: string; collateral?: string }) => {
      const { manager: requirement } = (await loadPolicyFile(options.policy)).policy
      if (!("accept" in requirement))
        throw new UsageError("the policy asks no proof of its manager: it names one by its key alone (insecureUnattested)")
      const supplement = options.collateral === undefined ? undefined : supplementFrom(await readFileBounded(options.collateral, maxTeeEvidenceBytes))
      const verified = await verifyManagerByCertificate(parseManagerUrl(url), requirement.accept, createTlsIdentity("perun client"), {
        now: new Date(),
        ...(supplement === undefined ? {} : { supplement }),
      })
      const { description, accepted, isFresh } = verified
      demandOperation(requirement, description)
      const { key, instance, tlsKey } = description
      const [notBefore, notAfter] = [verified.notBefore, verified.notAfter].map((time) => new Date(time).toISOString())
      const { kind: tee, alternative, insecureLaboratory: isLaboratory } = accepted
      output.result(
        { ok: true, url, key, instance, tlsKey, time: description.time, tee, notBefore, notAfter, isFresh, insecureLaboratory: isLaboratory },
        () => {
          output.line(
            `proof          ${evidenceKinds[tee].name} in the TLS certificate, over its keys and configuration; it meets demand ${alternative + 1}`,
            "good",
          )
          output.line(`key            ${key}`)
          output.line(`instance       ${instance}`)
          output.line(`TLS key        ${tlsKey}`)
          output.line(`time           ${timeWords(description.time)}`)
          output.line(`valid          ${notBefore} to ${notAfter}`)
          if (isFresh) output.line("fresh          it proved the same over a nonce of ours", "good")
          else output.line("not fresh      the certificate covers no nonce of ours: it was made at some time in its validity", "warn")
          if (isLaboratory) output.line(`${insecureLaboratory}: its TEE chains to a laboratory root, whose holder can imitate it`, "warn")
        },
      )
    })
}

function supplementFrom(file: Uint8Array): (evidence: TeeEvidence) => TeeEvidence {
  return (evidence) => supplementedBy(evidence, parseVouchers(hardwareOf(evidence).kind, file))
}
