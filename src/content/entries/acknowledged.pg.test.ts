import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Call, Content, EntryView } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { createContent } from '#content/create-content.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { SerializationError } from '#database/errors.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { brokenInvariants, everything, testContent } from '#test/support/content.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'

/**
 * `STOA_TEST_RUNS=100 STOA_TEST_SEED=1 npm test -- acknowledged` looks further than every run of
 * the tests does.
 */
const rounds = Number(process.env['STOA_TEST_RUNS'] ?? 12)
const seed = Number(process.env['STOA_TEST_SEED'] ?? 5)
const nodesCount = 3
const atOnce = 16

const thing: ContentType = {
  name: 'thing',
  label: 'Thing',
  fields: [
    { name: 'title', kind: 'text', localized: true },
    { name: 'slug', kind: 'slug', from: 'title', localized: true },
    { name: 'note', kind: 'text' },
    { name: 'code', kind: 'text', unique: true },
    { name: 'links', kind: 'reference', many: true, onDelete: 'unset' },
  ],
}

type Node = { readonly database: Database; readonly content: Content }
/** `expected`: the version that it was saved on, where that was asked for. */
type Acknowledged = { readonly entry: EntryView; readonly expected: number | null }
type Site = {
  readonly nodes: readonly Node[]
  readonly ids: string[]
  readonly gone: Set<string>
  readonly acknowledged: Acknowledged[]
  readonly random: () => number
}

/** The same numbers for the same seed, evenly enough (a linear congruential generator). */
function randomFrom(start: number): () => number {
  let state = start
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff
    return state / 0x8000_0000
  }
}

type Work = (call: Call, node: Node) => Promise<readonly Acknowledged[]>

/** Chooses one operation, with its values, before anything else has a turn. */
function chosen({ ids, gone, random }: Site): Work {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!
  const [id, other, locale, version] = [
    pick(ids),
    pick(ids),
    pick(['en', 'en', 'de']),
    1 + Math.floor(random() * 5),
  ]
  const fields = {
    title: `T${random()}`,
    ...(random() < 0.3 ? { note: pick(['a', 'b', null]) } : {}),
    ...(random() < 0.2 ? { code: pick(['x', 'y', null]) } : {}),
    ...(random() < 0.2 ? { links: [other] } : {}),
  }
  const publish = random() < 0.3
  const plain = (entries: readonly EntryView[]): Acknowledged[] =>
    entries.map((entry) => ({ entry, expected: null }))
  const works: Work[] = [
    async (call, { content }) =>
      plain([
        await content.entries.save(
          call,
          { type: 'thing', id },
          { locale, fields, merge: true, publish },
          null,
        ),
      ]),
    async (call, { content }) => {
      const seen = (await content.entries.locales(call, { type: 'thing', id }, 'draft')).find(
        (entry) => entry.locale === locale,
      )
      if (seen === undefined) return []
      return [
        {
          entry: await content.entries.save(
            call,
            { type: 'thing', id },
            { locale, fields, merge: true, publish },
            seen.version,
          ),
          expected: seen.version,
        },
      ]
    },
    async (call, { content }) =>
      plain(
        await content.entries.publish(
          call,
          { type: 'thing', id },
          { locales: [locale], version: publish ? version : null },
          null,
        ),
      ),
    async (call, { content }) =>
      plain([
        await content.entries.restore(call, { type: 'thing', id }, { locale, version }, null),
      ]),
    async (call, { content }) =>
      plain(await content.entries.unpublish(call, { type: 'thing', id }, null, null)),
    async (call, { content }) =>
      plain(await content.entries.archive(call, { type: 'thing', id }, publish, null)),
    async (call, { content }) => {
      for (const one of (await content.entries.delete(call, { type: 'thing', id }, null)).deleted)
        gone.add(one)
      return []
    },
  ]
  const weights = [5, 6, 3, 1, 1, 2, 1]
  return pick(works.flatMap((work, at) => Array.from({ length: weights[at]! }, () => work)))
}

/**
 * Runs an operation on one node, now and then in a transaction of the caller's, and notes what was
 * acknowledged.
 */
async function act(site: Site): Promise<void> {
  const node = site.nodes[Math.floor(site.random() * nodesCount)]!
  const inside = site.random() < 0.3
  const work = chosen(site)
  const run = (db: Queryable): Promise<readonly Acknowledged[]> =>
    work({ db, authority: everything }, node)
  try {
    const results = inside ? await node.database.transaction(run) : await run(node.database)
    site.acknowledged.push(...results)
  } catch (error) {
    if (inside && error instanceof SerializationError) return
    assert.ok(
      error instanceof StoaError && !error.code.startsWith('E_DATABASE_'),
      error instanceof Error ? error.stack : String(error),
    )
  }
}

