import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import type { Call, Content } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { createContent } from '#content/create-content.ts'
import type { ListQuery } from '#content/query/query.ts'
import { versionTable } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import { migrate } from '#database/migrate.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { everything, listing, reading } from '#test/support/content.ts'
import { startTestPostgres } from '#test/support/database.ts'
import { createDatabase } from './support/articles.ts'
import { compare, median, round } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

const typesMax = 100
const fewEntries = 20_000
const manyEntries = Number(process.env['STOA_BENCH_ENTRIES'] ?? 1_000_000)
const entriesPerOtherType = 20
const clients = 4
const roundMs = 1_500
const rounds = 7
/** Linux counts processor time in hundredths of a second. */
const tickMs = 10
const buildMs = 3_600_000

const filterable = Array.from({ length: 7 }, (_, at) => `f${at}`)

function typeNamed(name: string): ContentType {
  return {
    name,
    label: name,
    fields: [
      { name: 'title', kind: 'text' },
      { name: 'body', kind: 'markdown' },
      { name: 'extra', kind: 'text' },
      ...filterable.map((field, at) =>
        at % 2 === 0
          ? ({ name: field, kind: 'text', filterable: true } as const)
          : ({ name: field, kind: 'number', filterable: true } as const),
      ),
    ],
    indexes: [['f0', '-publishedAt']],
  }
}

type Site = AsyncDisposable & {
  readonly database: PostgresDatabase
  readonly content: Content
  readonly call: Call
  readonly types: readonly string[]
  readonly entries: number
}

const unprepared = (text: string): ReturnType<typeof sql<object>> => sql<object>(text, 'never')

/** Fills the table of a type as quickly as PostgreSQL can: before it has the indexes of fields. */
async function fill(database: PostgresDatabase, type: string, count: number): Promise<void> {
  const table = versionTable(type)
  const prefix = `substr(md5('${type}' || i), 1, 8)`
  const id = `(${prefix} || '-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid`
  const values = filterable.map((field, at) =>
    at % 2 === 0
      ? `'${field}', 'v' || (i % 100000 * 7919) % ${at * 40 + 20}`
      : `'${field}', i % 1000`,
  )
  const steps = [
    `alter table ${table} disable trigger all`,
    `insert into stoa.entry (id, type, created_by)
     select ${id}, '${type}', '{}' from generate_series(1, ${count}) i`,
    `insert into ${table} (entry_id, locale, number, type, data, filter, is_latest, is_published,
       created_at, saved_at, saved_by, published_at, first_published_at)
     select ${id}, 'en', 1, '${type}',
       json_build_object('title', 'Title ' || i, 'body', repeat('text ', 40), ${values.join(', ')}),
       jsonb_build_object(${values.join(', ')}), true, true, at, at, '{}', at, at
     from generate_series(1, ${count}) i,
       lateral (select timestamptz '2026-01-01' + i * interval '1 second' as at) t`,
    `alter table ${table} enable trigger all`,
    `alter table ${table}
       enable always trigger stoa_change_insert, enable always trigger stoa_change_update,
       enable always trigger stoa_change_delete, enable always trigger stoa_change_truncate`,
  ]
  for (const text of steps) await database.run({ ...unprepared(text), timeoutMs: buildMs })
}

async function openSite(
  url: string,
  types: number,
  entries: number,
  say: (line: string) => void,
): Promise<Site> {
  const database = new PostgresDatabase({
    url,
    connectionsMax: 12,
    statementTimeoutMs: 600_000,
    connectTimeoutMs: 30_000,
    logger: silentLogger,
  })
  await migrate(database)
  const content = createContent({ clock: systemClock, logger: silentLogger })
  const names = Array.from({ length: types }, (_, at) => `article-${at}`)
  for (const [at, name] of names.entries()) {
    // In a transaction of the caller, so that no index is built before the table is full.
    await database.transaction((tx) =>
      content.types.save(tx, typeNamed(name), { expected: null, allowLoss: false }),
    )
    await fill(database, name, at === 0 ? entries : entriesPerOtherType)
  }
  say(`${types} types, ${entries} entries of the first: filled; building indexes …`)
  await settle(content, database)
  // Statistics of tables that are still empty would spoil PostgreSQL's plans until it analyzes
  // them again.
  for (const table of ['stoa.entry', ...names.map(versionTable)])
    await database.run({ ...unprepared(`vacuum analyze ${table}`), timeoutMs: buildMs })
  await database.run({ ...unprepared('checkpoint'), timeoutMs: buildMs })
  return {
    database,
    content,
    call: { db: database, authority: everything },
    types: names,
    entries,
    [Symbol.asyncDispose]: async () => {
      await content.stop()
      await database.close()
    },
  }
}

