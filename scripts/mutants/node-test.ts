/**
 * What stands for `node:test` while mutants are tried: tests are put on a list instead of being run, so that one process can run them again and again.
 * Only what our tests use is here; anything else fails when the test file is loaded.
 */

export interface RegisteredTest {
  readonly name: string
  /** True where the test itself says why it cannot run here. */
  readonly isSkipped: boolean
  readonly run: (context: TestContext) => unknown
}

export interface TestContext {
  skip(reason?: string): void
}

interface TestOptions {
  readonly skip?: boolean | string
  readonly timeout?: number
}

let registered: RegisteredTest[] = []

export function test(name: string, options: TestOptions | RegisteredTest["run"], run?: RegisteredTest["run"]): void {
  const body = typeof options === "function" ? options : run
  if (body === undefined) throw new TypeError(`${name}: a test without a body`)
  const { skip = false } = typeof options === "function" ? {} : options
  registered.push({ name, isSkipped: skip !== false, run: body })
}

/** What a file would clear away at its end stays: its tests are run again and again. */
export function after(_clear: () => unknown): void {}

/** The tests registered since the last call, in their order. */
export function takeTests(): RegisteredTest[] {
  const tests = registered
  registered = []
  return tests
}
