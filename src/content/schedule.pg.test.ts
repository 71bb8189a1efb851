import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import { createContent } from '#content/create-content.ts'
import { sql } from '#database/database.ts'
import { silentLogger } from '#lib/logger.ts'
import type { StoaError } from '#lib/stoa-error.ts'
import { hasEveryRight, listing, runDue, testContent } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

const page: ContentType = {
  name: 'page',
  label: 'Page',
  fields: [
    { name: 'title', kind: 'text', required: true },
    { name: 'next', kind: 'reference' },
  ],
}

const types = [page]

const input = (fields: Record<string, unknown>, publish = false) => ({
  locale: null,
  fields,
  publish,
})

/** As if time had passed for the database. */
const makeDue = sql(
  `update stoa.schedule set due_at = now() - interval '1 s' where state = 'waiting'`,
)

const hourMs = 3_600_000

test(
  'a schedule fires once, when it is due by the clock of the database, and keeps its failure',
  { skip },
  async () => {
    await using t = await testContent({ types, connectionsMax: 20 })
    const { entries, schedule } = t.content
    const made = await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        entries.create(t.admin, 'page', input(i === 0 ? {} : { title: `${i}` })),
      ),
    )
    const inHours = (hours: number): string => new Date(Date.now() + hours * hourMs).toISOString()
    const at = {
      locale: null,
      action: 'publish' as const,
      version: null,
      dueAt: inHours(1).replace('Z', '+00:00'),
    }
    for (const one of made) await schedule.add(t.admin, 'page', one.id, at)
    const cancelled = await schedule.add(t.admin, 'page', made[1]!.id, {
      ...at,
      action: 'unpublish',
      dueAt: inHours(2),
    })
    await schedule.cancel(t.admin, 'page', made[1]!.id, cancelled.id)
    await assert.rejects(schedule.cancel(t.admin, 'page', made[1]!.id, cancelled.id), {
      code: 'E_SCHEDULE_INVALID',
    })
    await assert.rejects(
      schedule.add(t.admin, 'page', made[1]!.id, { ...at, dueAt: inHours(-1) }),
      { code: 'E_SCHEDULE_INVALID' },
    )
    await assert.rejects(schedule.add(t.admin, 'page', made[1]!.id, { ...at, dueAt: 'tomorrow' }), {
      code: 'E_SCHEDULE_INVALID',
    })
    const fast = { nowMs: () => Date.now() + 24 * hourMs, monotonicMs: () => performance.now() }
    const nodes = Array.from({ length: 4 }, () =>
      createContent({ clock: fast, logger: silentLogger }),
    )
    for (const node of [t.content, ...nodes])
      assert.equal(
        await runDue(node, t.database, hasEveryRight),
        0,
        'a clock that is a day ahead publishes nothing',
      )
    await t.database.run(makeDue)
    const counts = await Promise.all(nodes.map((node) => runDue(node, t.database, hasEveryRight)))
    assert.equal(
      counts.reduce((sum, count) => sum + count, 0),
      10,
    )
    assert.deepEqual(
      (await schedule.list(t.admin, 'page', made[0]!.id)).map((one) => one.state),
      ['failed'],
    )
    assert.deepEqual(
      (await schedule.list(t.admin, 'page', made[1]!.id)).map((one) => one.state),
      ['cancelled', 'done'],
    )
    assert.equal((await entries.list(t.admin, listing('page'))).data.length, 9)
  },
)

test(
  'a scheduled action whose entry is locked, or that meets a defect, goes on waiting',
  { skip },
  async () => {
    await using t = await testContent({ types, connectionsMax: 20 })
    const { entries, schedule } = t.content
    const [locked, broken] = await Promise.all(
      ['locked', 'broken'].map((title) => entries.create(t.admin, 'page', input({ title }))),
    )
    const at = {
      locale: null,
      action: 'publish' as const,
      version: null,
      dueAt: new Date(Date.now() + hourMs).toISOString(),
    }
    const ids: string[] = []
    for (const one of [locked!, broken!])
      ids.push((await schedule.add(t.admin, 'page', one.id, at)).id)
    await t.database.run(makeDue)
    const defect = `create function break() returns trigger language plpgsql as $$ begin
      if new.entry_id = '${broken!.id}' then raise exception 'a defect'; end if; return new; end $$`
    for (const text of [
      defect,
      'create trigger break before update on stoa.version for each row execute function break()',
    ])
      await t.database.run({ text, prepare: 'never' })
    const carryOut = async (id: string): Promise<string> =>
      schedule.carryOut(t.database, id, hasEveryRight)
    await t.database.transaction(async (tx) => {
      await tx.run(sql(`select id from stoa.entry where id = $1 for update`), [locked!.id])
      await assert.rejects(carryOut(ids[0]!), { code: 'E_DATABASE_TIMEOUT' })
    })
    await assert.rejects(carryOut(ids[1]!), /a defect/)
    await t.database.run({ text: 'drop trigger break on stoa.version', prepare: 'never' })
    for (const id of ids) assert.equal(await carryOut(id), 'done')
    for (const id of ids) assert.equal(await carryOut(id), 'nothing')
  },
)