async function settle(content: Content, database: PostgresDatabase): Promise<void> {
  for (;;) {
    await content.types.settle(database)
    if ((await content.types.states(database)).every((state) => state.settled)) return
    await wait(50)
  }
}

type Work = (site: Site, ids: readonly string[], turn: number) => Promise<unknown>

const query = (type: string, value: string): ListQuery =>
  listing(type, {
    filter: { op: 'compare', field: 'f0', test: { is: 'eq', value } },
    sort: [{ field: 'publishedAt', descending: true }],
    limit: 20,
  })

const works: Readonly<Record<string, Work>> = {
  list: (site, _ids, turn) =>
    site.content.entries.list(site.call, query(site.types[0]!, `v${turn % 20}`)),
  get: (site, ids, turn) =>
    site.content.entries.get(site.call, site.types[0]!, ids[turn % ids.length]!, reading()),
  save: (site, ids, turn) =>
    site.content.entries.save(
      site.call,
      { type: site.types[0]!, id: ids[turn % ids.length]! },
      { locale: null, fields: { title: `Title ${turn}` }, merge: true },
      null,
    ),
  publish: async (site, ids, turn) => {
    const [type, id] = [site.types[0]!, ids[turn % ids.length]!]
    const input = { locale: null, fields: { title: `Live ${turn}` }, merge: true, publish: true }
    return site.content.entries.save(site.call, { type, id }, input, null)
  },
  create: (site, _ids, turn) =>
    site.content.entries.create(site.call, site.types[0]!, {
      locale: null,
      fields: {
        title: `New ${turn}`,
        body: 'text '.repeat(40),
        f0: `v${turn % 20}`,
        f1: turn % 100,
      },
      publish: true,
    }),
}

/** Entries of the first type, spread over it. */
async function someIds(site: Site): Promise<string[]> {
  const rows = await site.database.run(
    sql<{ id: string }>(
      `select entry_id as id from ${versionTable(site.types[0]!)}
       where is_published order by entry_id limit 400`,
    ),
  )
  return rows.map((row) => row.id)
}

/** Processor time of the server and its backends so far, in milliseconds. */
async function serverTimeMs(site: Site): Promise<number> {
  const [row] = await site.database.run(sql<{ pid: number }>(`select pg_backend_pid() as pid`))
  const statOf = (pid: number | string): string[] => {
    try {
      return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
    } catch {
      return []
    }
  }
  const server = statOf(row!.pid)[1]
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(statOf)
    .filter((stat) => stat[1] === server)
    .reduce((sum, stat) => sum + (Number(stat[11]) + Number(stat[12])) * tickMs, 0)
}

let turns = 0

async function runRound(site: Site, ids: readonly string[], work: Work): Promise<Round> {
  const [startMs, cpuMs] = [performance.now(), await serverTimeMs(site)]
  let done = 0
  await Promise.all(
    Array.from({ length: clients }, async () => {
      while (performance.now() - startMs < roundMs) {
        await work(site, ids, (turns += 1))
        done += 1
      }
    }),
  )
  const elapsedMs = performance.now() - startMs
  return {
    perSecond: (done / elapsedMs) * 1_000,
    perServerSecond: done / Math.max(1, ((await serverTimeMs(site)) - cpuMs) / 1_000),
  }
}

type Round = { readonly perSecond: number; readonly perServerSecond: number }

