import { availableParallelism } from 'node:os'
import { ChangeFeed } from '#change-feed/feed.ts'
import type { Call, Content } from '#content/content.ts'
import { createContent } from '#content/create-content.ts'
import { sql } from '#database/database.ts'
import type { Statement } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { migrate } from '#database/migrate.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { everything } from '#test/support/content.ts'
import { startTestPostgres } from '#test/support/database.ts'
import { createDatabase } from './support/articles.ts'
import { compare } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

const clientCounts = [1, 8, 32, 64]
const roundMs = 600
const rows = 10_000
const entries = 2_000
const connectionsMax = 64
/**
 * Bodies are cut from it at another place each time: of one that stays the same the server would
 * log nothing.
 */
const text = Array.from({ length: 6_000 }, (_, at) =>
  String.fromCharCode(97 + (((at * 7_919) % 2_003) % 23)),
).join('')
const offsets = 2_000

/** A write is announced not at all, by the outbox, or by NOTIFY in its transaction. */
const kinds = ['plain', 'outbox', 'notify'] as const
type Kind = (typeof kinds)[number]

/** One write; `turn` differs each time. */
type Write = (turn: number, body: (length: number) => string) => Promise<unknown>
type Writer = AsyncDisposable & { readonly write: Write }

function open(url: string): PostgresDatabase {
  return new PostgresDatabase({
    url,
    connectionsMax,
    statementTimeoutMs: 30_000,
    connectTimeoutMs: 30_000,
    logger: silentLogger,
  })
}

const statement = (text: string): Statement<object> => ({ text, prepare: 'never' })

async function notifyOf(database: PostgresDatabase, table: string, key: string): Promise<void> {
  await database.run(
    statement(
      `create function announce() returns trigger language plpgsql as $$
       begin perform pg_notify('bench', new.${key}::text); return null; end $$`,
    ),
  )
  await database.run(
    statement(
      `create trigger announce after update on ${table} for each row execute function announce()`,
    ),
  )
}

/** Reads the outbox while it is written, as the nodes of a cluster do. */
function follow(url: string): AsyncDisposable {
  const database = new PostgresDatabase({
    url,
    connectionsMax: 3,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 5_000,
    logger: silentLogger,
  })
  const feed = new ChangeFeed({ database, link: null, clock: systemClock, logger: silentLogger })
  return {
    [Symbol.asyncDispose]: async () => {
      await feed.stop()
      await database.close()
    },
  }
}

/** Saves and publishes one entry per call, with the same code that serves PATCH. */
async function entryWriter(url: string, kind: Kind): Promise<Writer> {
  const database = open(url)
  await migrate(database)
  const content: Content = createContent({ clock: systemClock, logger: silentLogger })
  const call: Call = { db: database, authority: everything }
  await content.types.save(
    database,
    {
      name: 'article',
      label: 'Article',
      fields: [
        { name: 'title', kind: 'text', required: true },
        { name: 'body', kind: 'markdown' },
      ],
    },
    { expected: null, allowLoss: false },
  )
  const ids: string[] = []
  for (let at = 0; at < entries; at += 1)
    ids.push(
      (
        await content.entries.create(call, 'article', {
          locale: null,
          fields: { title: `Article ${at}`, body: text.slice(0, 4_000) },
          publish: true,
        })
      ).id,
    )
  if (kind !== 'outbox') await database.run(statement(`select stoa.detach('stoa.version')`))
  if (kind === 'notify') await notifyOf(database, 'stoa.version', 'entry_id')
  const feed = kind === 'outbox' ? follow(url) : null
  return {
    write: async (turn, body) =>
      content.entries.save(
        call,
        { type: 'article', id: ids[turn % entries]! },
        {
          locale: null,
          fields: { title: `Title ${turn}`, body: body(4_000) },
          merge: true,
          publish: true,
        },
        null,
      ),
    [Symbol.asyncDispose]: async () => {
      await feed?.[Symbol.asyncDispose]()
      await content.stop()
      await database.close()
    },
  }
}

