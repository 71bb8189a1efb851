import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { countJobs } from '#jobs/job-admin.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { jobHandlers } from '#node/jobs.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { jobNode } from '#test/support/job-node.ts'
import { until } from '#test/support/jobs.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

/** How late an action may be, on a machine that is busy with tests. */
const lateMsMax = 250
const actions = 40

/** The handlers of a node on this site. */
function handlersOf({ database, content, access, media }: Site): ReturnType<typeof jobHandlers> {
  return jobHandlers({
    database,
    content,
    access,
    media,
    logger: silentLogger,
    forgetKeys: async () => 0,
    committed: () => undefined,
  })
}

type Finished = { readonly late: number; readonly state: string; readonly title: string }
const finished = sql<Finished>(`
  select state, extract(epoch from finished_at - due_at)::float8 * 1000 as late
  from stoa.schedule order by due_at`)
const note = { name: 'note', label: 'Note', fields: [{ name: 'title', kind: 'text' }] } as const

async function schedulePublish(site: Site, atMs: number): Promise<string> {
  const call = { db: site.database, authority: site.access.systemIdentity.authority }
  const entry = await site.content.entries.create(call, 'note', {
    locale: null,
    fields: { title: String(atMs) },
    publish: false,
  })
  await site.content.schedule.add(call, 'note', entry.id, {
    locale: null,
    action: 'publish',
    version: null,
    dueAt: new Date(atMs).toISOString(),
  })
  return entry.id
}

test(
  'scheduled actions are carried out when they are due: each once, none early, on any node',
  { skip },
  async (t) => {
    await using site = await testSite()
    await site.content.types.save(site.database, note, { expected: null, allowLoss: false })
    await using one = await jobNode(site.database, handlersOf(site))
    await using two = await jobNode(site.database, handlersOf(site), { name: 'two' })
    const startMs = systemClock.nowMs() + 3_000
    for (let at = 0; at < actions; at += 1) await schedulePublish(site, startMs + at * 61)
    await sleep(startMs + actions * 61 - Date.now())
    const rowsOf = async (): Promise<Finished[]> => site.database.run(finished)
    await until(async () => (await rowsOf()).every(({ state }) => state === 'done'), 'all are done')
    const late = (await rowsOf()).map((row) => row.late).sort((a, b) => a - b)
    t.diagnostic(
      `late by ${Math.round(late[actions / 2]!)} ms, at most ${Math.round(late.at(-1)!)} ms`,
    )
    // Finished is stamped by the clock of the node: the same machine's here.
    assert.ok(late[0]! > -20, 'none early')
    assert.ok(late[actions / 2]! < lateMsMax, late.join(' '))
    const published = sql<{ count: number }>(
      `select count(*)::int as count from stoa.change where collection = 'version'`,
    )
    assert.ok((await site.database.run(published))[0]!.count >= actions)
    const left = (await countJobs(site.database)).filter(({ kind }) => kind === 'scheduled-action')
    assert.deepEqual(left, [])
    assert.ok(one.nodes.mode === 'live' && two.nodes.mode === 'live')
  },
)

test(
  'what is due at one moment on one entry happens in the order of its times, after an outage too',
  { skip },
  async () => {
    await using site = await testSite()
    await site.content.types.save(site.database, note, { expected: null, allowLoss: false })
    const call = { db: site.database, authority: site.access.systemIdentity.authority }
    const ids: string[] = []
    for (let at = 0; at < 10; at += 1) {
      const id = await schedulePublish(site, Date.now() + 1_000_000)
      ids.push(id)
      await site.content.schedule.add(call, 'note', id, {
        locale: null,
        action: 'unpublish',
        version: null,
        dueAt: new Date(Date.now() + 2_000_000).toISOString(),
      })
    }
    // All were due while no node ran, the later ones a second after the earlier.
    await site.database.run(
      sql(`update stoa.schedule set due_at = clock_timestamp() - interval '3 s'
        + case when action = 'publish' then interval '0' else interval '1 s' end`),
    )
    await using one = await jobNode(site.database, handlersOf(site))
    await using two = await jobNode(site.database, handlersOf(site), { name: 'two' })
    const rowsOf = async (): Promise<Finished[]> => site.database.run(finished)
    await until(async () => (await rowsOf()).every(({ state }) => state === 'done'), 'all are done')
    const shown = await site.database.run(
      sql<{ count: number }>(`select count(*)::int as count from stoa.version where is_published`),
    )
    assert.deepEqual(shown, [{ count: 0 }], 'each was published first and then unpublished')
    assert.ok(one.nodes.mode === 'live' && two.nodes.mode === 'live' && ids.length === 10)
  },
)
