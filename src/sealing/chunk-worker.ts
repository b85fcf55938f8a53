import { parentPort } from "node:worker_threads"
import { answerOf } from "./chunk-answer.ts"
import type { ChunkAnswer } from "./chunk-answer.ts"
import { runChunkTask } from "./chunk-task.ts"
import type { ChunkTask } from "./chunk-task.ts"

// The program of ChunkPool's threads; only for `new Worker`.

function answerTo(task: ChunkTask): ChunkAnswer {
  try {
    runChunkTask(task)
    return { is: "done" }
  } catch (error) {
    return answerOf(error)
  }
}

const port = parentPort
port?.on("message", (task: ChunkTask) => port.postMessage(answerTo(task)))
port?.postMessage({ is: "ready" } satisfies ChunkAnswer)
