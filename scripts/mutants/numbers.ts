/**
 * Adds to Stryker what it lacks: a mutator for the numbers of constants and tables, one up and one down. Bounds, registers and code points stand there.
 * Stryker takes no mutators from outside, so its own list is made longer (version pinned in package.json).
 */

interface Path {
  readonly node: { readonly type: string; readonly value?: unknown }
  readonly parent: { readonly type: string }
  readonly key: unknown
}

interface Mutator {
  readonly name: string
  mutate(path: Path): Iterable<{ readonly type: "NumericLiteral"; readonly value: number }>
}

const list = new URL("./node_modules/@stryker-mutator/instrumenter/dist/src/mutators/mutate.js", import.meta.url)
const { allMutators } = (await import(list.href)) as { readonly allMutators: Mutator[] }

allMutators.push({
  name: "NumericLiteral",
  *mutate({ node, parent, key }) {
    if (node.type !== "NumericLiteral" || typeof node.value !== "number") return
    const isDeclared = (parent.type === "VariableDeclarator" && key === "init") || (parent.type === "ObjectProperty" && key === "value")
    if (!isDeclared && parent.type !== "ArrayExpression") return
    yield { type: "NumericLiteral", value: node.value + 1 }
    if (node.value > 0) yield { type: "NumericLiteral", value: node.value - 1 }
  },
})

export const strykerPlugins: readonly never[] = []
