import assert from "node:assert/strict"
import { test } from "node:test"
import { routes } from "../protocol/routes.ts"
import { makeAgent, makeParts, TestStudy } from "./study.testing.ts"

const parts = await makeParts()

test("a study from policy to released keys", async () => {
  const study = await TestStudy.create(parts)
  const { run, agent, grant } = await study.running()
  assert.equal(grant.run, run)
  assert.deepEqual(await study.openGrant(agent, grant), { records: parts.records.identity, trainer: parts.trainer.identity })
  const view = await study.call(routes.getRun, study.as(parts.clinic), { params: { run } })
  assert.deepEqual([view.state, view.host, view.laboratory], ["running", "host-1", true])
  assert.deepEqual(await study.renew(agent, grant.lease.id), { seconds: 60 })
  void makeAgent
})
