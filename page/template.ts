/** The page's markup around its style and its script, which stand in it as they are: a space more, and its own policy would not run them. */
export function pageOf(parts: { readonly policy: string; readonly style: string; readonly script: string }): string {
  const { policy, style, script } = parts
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Perun: run certificate</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>Run certificate</h1>
<p>What a model came from: which inputs, code, policy, machine and votes. This page judges a certificate here, in your browser, and sends nothing.</p>
<section class="inputs">
<label>Certificate <span class="hint">choose the file, or drop it anywhere</span><input type="file" id="file" accept=".json,application/json"></label>
<p id="name" class="hint"></p>
<label>Manager's key <span class="hint">of the manager whose word you trust, <code>ssh-ed25519 …</code>, one a line; from the parties, not from the certificate</span><textarea id="manager" rows="2" spellcheck="false"></textarea></label>
<label>Parties' keys <span class="hint">optional, <code>name=ssh-ed25519 …</code>, one a line: each must itself have signed the policy</span><textarea id="parties" rows="3" spellcheck="false"></textarea></label>
</section>
<section id="verdict" aria-live="polite"></section>
<noscript><p>This page needs scripts to check signatures; it holds all of them itself. Without: <code>perun certificate verify FILE</code>.</p></noscript>
</main>
<script type="module">${script}</script>
</body>
</html>
`
}
