import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { backgroundDuties, backgroundWork } from '#node/background-work.ts'
import type { BackgroundParts } from '#node/background-work.ts'
import { Nodes } from '#nodes/nodes.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'

/** How late an action may be that was scheduled in time, on a machine that is busy with tests. */
const lateMsMax = 250

test(
  'scheduled actions are carried out when they are due, not at the next second',
  { skip },
  async (t) => {
    await using site = await testSite()
    const { database } = site
    const nodes = new Nodes({
      database,
      info: { name: 'one', address: null, version: '1', fingerprint: 'f' },
      clock: systemClock,
      logger: silentLogger,
      duties: backgroundDuties,
    })
    const { content, access, media } = site
    const parts: BackgroundParts = { database, content, access, media, logger: silentLogger }
    const tickers = backgroundWork(parts, {
      nodes,
      committed: () => undefined,
    })
    for (const ticker of tickers) ticker.run()
    try {
      while (!nodes.leads('schedule')) await sleep(10)
      const call = { db: database, authority: site.access.systemIdentity.authority }
      await site.content.types.save(
        database,
        { name: 'note', label: 'Note', fields: [{ name: 'title', kind: 'text' }] },
        { expected: null, allowLoss: false },
      )
      const due = Array.from({ length: 8 }, (_, index) => Date.now() + 2_000 + index * 313)
      for (const atMs of due) {
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
      }
      await sleep(due.at(-1)! - Date.now() + 1_500)
      const rows = await database.run(
        sql<{ late: number; state: string }>(
          `select state, extract(epoch from finished_at - due_at)::float8 * 1000 as late from ` +
            `stoa.schedule order by due_at`,
        ),
      )
      const late = rows.map((row) => Math.round(row.late))
      t.diagnostic(`late by ${late.join(', ')} ms`)
      assert.deepEqual(new Set(rows.map(({ state }) => state)), new Set(['done']))
      assert.ok(late.toSorted((one, other) => one - other)[4]! < lateMsMax, late.join(' '))
    } finally {
      await Promise.all(tickers.map((ticker) => ticker.stop()))
      await nodes.leave()
    }
  },
)
