/** Line and column, from 1, of the field at a path; of its nearest parent where it is not there; zeros where there is no text. */
export type Locate = (path: readonly PropertyKey[]) => { readonly line: number; readonly column: number }

/** For documents that did not come as text. */
export function nowhere(): { readonly line: number; readonly column: number } {
  return { line: 0, column: 0 }
}
