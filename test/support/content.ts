import assert from 'node:assert/strict'
import type { Authority, AuthorityOf, ContentAction, Grant } from '#content/authority.ts'
import type { Call, Content, ReadOptions } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { createContent } from '#content/create-content.ts'
import type { ListQuery } from '#content/query/query.ts'
import type { Database, Queryable } from '#database/database.ts'
import { sql } from '#database/database.ts'
import { systemActor } from '#lib/actor.ts'
import type { Actor } from '#lib/actor.ts'
import { systemClock } from '#lib/clock.ts'
import type { Clock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { testDatabase } from '#test/support/database.ts'

/**
 * Content over a fresh database, and ways of calling it. Ends its background work before the
 * database goes.
 */
export type TestContent = AsyncDisposable & {
  readonly database: Database
  readonly content: Content
  /** May do everything. */
  readonly admin: Call
  /** Only what is granted, by action; `*` stands for every type. */
  call(
    grants: Readonly<Record<string, Partial<Record<ContentAction, Grant | true>>>>,
    options?: { readonly actor?: Actor; readonly db?: Queryable },
  ): Call
}

const ada: Actor = { kind: 'user', id: '0197a000-0000-7000-8000-0000000000ad', name: 'Ada' }

export const everything: Authority = {
  actor: systemActor,
  grant: () => ({ filter: null, fields: null }),
  key: 'everything',
}

export async function testContent(
  options: {
    readonly connectionsMax?: number
    readonly clock?: Clock
    readonly types?: readonly ContentType[]
    readonly locales?: readonly string[]
  } = {},
): Promise<TestContent> {
  const db = await testDatabase({ connectionsMax: options.connectionsMax ?? 10 })
  const { database } = db
  const content = createContent({ clock: options.clock ?? systemClock, logger: silentLogger })
  for (const code of options.locales ?? [])
    await content.locales.save(database, { code, fallback: 'en', isDefault: false })
  for (const type of options.types ?? [])
    await content.types.save(database, type, { expected: null, allowLoss: false })
  return {
    database,
    content,
    admin: { db: database, authority: everything },
    call: (grants, { actor = ada, db: queryable = database } = {}) => ({
      db: queryable,
      authority: {
        actor,
        key: JSON.stringify(grants),
        grant: (action, type) => {
          const grant = (grants[type] ?? grants['*'])?.[action]
          if (grant === true) return { filter: null, fields: null }
          return grant ?? null
        },
      },
    }),
    [Symbol.asyncDispose]: async () => {
      await content.stop()
      await db[Symbol.asyncDispose]()
    },
  }
}

const dueNow = sql<{ id: string }>(`
  select id from stoa.schedule where state = 'waiting' and due_at <= clock_timestamp()
  order by due_at, id`)

/** Carries out what is due, as the jobs of a node do. Returns how many it carried out. */
export async function runDue(
  { schedule }: Content,
  database: Queryable,
  authorityOf: AuthorityOf,
): Promise<number> {
  let count = 0
  for (const { id } of await database.run(dueNow))
    if ((await schedule.carryOut(database, id, authorityOf)) !== 'nothing') count += 1
  return count
}

export function reading(options: Partial<ReadOptions> = {}): ReadOptions {
  return { locale: null, perspective: 'published', fields: null, include: [], ...options }
}

export function listing(type: string, query: Partial<ListQuery> = {}): ListQuery {
  return {
    type,
    filter: null,
    sort: [],
    fields: null,
    include: [],
    locale: null,
    perspective: 'published',
    limit: 20,
    after: null,
    count: false,
    ...query,
  }
}

/** The broken invariants of all entries; an empty list when every one holds. */
export async function brokenInvariants(database: Queryable): Promise<string[]> {
  const rows = await database.run(
    sql<{ what: string }>(`
      select 'not one latest: ' || entry_id || ' ' || locale as what
        from stoa.version group by entry_id, locale having count(*) filter (where is_latest) <> 1
      union all
      select 'neither latest nor published: ' || entry_id || ' ' || locale
        from stoa.version where not is_latest and not is_published
      union all
      select 'published more than once: ' || entry_id || ' ' || locale
        from stoa.version group by entry_id, locale having count(*) filter (where is_published) > 1
      union all
      select 'archived and published: ' || entry_id
        from stoa.version where is_archived and is_published
      union all
      select 'latest and entry differ in being archived: ' || v.entry_id
        from stoa.version v join stoa.entry e on e.id = v.entry_id
        where v.is_latest and v.is_archived <> (e.archived_at is not null)
      union all
      select 'locale_count: ' || e.id
        from stoa.entry e
        where locale_count <> (select greatest(1, count(*)) from stoa.version v
          where v.entry_id = e.id and v.is_latest)
      union all
      select 'publishedAt of latest and published differ: ' || l.entry_id
        from stoa.version l left join stoa.version p
          on p.entry_id = l.entry_id and p.locale = l.locale and p.is_published
        where l.is_latest and l.published_at is distinct from p.published_at
      union all
      select 'numbers have gaps: ' || entry_id || ' ' || locale
        from stoa.any_version group by entry_id, locale
        having count(*) <> max(number) or min(number) <> 1`),
  )
  return rows.map((row) => row.what)
}

/** Runs `work` in a transaction of its own, which is held open between `begun` and `end`. */
export async function heldOpen(
  t: TestContent,
  work: (call: Call) => Promise<unknown>,
): Promise<{ readonly end: () => Promise<void> }> {
  const [begun, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const whole = t.database.transaction(async (tx) => {
    await work({ ...t.admin, db: tx })
    begun.resolve()
    await ended.promise
  })
  await Promise.race([begun.promise, whole])
  return {
    end: () => {
      ended.resolve()
      return whole
    },
  }
}

/** A test waits for a lock for milliseconds only: this bound ends one that hangs. */
const waitMsMax = 10_000

const waiters = sql<{ count: number }>(`
  select count(*)::int as count from pg_stat_activity
  where datname = current_database() and wait_event_type = 'Lock' and wait_event <> 'virtualxid'`)

/**
 * Resolves when exactly `count` sessions of this database wait for a lock. Sessions that build
 * indexes wait for transactions to end and do not count.
 */
export async function untilWaiting(t: TestContent, count: number): Promise<void> {
  const deadlineMs = Date.now() + waitMsMax
  while ((await t.database.run(waiters))[0]?.count !== count) {
    assert.ok(Date.now() < deadlineMs, `not ${count} waiting`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** For tests of schedules whose maker's rights do not matter. */
export const hasEveryRight: AuthorityOf = async (_db, actor) => ({ ...everything, actor })
