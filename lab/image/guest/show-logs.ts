// Stands in for the agent in the laboratory's smoke test: shows on the console what the machine has measured, for the test to hold against the image's
// reference values. Part of no image but the smoke test's own.
import { readFileSync } from "node:fs"

show("events", readFileSync("/sys/kernel/security/tpm0/binary_bios_measurements"))
show("ima", readFileSync("/sys/kernel/security/ima/binary_runtime_measurements"))
const pcrs = Array.from({ length: 11 }, (_, index) => readFileSync(`/sys/class/tpm/tpm0/pcr-sha256/${index}`, "utf8").trim().toLowerCase())
show("pcrs", Buffer.from(JSON.stringify(pcrs)))
show(
  "facts",
  Buffer.from(
    JSON.stringify({
      lockdown: text("/sys/kernel/security/lockdown"),
      ptrace: text("/proc/sys/kernel/yama/ptrace_scope"),
      modules: text("/proc/sys/kernel/modules_disabled"),
      swaps: text("/proc/swaps"),
    }),
  ),
)

function text(path: string): string {
  return readFileSync(path, "utf8").trim()
}

function show(name: string, bytes: Uint8Array): void {
  console.log(`perun-probe: begin ${name}`)
  console.log(Buffer.from(bytes).toString("base64").replaceAll(/.{76}/g, "$&\n"))
  console.log(`perun-probe: end ${name}`)
}