/** An outbox weighs most beside a bare UPDATE of one row. */
async function rowWriter(url: string, kind: Kind): Promise<Writer> {
  const database = open(url)
  await migrate(database, { set: 'cluster' })
  await database.run(
    statement(
      `create table item (
        id int primary key, n int not null, grp int not null, body text not null)`,
    ),
  )
  await database.run(
    statement(
      `insert into item select i, 0, i % 20, repeat('x', 1000) from generate_series(1, ${rows}) i`,
    ),
  )
  if (kind === 'outbox')
    await database.run(statement(`select stoa.attach('item', 'item', '{id}', '{grp,n}')`))
  if (kind === 'notify') await notifyOf(database, 'item', 'id')
  const feed = kind === 'outbox' ? follow(url) : null
  const update = sql(`update item set n = n + 1, body = $2 where id = $1`)
  return {
    write: async (turn, body) => database.run(update, [1 + ((turn * 48_271) % rows), body(1_000)]),
    [Symbol.asyncDispose]: async () => {
      await feed?.[Symbol.asyncDispose]()
      await database.close()
    },
  }
}

let turn = 0

/** Writes per second of `clients` that write as fast as they can. */
async function rate({ write }: Writer, clients: number): Promise<number> {
  const start = performance.now()
  let count = 0
  const client = async (): Promise<void> => {
    while (performance.now() - start < roundMs) {
      turn += 1
      const from = turn % offsets
      await write(turn, (length) => text.slice(from, from + length))
      count += 1
    }
  }
  await Promise.all(Array.from({ length: clients }, client))
  return (count / (performance.now() - start)) * 1_000
}

type Subject = {
  readonly name: string
  readonly writer: (url: string, kind: Kind) => Promise<Writer>
  readonly rounds: number
  readonly atLeast?: number
}

const subjects: readonly Subject[] = [
  { name: 'entry published', writer: entryWriter, rounds: 21, atLeast: 0.85 },
  { name: 'bare update of a row', writer: rowWriter, rounds: 9 },
]

export const benchmark: Benchmark = {
  claim:
    'Announcing a write by the outbox, in its own transaction, keeps ≥ 0.85 of the rate of ' +
    'writing entries without; NOTIFY in the transaction is measured in the same run, and a ' +
    'bare UPDATE of one row, where an announcement weighs most.',
  run: async (say) => {
    const server = await startTestPostgres({ durable: true })
    const figures: Figure[] = []
    for (const [index, { name, writer, rounds, atLeast }] of subjects.entries()) {
      const urls = { plain: '', outbox: '', notify: '' }
      for (const kind of kinds) urls[kind] = await createDatabase(server.url, `${kind}_${index}`)
      await using writers = new AsyncDisposableStack()
      const writerOf = {
        plain: writers.use(await writer(urls.plain, 'plain')),
        outbox: writers.use(await writer(urls.outbox, 'outbox')),
        notify: writers.use(await writer(urls.notify, 'notify')),
      }
      for (const clients of clientCounts) {
        say(`${name}, ${clients} clients`)
        const measured: Record<Kind, number[]> = { plain: [], outbox: [], notify: [] }
        // Rounds are short and take turns at being first, so that other work of the machine affects
        // all kinds alike.
        for (const kind of kinds) await rate(writerOf[kind], clients)
        for (let round = 0; round < rounds; round += 1) {
          for (let at = 0; at < kinds.length; at += 1) {
            const kind = kinds[(round + at) % kinds.length]!
            measured[kind].push(await rate(writerOf[kind], clients))
          }
        }
        const outbox = compare(measured.plain, measured.outbox)
        const notify = compare(measured.plain, measured.notify)
        figures.push({
          name: `${name}, ${clients} clients, without`,
          value: outbox.baseline,
          unit: '/s',
        })
        figures.push({
          name: `${name}, ${clients} clients, outbox`,
          value: outbox.ratio,
          unit: '×',
          ...(atLeast === undefined ? {} : { atLeast }),
        })
        figures.push({
          name: `${name}, ${clients} clients, NOTIFY`,
          value: notify.ratio,
          unit: '×',
        })
      }
    }
    await server.stop()
    return {
      figures,
      notes: [
        `A server with its durable defaults; ${availableParallelism()} cores shared by server ` +
          `and clients.`,
      ],
    }
  },
}
