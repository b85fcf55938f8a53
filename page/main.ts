import { judge, type Verdict } from "./judge.ts"

/** The page itself: a file, the keys that its reader knows, and what the file proves. Everything happens here; nothing is sent anywhere, and the page's policy would not let it. */

const file = element("file", HTMLInputElement)
const manager = element("manager", HTMLTextAreaElement)
const parties = element("parties", HTMLTextAreaElement)
const verdict = element("verdict", HTMLElement)
let text: string | undefined

file.addEventListener("change", () => void read(file.files?.[0]))
for (const input of [manager, parties]) input.addEventListener("input", show)
document.addEventListener("dragover", (event) => event.preventDefault())
document.addEventListener("drop", (event) => {
  event.preventDefault()
  void read(event.dataTransfer?.files[0])
})

async function read(given: File | undefined): Promise<void> {
  if (given === undefined) return
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await given.arrayBuffer())
    element("name", HTMLElement).textContent = given.name
    show()
  } catch {
    render({ ok: false, code: "malformed", message: `${given.name} cannot be read as text` })
  }
}

function show(): void {
  if (text !== undefined) render(judge(text, manager.value, parties.value))
}

function render(found: Verdict): void {
  verdict.className = found.ok ? (found.laboratory ? "laboratory" : "good") : "bad"
  if (!found.ok) return verdict.replaceChildren(line("h2", "Refused"), line("p", found.message), line("p", found.code, "code"))
  const table = document.createElement("table")
  table.createTHead().append(...["what", "", "by a signature of"].map((name) => line("th", name)))
  for (const { what, text: said, by } of found.lines) {
    const row = table.insertRow()
    if (what === "WITHDRAWN") row.className = "bad"
    row.append(line("th", what), line("td", said), line("td", by, "by"))
  }
  const open = document.createElement("ul")
  open.append(...found.notProved.map((one) => line("li", one)))
  verdict.replaceChildren(
    line("h2", found.laboratory ? "Proved, of a machine of a laboratory: INSECURE LABORATORY" : "Proved"),
    table,
    line("h2", "Not proved"),
    open,
  )
}

/** Text only: nothing of a file becomes markup. */
function line(tag: string, content: string, className = ""): HTMLElement {
  const node = document.createElement(tag)
  node.textContent = content
  node.className = className
  return node
}

function element<T extends HTMLElement>(id: string, kind: abstract new () => T): T {
  const found = document.getElementById(id)
  if (!(found instanceof kind)) throw new TypeError(`the page has no ${id}`)
  return found
}
