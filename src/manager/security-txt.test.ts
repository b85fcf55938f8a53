import assert from "node:assert/strict"
import { test } from "node:test"
import { MalformedError } from "../bytes/error.ts"
import { parseSecurityContact, securityTxt } from "./security-txt.ts"
import { makeParts, TestStudy } from "./study.testing.ts"

test("securityTxt() names contact and end, as RFC 9116 has them", () => {
  const text = securityTxt("mailto:security@clinic.example", new Date("2026-11-27T00:00:00Z"))
  assert.equal(text, "Contact: mailto:security@clinic.example\nExpires: 2027-05-26T00:00:00.000Z\nPreferred-Languages: en\n")
})

test("parseSecurityContact() takes addresses and nothing that would be two lines", () => {
  for (const good of ["mailto:a@b.example", "https://b.example/security", "tel:+4930123"]) assert.equal(parseSecurityContact(good), good)
  for (const bad of [
    "",
    "a@b.example",
    "http://b.example",
    "mailto:",
    "mailto:a@b.example\nContact: mailto:e@v.il",
    "javascript:1",
    `tel:${"1".repeat(300)}`,
  ])
    assert.throws(() => parseSecurityContact(bad), MalformedError, bad)
})

test("a manager tells whom to write to, to anybody, where its operator said so", async () => {
  const study = await TestStudy.create(await makeParts())
  assert.equal((await study.fetch("GET", "/.well-known/security.txt", {})).status, 404)
  study.securityContact = "mailto:security@clinic.example"
  study.restart()
  const response = await study.fetch("GET", "/.well-known/security.txt", {})
  assert.deepEqual([response.status, response.headers.get("content-type")], [200, "text/plain; charset=utf-8"])
  assert.match(await response.text(), /^Contact: mailto:security@clinic\.example\nExpires: 20/)
})