test(
  'an action waits for an earlier one on its entry, not for those of others',
  { skip },
  async () => {
    await using t = await testContent({ types })
    const { entries, schedule } = t.content
    const [one, other] = await Promise.all(
      ['one', 'other'].map((title) => entries.create(t.admin, 'page', input({ title }))),
    )
    const add = async (id: string, action: 'publish' | 'unpublish', hours: number) =>
      schedule.add(t.admin, 'page', id, {
        locale: null,
        action,
        version: null,
        dueAt: new Date(Date.now() + hours * hourMs).toISOString(),
      })
    const later = await add(one!.id, 'unpublish', 2)
    const earlier = await add(one!.id, 'publish', 1)
    await add(other!.id, 'publish', 1)
    const isBehind = (id: string): Promise<boolean> => schedule.isBehind(t.database, id)
    assert.deepEqual([await isBehind(earlier.id), await isBehind(later.id)], [false, true])
    await t.database.run(
      sql(`update stoa.schedule set due_at = now() - interval '1 s' where id = $1`),
      [earlier.id],
    )
    assert.equal(await schedule.carryOut(t.database, earlier.id, hasEveryRight), 'done')
    assert.equal(await isBehind(later.id), false)
  },
)

test(
  'a scheduled action that met types changing all the time goes on waiting',
  { skip },
  async () => {
    await using t = await testContent({ types, connectionsMax: 20 })
    const { entries, schedule } = t.content
    const made = await entries.create(t.admin, 'page', input({ title: 'A' }))
    const { id } = await schedule.add(t.admin, 'page', made.id, {
      locale: null,
      action: 'publish',
      version: null,
      dueAt: new Date(Date.now() + hourMs).toISOString(),
    })
    await t.database.run(makeDue)
    const ending = new AbortController()
    const change = async (): Promise<void> => {
      while (!ending.signal.aborted)
        await t.database.run(sql(`update stoa.model set revision = nextval('stoa.model_revision')`))
    }
    const changes = [change(), change(), change()]
    await schedule
      .carryOut(t.database, id, hasEveryRight)
      .catch((error: unknown) => assert.equal((error as StoaError).code, 'E_CONTENT_BUSY'))
    ending.abort()
    await Promise.all(changes)
    await schedule.carryOut(t.database, id, hasEveryRight)
    assert.deepEqual(
      (await schedule.list(t.admin, 'page', made.id)).map((one) => one.state),
      ['done'],
    )
  },
)

test(
  'publishing, a release and a schedule name a required value that is missing, at any depth',
  { skip },
  async () => {
    const strict: ContentType = {
      ...page,
      fields: [
        { name: 'title', kind: 'text' },
        { name: 'slug', kind: 'slug', required: true },
        {
          name: 'seo',
          kind: 'group',
          required: true,
          fields: [{ name: 'summary', kind: 'text', required: true }],
        },
      ],
    }
    await using t = await testContent({ types: [strict] })
    const { entries, releases, schedule } = t.content
    const { id } = await entries.create(t.admin, 'page', input({ title: 'A', seo: {} }))
    const named = (error: unknown): boolean => {
      const text = JSON.stringify((error as StoaError).facts)
      assert.match(text, /\/slug/)
      assert.match(text, /\/seo\/summary/)
      return true
    }
    await assert.rejects(
      entries.publish(t.admin, { type: 'page', id }, { locales: null, version: null }, null),
      named,
    )
    const release = await releases.create(t.admin, 'R')
    const action = { locale: 'en', action: 'publish', version: null } as const
    await releases.put(t.admin, release.id, [{ entryId: id, ...action }])
    await assert.rejects(releases.publish(t.admin, release.id), named)
    const dueAt = new Date(Date.now() + hourMs).toISOString()
    await schedule.add(t.admin, 'page', id, { ...action, dueAt })
    await t.database.run(makeDue)
    await runDue(t.content, t.database, hasEveryRight)
    const [failed] = await schedule.list(t.admin, 'page', id)
    assert.equal(failed?.state, 'failed')
    assert.match(failed?.failure?.message ?? '', /\/slug|\/seo\/summary/)
    assert.equal((await entries.list(t.admin, listing('page'))).data.length, 0)
  },
)
