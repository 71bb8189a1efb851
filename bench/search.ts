import { setTimeout as wait } from 'node:timers/promises'
import type { Call, Content } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { createContent } from '#content/create-content.ts'
import { versionTable } from '#content/version-table.ts'
import { migrate } from '#database/migrate.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { everything, listing } from '#test/support/content.ts'
import { startTestPostgres } from '#test/support/database.ts'
import { createDatabase } from './support/articles.ts'
import { compare, median, round } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

/** Entries of the types that are searched; the last may be given by the environment. */
const sizes = [1_000, 10_000, Number(process.env['STOA_BENCH_ENTRIES'] ?? 30_000)]
const searches = 40
/** Every entry has the common word; one in a thousand has a given rare one. */
const rareWords = 1_000
const fillMs = 1_800_000
const saveRounds = 7
const savesPerRound = 150
const savedEntries = 50
/** The server ends a costly query after this. */
const deadlineMs = 3_000

function typeNamed(name: string, searchable: boolean): ContentType {
  return {
    name,
    label: name,
    titleField: 'title',
    fields: [
      { name: 'title', kind: 'text', searchable },
      { name: 'body', kind: 'markdown', searchable },
    ],
  }
}

type Site = AsyncDisposable & {
  readonly database: PostgresDatabase
  readonly content: Content
  readonly call: Call
}

async function openSite(url: string): Promise<Site> {
  const database = new PostgresDatabase({
    url,
    connectionsMax: 8,
    statementTimeoutMs: 600_000,
    connectTimeoutMs: 30_000,
    logger: silentLogger,
  })
  await migrate(database)
  const content = createContent({ clock: systemClock, logger: silentLogger })
  return {
    database,
    content,
    call: { db: database, authority: everything },
    [Symbol.asyncDispose]: async () => {
      await content.stop()
      await database.close()
    },
  }
}

async function addType({ content, database }: Site, type: ContentType): Promise<void> {
  await content.types.save(database, type, { expected: null, allowLoss: false })
}

async function settle({ content, database }: Site): Promise<void> {
  for (;;) {
    await content.types.settle(database)
    if ((await content.types.states(database)).every((state) => state.settled)) return
    await wait(50)
  }
}

/** Texts of about 200 words, filled as quickly as PostgreSQL can. */
async function fill({ database }: Site, type: string, count: number): Promise<void> {
  const table = versionTable(type)
  const id = `(substr(md5('${type}' || i), 1, 8) || '-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))`
  const words = `(select string_agg('w' || (i * 31 + j * j * 17) % 5000, ' ')
    from generate_series(1, 200) j)`
  const steps = [
    `alter table ${table} disable trigger all`,
    `insert into stoa.entry (id, type, created_by)
     select ${id}::uuid, '${type}', '{}' from generate_series(1, ${count}) i`,
    `insert into ${table} (entry_id, locale, number, type, data, filter, is_latest, is_published,
       created_at, saved_at, saved_by, published_at, first_published_at,
       search, search_number, search_revision)
     select ${id}::uuid, 'en', 1, '${type}', json_build_object('title', title, 'body', body), '{}',
       true, true, at, at, '{}', at, at,
       stoa.search_vector('en', json_build_array(title, '', '', body)), 1, 1
     from generate_series(1, ${count}) i,
       lateral (select timestamptz '2026-01-01' + i * interval '1 second' as at,
         'title' || i as title, 'common rare' || i % ${rareWords} || ' ' || ${words} as body) t`,
    `alter table ${table} enable trigger all`,
    `alter table ${table}
       enable always trigger stoa_change_insert, enable always trigger stoa_change_update,
       enable always trigger stoa_change_delete, enable always trigger stoa_change_truncate`,
    `vacuum analyze ${table}`,
  ]
  for (const text of steps) await database.run({ text, prepare: 'never', timeoutMs: fillMs })
}

async function searchTimes(site: Site, type: string, word: (turn: number) => string) {
  const times: number[] = []
  for (let turn = 0; turn < searches; turn += 1) {
    const startMs = performance.now()
    await site.content.entries.list(site.call, listing(type, { search: word(turn) }))
    times.push(performance.now() - startMs)
  }
  return times.toSorted((a, b) => a - b)
}

/** The knee: what a search costs that ranks all entries, and one that ranks few. */
async function measureSearches(site: Site, say: (line: string) => void): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const size of sizes) {
    const type = `page-${size}`
    await addType(site, typeNamed(type, true))
    await settle(site)
    await fill(site, type, size)
    const common = await searchTimes(site, type, () => 'common')
    const rare = await searchTimes(site, type, (turn) => `rare${turn}`)
    const of = (times: readonly number[]): [number, number] => [
      round(median(times)),
      round(times.at(-1)!),
    ]
    say(`${size} entries: all match ${of(common).join(', ')} ms; few ${of(rare).join(', ')} ms`)
    figures.push(
      { name: `all of ${size} match: p50`, value: of(common)[0], unit: 'ms' },
      {
        name: `all of ${size} match: slowest`,
        value: of(common)[1],
        unit: 'ms',
        atMost: deadlineMs,
      },
      { name: `one in ${rareWords} of ${size} matches: p50`, value: of(rare)[0], unit: 'ms' },
    )
  }
  return figures
}

/** Saves of a type that is searched, beside the same without. */
async function measureSaves(site: Site, say: (line: string) => void): Promise<Figure[]> {
  const body = Array.from({ length: 600 }, (_, at) => `word${(at * at) % 997}`).join(' ')
  const ids = new Map<string, string[]>()
  for (const type of ['plain', 'searched']) {
    await addType(site, typeNamed(type, type === 'searched'))
    await settle(site)
    const made: string[] = []
    for (let at = 0; at < savedEntries; at += 1) {
      const input = { locale: null, fields: { title: `Title ${at}`, body } }
      made.push((await site.content.entries.create(site.call, type, input)).id)
    }
    ids.set(type, made)
  }
  let turn = 0
  const perSecond = async (type: string): Promise<number> => {
    const startMs = performance.now()
    for (let at = 0; at < savesPerRound; at += 1) {
      const id = ids.get(type)![at % savedEntries]!
      const input = { locale: null, fields: { body: `${(turn += 1)} ${body}` }, merge: true }
      await site.content.entries.save(site.call, { type, id }, input, null)
    }
    return (savesPerRound / (performance.now() - startMs)) * 1_000
  }
  const rates: [number[], number[]] = [[], []]
  for (let at = 0; at <= saveRounds; at += 1) {
    const both = [await perSecond('plain'), await perSecond('searched')] as const
    // The first round warms both up.
    if (at > 0) both.forEach((rate, place) => rates[place]!.push(rate))
  }
  const { baseline, subject, ratio } = compare(...rates)
  say(`saves of 4 KB: ${baseline}/s, searched ${subject}/s`)
  return [
    { name: 'saves of a type that is not searched', value: baseline, unit: '/s' },
    { name: 'saves of a type that is searched: ratio', value: ratio, unit: '×', atLeast: 0.3 },
  ]
}

export const benchmark: Benchmark = {
  claim:
    'A search ranks at most 10,000 matches and ends within its deadline; only types ' +
    'that are searched pay for it when they are saved.',
  run: async (say) => {
    const server = await startTestPostgres({ durable: true })
    try {
      await using site = await openSite(await createDatabase(server.url, 'search'))
      const saves = await measureSaves(site, say)
      const figures = [...saves, ...(await measureSearches(site, say))]
      const notes = ['One client; texts of 200 words; nothing comes from the cache of responses.']
      return { figures, notes }
    } finally {
      await server.stop()
    }
  },
}
