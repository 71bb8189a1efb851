import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { jobKind } from '#jobs/job-kind.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'

const kind = jobKind<{ readonly secret: string }>('test-letter')
const park = sql(`
  update stoa.job set state = 'parked', failures = 10, attempt = 10, ended_at = now(),
    failure = '{"code":"E_INTERNAL","message":"It failed."}' where id = $1`)

test(
  'jobs are listed page by page, shown without their payload, retried and cancelled, audited',
  { skip },
  async () => {
    await using site = await testSite()
    const queue = new JobQueue(null)
    for (let at = 0; at < 5; at += 1)
      await queue.add(site.database, kind, { secret: 'the payload' })
    const seen: string[] = []
    let after: string | null = null
    do {
      const from: string = after === null ? '' : `&after=${after}`
      const { json } = await site.get(`/api/jobs?kind=test-letter&limit=2${from}`)
      seen.push(...json.data.map(({ id }: { id: string }) => id))
      ;({ after } = json.meta)
    } while (after !== null)
    assert.equal(new Set(seen).size, 5)
    assert.deepEqual(
      seen,
      seen.toSorted((one, other) => Number(other) - Number(one)),
    )

    const [id = '', other = ''] = seen
    await site.database.run(park, [id])
    const parked = await site.get('/api/jobs?state=parked')
    assert.deepEqual(
      parked.json.data.map((job: { id: string }) => job.id),
      [id],
    )
    assert.equal(parked.json.data[0].failure.message, 'It failed.')
    assert.doesNotMatch(parked.text, /the payload/)
    const cluster = await site.get('/api/cluster')
    assert.deepEqual(cluster.json.data.jobs, { waiting: 4, running: 0, parked: 1 })
    assert.match(cluster.json.data.degraded.join(), /a job is parked.*stoa jobs/)
    const metrics = await site.get('/metrics')
    assert.match(metrics.text, /stoa_jobs\{kind="test-letter",state="parked"\} 1/)

    const retried = await site.request('POST', `/api/jobs/${id}/retry`)
    assert.equal(retried.status, 200)
    assert.deepEqual([retried.json.data.state, retried.json.data.failures], ['waiting', 0])
    const cancelled = await site.request('POST', `/api/jobs/${other}/cancel`)
    assert.equal(cancelled.json.data.state, 'cancelled')
    const again = await site.request('POST', `/api/jobs/${other}/cancel`)
    assert.deepEqual([again.status, again.json.code], [409, 'E_JOB_STATE'])
    const audit = await site.get('/api/audit')
    assert.deepEqual(
      audit.json.data
        .map(({ action, subject }: { action: string; subject: string }) => [action, subject])
        .filter(([action]: [string]) => action.startsWith('job.')),
      [
        ['job.cancel', other],
        ['job.retry', id],
      ],
    )
  },
)
