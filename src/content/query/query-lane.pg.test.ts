import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import { inOneSnapshot } from '#content/entries/snapshot.ts'
import { isCostly } from '#content/query/query-cost.ts'
import { QueryLane } from '#content/query/query-lane.ts'
import type { Filter, ListQuery, Test } from '#content/query/query.ts'
import { sql } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import { systemClock } from '#lib/clock.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { listing, testContent } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

const note: ContentType = {
  name: 'note',
  label: 'Note',
  fields: [
    { name: 'title', kind: 'text', filterable: true },
    { name: 'rank', kind: 'number', filterable: true },
  ],
  indexes: [['title', '-rank']],
}
const compare = (test: Test, field = 'title'): Filter => ({ op: 'compare', field, test })
const a = compare({ is: 'eq', value: 'a' })
const newest = [{ field: 'publishedAt', descending: true }]
const byRank = [{ field: 'rank', descending: true }]

test('a query is costly where no index serves its filter, its order or its count', () => {
  const cases: [what: string, costly: boolean, query: Partial<ListQuery>][] = [
    ['the newest', false, { sort: newest }],
    ['of one value', false, { filter: a, sort: newest }],
    ['a range and a beginning', false, { filter: { op: 'and', filters: [a, a] }, sort: newest }],
    ['all by one field', false, { sort: byRank }],
    ['one value by a declared index', false, { filter: a, sort: byRank }],
    ['a count', true, { filter: a, count: true }],
    ['a text search', true, { filter: compare({ is: 'contains', value: 'a' }) }],
    ['an alternative', true, { filter: { op: 'or', filters: [a, a] } }],
    ['an opposite', true, { filter: { op: 'not', filter: a } }],
    ['everything but', true, { filter: compare({ is: 'ne', value: 'a' }) }],
    ['a status', true, { filter: compare({ is: 'eq', value: 'draft' }, 'status') }],
    [
      'another order',
      true,
      { filter: compare({ is: 'gt', value: 1 }, 'rank'), sort: [...byRank, ...newest] },
    ],
  ]
  for (const [what, costly, query] of cases)
    assert.equal(isCostly(listing('note', query), note), costly, what)
})

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'fine'
  } catch (error) {
    if (error instanceof StoaError) return error.code
    throw error
  }
}

test('a caller has at most half of the places, and what they ask beyond is refused', async () => {
  const lane = new QueryLane(systemClock)
  const ended = Promise.withResolvers<void>()
  let [running, most] = [0, 0]
  const work = async (): Promise<void> => {
    running += 1
    most = Math.max(most, running)
    await ended.promise
    running -= 1
  }
  const asked = Array.from({ length: 40 }, () => codeOf(lane.run('mallory', work)))
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(most, 1)
  const other = lane.run('alice', () => Promise.resolve('at once'))
  assert.equal(await other, 'at once', 'another caller does not wait')
  ended.resolve()
  const codes = await Promise.all(asked)
  assert.equal(codes.filter((code) => code === 'E_QUERY_BUSY').length, 7)
})

test('a caller who has used their time is refused until it comes back', async () => {
  let nowMs = 0
  const clock: Clock = { nowMs: () => nowMs, monotonicMs: () => nowMs }
  const lane = new QueryLane(clock)
  const slow = (ms: number): Promise<string> =>
    codeOf(
      lane.run('mallory', async () => {
        nowMs += ms
      }),
    )
  for (let at = 0; at < 1_000; at += 1) assert.equal(await slow(50), 'fine', 'not charged')
  assert.equal(await slow(6_000), 'fine')
  assert.equal(await slow(6_000), 'fine')
  await assert.rejects(
    lane.run('mallory', async () => {}),
    (error: StoaError) => error.code === 'E_QUERY_BUSY' && Number(error.facts['retryAfterS']) >= 1,
  )
  assert.equal(await codeOf(lane.run('alice', async () => {})), 'fine')
  nowMs += 10_000
  assert.equal(await slow(0), 'fine')
})

test(
  'the server ends a costly query that takes too long, and says what to do',
  { skip },
  async () => {
    await using site = await testContent({ types: [note] })
    const { content, database } = site
    const lane = new QueryLane(systemClock)
    const sleep = sql<object>(`select pg_sleep(20)`)
    const started = performance.now()
    const options = { statementMsMax: 100 }
    const slow = lane.run('mallory', () => inOneSnapshot(database, (tx) => tx.run(sleep), options))
    assert.equal(await codeOf(slow), 'E_QUERY_TOO_SLOW')
    assert.ok(performance.now() - started < 10_000)
    const after = await database.run(
      sql<{ ms: string }>(`select current_setting('statement_timeout') as ms`),
    )
    assert.notEqual(after[0]?.ms, '100ms', 'the limit ends with the transaction')
    const call = { ...site.admin, caller: 'mallory' }
    const filter = compare({ is: 'contains', value: 'x' })
    assert.equal(
      (await content.entries.list(call, listing('note', { filter, count: true }))).count,
      0,
    )
    const many: Filter = { op: 'or', filters: Array.from({ length: 9 }, () => filter) }
    assert.equal(
      await codeOf(content.entries.list(call, listing('note', { filter: many }))),
      'E_QUERY_LIMIT',
    )
  },
)

test(
  'one caller’s costly queries refuse that caller, and not what others ask',
  { skip, timeout: 60_000 },
  async () => {
    await using site = await testContent({ types: [note], connectionsMax: 8 })
    const { content, admin } = site
    await content.entries.create(admin, 'note', {
      locale: null,
      fields: { title: 'a' },
      publish: true,
    })
    const filter = compare({ is: 'contains', value: 'a' })
    const costly = listing('note', { filter, count: true })
    const mallory = { ...admin, caller: 'mallory' }
    const alice = { ...admin, caller: 'alice' }
    const attack = Array.from({ length: 200 }, () => codeOf(content.entries.list(mallory, costly)))
    const plain = await Promise.all(
      Array.from({ length: 50 }, () =>
        codeOf(content.entries.list(alice, listing('note', { sort: newest }))),
      ),
    )
    assert.deepEqual(new Set(plain), new Set(['fine']))
    assert.equal(await codeOf(content.entries.list(alice, costly)), 'fine')
    const codes = await Promise.all(attack)
    assert.ok(codes.filter((code) => code === 'E_QUERY_BUSY').length >= 100)
    assert.ok(codes.includes('fine'), 'their share is served')
  },
)