/** Returns acknowledged saves that the database does not have, or has otherwise. */
async function missing(database: Database, { acknowledged, gone }: Site): Promise<string[]> {
  const rows = await database.run(
    sql<{ key: string; data: string }>(
      `select concat_ws(' ', entry_id, locale, number) as key, data from stoa.any_version`,
    ),
  )
  const kept = new Map(rows.map((row) => [row.key, row.data]))
  const keyOf = ({ id, locale, version }: EntryView): string => `${id} ${locale} ${version}`
  const lost = acknowledged
    .filter(({ entry }) => !gone.has(entry.id) && kept.get(keyOf(entry)) !== entry.fieldsJson)
    .map(({ entry }) => `lost: ${keyOf(entry)} ${entry.fieldsJson}`)
  const changed = acknowledged.filter(
    ({ entry, expected }) => expected !== null && expected !== entry.version,
  )
  const grounds = Map.groupBy(
    changed,
    ({ entry, expected }) => `${entry.id} ${entry.locale} ${expected}`,
  )
  return [
    ...lost,
    ...[...grounds]
      .filter(([, saves]) => saves.length > 1)
      .map(([ground]) => `saved twice on: ${ground}`),
  ]
}

test(
  'under concurrent writes of several nodes no acknowledged save is lost or overwritten',
  { skip },
  async () => {
    await using db = await testDatabase()
    const open = (): PostgresDatabase =>
      new PostgresDatabase({
        url: db.url,
        connectionsMax: 8,
        statementTimeoutMs: 20_000,
        connectTimeoutMs: 20_000,
        logger: silentLogger,
      })
    const nodes = Array.from({ length: nodesCount }, () => ({
      database: open(),
      content: createContent({ clock: systemClock, logger: silentLogger }),
    }))
    const { content, database } = nodes[0]!
    try {
      await content.locales.save(database, { code: 'de', fallback: 'en', isDefault: false })
      await content.types.save(database, thing, { expected: null, allowLoss: false })
      const random = randomFrom(seed)
      const site: Site = { nodes, ids: [], gone: new Set(), acknowledged: [], random }
      for (let round = 0; round < rounds; round += 1) {
        // Few, so that they are in each other's way; new ones take the place of those that went.
        while (site.ids.filter((id) => !site.gone.has(id)).length < 4)
          site.ids.push(
            (
              await content.entries.create({ db: database, authority: everything }, 'thing', {
                locale: 'en',
                fields: { title: 'New' },
              })
            ).id,
          )
        site.ids.splice(0, site.ids.length, ...site.ids.filter((id) => !site.gone.has(id)))
        await Promise.all(Array.from({ length: atOnce }, () => act(site)))
        assert.deepEqual(
          [...(await missing(database, site)), ...(await brokenInvariants(database))],
          [],
        )
      }
      const { length } = site.acknowledged
      assert.ok(length > rounds * 2, `only ${length} were acknowledged`)
    } finally {
      for (const node of nodes) {
        await node.content.stop()
        await node.database.close()
      }
    }
  },
)

test(
  'a save that loses a deadlock with a change of several entries is repeated',
  { skip },
  async () => {
    await using t = await testContent({ types: [thing] })
    const { id } = await t.content.entries.create(t.admin, 'thing', {
      locale: 'en',
      fields: { title: 'One' },
      publish: true,
    })
    let saved: Promise<EntryView> | null = null
    await t.database.transaction(async (tx) => {
      await tx.run(sql(`select 1 from stoa.version where entry_id = $1 for no key update`), [id])
      saved = t.content.entries.save(
        t.admin,
        { type: 'thing', id },
        { locale: 'en', fields: { note: 'Two' }, merge: true, publish: false },
        null,
      )
      // It has the entry's lock by then, waits for the version's, and is the first to find out that
      // it will not get it.
      while (
        (
          await t.database.run(
            sql(
              `select 1 from pg_stat_activity where datname = current_database()
                and wait_event_type = 'Lock'`,
            ),
          )
        ).length === 0
      )
        await sleep(5)
      await tx.run(sql(`select 1 from stoa.entry where id = $1 for update`), [id])
    })
    assert.equal(JSON.parse((await saved!).fieldsJson).note, 'Two')
  },
)
