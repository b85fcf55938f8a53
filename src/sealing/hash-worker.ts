import { createHash } from "node:crypto"
import { parentPort } from "node:worker_threads"
import type { HashAnswer, HashRequest } from "./hash-thread.ts"

// The program of HashThread; only for `new Worker`.

let hash = createHash("sha256")

function answerTo(request: HashRequest): HashAnswer {
  if (request === "digest") {
    const hex = hash.digest("hex")
    hash = createHash("sha256")
    return `sha256:${hex}`
  }
  hash.update(request.bytes)
  return true
}

const port = parentPort
port?.on("message", (request: HashRequest) => port.postMessage(answerTo(request)))
