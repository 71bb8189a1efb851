import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { jobKind } from '#jobs/job-kind.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import type { Assembly } from '#node/site.ts'
import { runStoa } from '#test/support/command-line.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'

const kind = jobKind<null>('letter')

test(
  'stoa jobs lists, shows, retries and cancels, and says what it cannot do',
  { skip },
  async () => {
    await using db = await testDatabase()
    const queue = new JobQueue(null)
    await queue.add(db.database, kind, null)
    await queue.add(db.database, kind, null)
    await db.database.run(
      sql(`update stoa.job set state = 'parked', failure = '{"code":"E_X","message":"Gone."}'
      where id = 1`),
    )
    const openCluster: Assembly['openCluster'] = async () => ({
      database: db.database,
      ask: async () => [],
      [Symbol.asyncDispose]: async () => undefined,
    })
    const stoa = async (...argv: string[]) =>
      runStoa(['jobs', ...argv], { assembly: { openCluster } })
    const listed = await stoa('list', '--state', 'parked')
    assert.equal(listed.status, 0)
    assert.match(listed.stdout, /^ID .*\n1 +letter +parked .*Gone\. \(E_X\)\n$/)
    assert.match((await stoa('show', '1')).stdout, /^state: parked$/m)
    const retried = await stoa('retry', '1', '--json')
    assert.equal((JSON.parse(retried.stdout) as { state: string }).state, 'waiting')
    assert.match((await stoa('cancel', '2')).stdout, /^state: cancelled$/m)
    const again = await stoa('retry', '2')
    assert.equal(again.status, 1)
    assert.match(again.stderr, /cannot be retried.*E_JOB_STATE/)
    assert.match((await stoa('show', '9')).stderr, /E_JOB_NOT_FOUND/)
    assert.equal((await stoa('list', '--state', 'sleeping')).status, 2)
    assert.equal((await stoa('list', '--limit', '0')).status, 2)
  },
)
