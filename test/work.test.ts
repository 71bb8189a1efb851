import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'
import { startNode } from '#test/support/node.ts'

const upkeep = sql<{ attempt: number }>(
  `select attempt from stoa.job where kind = 'collect-blobs' order by attempt desc limit 1`,
)
const deadlineMs = 30_000

test(
  'a node for the web runs no jobs, and one for jobs is not ready for the web',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    const environment = { STOA_DATABASE_URL: db.url, STOA_STARTER: 'false' }
    await using web = await startNode({
      environment: { ...environment, STOA_NODE: 'web', STOA_WORK: 'web' },
    })
    assert.equal((await fetch(`${web.origin}/healthz/ready`)).status, 200)
    assert.deepEqual(await db.database.run(upkeep), [])
    await using jobs = await startNode({
      dataDir: web.dataDir,
      environment: { ...environment, STOA_NODE: 'jobs', STOA_WORK: 'jobs' },
    })
    const ready = await fetch(`${jobs.origin}/healthz/ready`)
    assert.equal(ready.status, 503)
    assert.match(await ready.text(), /only runs jobs/)
    const infos = await db.database.run(
      sql<{ fingerprint: string }>(
        `select distinct info->>'fingerprint' as fingerprint from stoa.node`,
      ),
    )
    assert.equal(infos.length, 1, 'the work of a node is its own, and no difference to warn about')
    const deadline = Date.now() + deadlineMs
    while (((await db.database.run(upkeep))[0]?.attempt ?? 0) < 1) {
      assert.ok(Date.now() < deadline, 'the job runs')
      await sleep(50)
    }
  },
)
