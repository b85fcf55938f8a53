/** Rows as lines of text, columns padded to their widest cell; the last column is not padded. */
export function tableText(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? "").length)))
  return all
    .map((row) =>
      header
        .map((_, column) => cell(row, column, widths))
        .join("  ")
        .trimEnd(),
    )
    .join("\n")
}

function cell(row: readonly string[], column: number, widths: readonly number[]): string {
  const text = row[column] ?? ""
  return column === widths.length - 1 ? text : text.padEnd(widths[column] ?? 0)
}