async function compareSites(
  [small, large]: readonly [Site, Site],
  { label, atLeast }: { readonly label: string; readonly atLeast: number },
  say: (line: string) => void,
): Promise<Figure[]> {
  const figures: Figure[] = []
  const [smallIds, largeIds] = [await someIds(small), await someIds(large)]
  for (const [name, work] of Object.entries(works)) {
    const measured: [Round[], Round[]] = [[], []]
    await runRound(small, smallIds, work)
    await runRound(large, largeIds, work)
    for (let at = 0; at < rounds; at += 1) {
      const first = (): Promise<Round> => runRound(small, smallIds, work)
      const second = (): Promise<Round> => runRound(large, largeIds, work)
      // The sites take turns at being first, so that a drift of the machine affects both alike.
      const [a, b] =
        at % 2 === 0 ? [await first(), await second()] : [await second(), await first()]
      measured[0].push(at % 2 === 0 ? a : b)
      measured[1].push(at % 2 === 0 ? b : a)
    }
    const of = (key: keyof Round): ReturnType<typeof compare> =>
      compare(
        measured[0].map((one) => one[key]),
        measured[1].map((one) => one[key]),
      )
    const [rate, cpu] = [of('perSecond'), of('perServerSecond')]
    say(
      `${name}: ${rate.baseline} and ${rate.subject}/s, ratio ${rate.ratio}, ` +
        `by server time ${cpu.ratio}`,
    )
    figures.push(
      { name: `${name}, ${label}: before`, value: rate.baseline, unit: '/s' },
      { name: `${name}, ${label}: ratio of rates`, value: rate.ratio, unit: '×', atLeast },
      { name: `${name}, ${label}: by server time`, value: cpu.ratio, unit: '×', atLeast },
    )
  }
  return figures
}

/** Reads and writes go on while a field becomes filterable; the longest wait is the figure. */
async function widen(site: Site, say: (line: string) => void): Promise<Figure[]> {
  const ids = await someIds(site)
  const longest = { list: 0, get: 0, save: 0, create: 0 }
  const waits: number[] = []
  const done = new AbortController()
  const loops = (Object.keys(longest) as (keyof typeof longest)[]).map(async (name) => {
    while (!done.signal.aborted) {
      const startMs = performance.now()
      await works[name]!(site, ids, (turns += 1))
      const tookMs = performance.now() - startMs
      longest[name] = Math.max(longest[name], tookMs)
      waits.push(tookMs)
      await wait(2)
    }
  })
  const startMs = performance.now()
  const before = typeNamed(site.types[0]!)
  const fields = before.fields.map((field) =>
    field.name === 'extra' ? { ...field, filterable: true } : field,
  ) as ContentType['fields']
  await site.content.types.save(
    site.database,
    { ...before, fields: [...fields, { name: 'added', kind: 'text', filterable: true }] },
    { expected: null, allowLoss: false },
  )
  await settle(site.content, site.database)
  done.abort()
  await Promise.all(loops)
  const seconds = Math.round((performance.now() - startMs) / 1_000)
  say(`a filterable field in ${seconds} s; longest waits ${JSON.stringify(longest)} ms`)
  return [
    { name: `a field becomes filterable, ${site.entries} entries`, value: seconds, unit: 's' },
    { name: 'median wait meanwhile', value: round(median(waits)), unit: 'ms' },
    ...Object.entries(longest).map(([name, value]) => ({
      name: `longest ${name} meanwhile`,
      value: Math.round(value),
      unit: 'ms',
      atMost: 1_000,
    })),
  ]
}

export const benchmark: Benchmark = {
  claim:
    `A read or a write costs the same with ${typesMax} types of 7 filterable fields as with 1, ` +
    `and nearly the same with ${manyEntries} entries as with ${fewEntries}; a field becomes ` +
    `filterable while reads and writes go on.`,
  run: async (say) => {
    const server = await startTestPostgres({ durable: true })
    try {
      const url = (name: string): Promise<string> => createDatabase(server.url, name)
      await using few = await openSite(await url('few'), 1, fewEntries, say)
      const figures: Figure[] = []
      {
        await using types = await openSite(await url('types'), typesMax, fewEntries, say)
        figures.push(
          ...(await compareSites(
            [few, types],
            { label: `1 to ${typesMax} types`, atLeast: 0.9 },
            say,
          )),
        )
      }
      await using entries = await openSite(await url('entries'), 1, manyEntries, say)
      const label = `${fewEntries} to ${manyEntries} entries`
      figures.push(...(await compareSites([few, entries], { label, atLeast: 0.8 }, say)))
      figures.push(...(await widen(entries, say)))
      return { figures, notes: [`${clients} clients in one process beside the server.`] }
    } finally {
      await server.stop()
    }
  },
}
