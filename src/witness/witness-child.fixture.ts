import { WitnessState } from "./state.ts"
import { serveWitness } from "./server.ts"

/** A witness in a process of its own, which a test kills; its folder stands in the words. */
const state = await WitnessState.open(process.argv[2] ?? "")
const served = await serveWitness(state, { host: "127.0.0.1", port: 0 }, () => undefined)
process.stdout.write(`${served.url}\n`)
