import { availableParallelism } from 'node:os'
import { ChangeFeed } from '#change-feed/feed.ts'
import { sql } from '#database/database.ts'
import type { Database, Statement } from '#database/database.ts'
import { PostgresDatabase } from '#database/drivers/postgres.ts'
import { migrate } from '#database/migrate.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { startTestPostgres } from '#test/support/database.ts'
import { compare } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

const rounds = 15
const roundMs = 600
const rows = 10_000
/** Bodies are cut from it at another place each time: of one that stays the same the server would log nothing. */
const text = Array.from({ length: 2_000 }, (_, at) => String.fromCharCode(97 + (((at * 7_919) % 2_003) % 23))).join('')

const kinds = ['plain', 'outbox', 'notify'] as const
type Kind = (typeof kinds)[number]

const updates: Record<Kind, Statement<object>> = {
  plain: sql(`update plain_item set n = n + 1, body = $2 where id = $1`),
  outbox: sql(`update outbox_item set n = n + 1, body = $2 where id = $1`),
  notify: sql(`update notify_item set n = n + 1, body = $2 where id = $1`),
}

async function prepare(database: Database): Promise<void> {
  await migrate(database, { only: ['0004-cluster', '0007-change-times', '0010-row-changes', '0021-change-text', '0022-change-values'] })
  for (const kind of kinds) {
    await database.run({ text: `create table ${kind}_item (id int primary key, n int not null, grp int not null, body text not null)`, name: null })
    await database.run({ text: `insert into ${kind}_item select i, 0, i % 20, repeat('x', 1000) from generate_series(1, ${rows}) i`, name: null })
  }
  await database.run({ text: `select stoa.attach('outbox_item', 'item', '{id}', '{grp,n}')`, name: null })
  await database.run({ text: `create function tell() returns trigger language plpgsql as $$ begin perform pg_notify('bench', new.id::text); return null; end $$`, name: null })
  await database.run({ text: `create trigger tell after update on notify_item for each row execute function tell()`, name: null })
}

/** Committed transactions per second of `clients` that write as fast as they can. */
async function rate(database: Database, kind: Kind, clients: number): Promise<number> {
  const start = performance.now()
  let count = 0
  const client = async (seed: number): Promise<void> => {
    for (let at = seed; performance.now() - start < roundMs; at = (at * 48_271 + 11) % 2_147_483_647) {
      const from = (at + count) % 1_000
      await database.run(updates[kind], [1 + (at % rows), text.slice(from, from + 1_000)])
      count += 1
    }
  }
  await Promise.all(Array.from({ length: clients }, async (_, index) => client(index * 7_919 + 1)))
  return (count / (performance.now() - start)) * 1_000
}

export const benchmark: Benchmark = {
  claim: 'Writing the outbox in the same transaction keeps ≥ 0.85 of the throughput without it; NOTIFY in the transaction is beside it in the same run.',
  run: async (say) => {
    const server = await startTestPostgres({ durable: true })
    const database = new PostgresDatabase({ url: server.url, connectionsMax: 64, statementTimeoutMs: 30_000, connectTimeoutMs: 30_000, logger: silentLogger })
    await prepare(database)
    // As in a cluster: somebody reads the outbox while it is written.
    const polling = new PostgresDatabase({ url: server.url, connectionsMax: 3, statementTimeoutMs: 5_000, connectTimeoutMs: 5_000, logger: silentLogger })
    const feed = new ChangeFeed({ database: polling, link: null, clock: systemClock, logger: silentLogger })
    const figures: Figure[] = []
    for (const clients of [1, 8, 32, 64]) {
      say(`${clients} clients`)
      const measured: Record<Kind, number[]> = { plain: [], outbox: [], notify: [] }
      // Rounds are short and take turns at being first, so that what else the machine does meets all kinds alike.
      for (const kind of kinds) await rate(database, kind, clients)
      for (let round = 0; round < rounds; round += 1) {
        for (let turn = 0; turn < kinds.length; turn += 1) {
          const kind = kinds[(round + turn) % kinds.length]!
          measured[kind].push(await rate(database, kind, clients))
        }
      }
      const outbox = compare(measured.plain, measured.outbox)
      const notify = compare(measured.plain, measured.notify)
      figures.push({ name: `without, ${clients} clients`, value: outbox.baseline, unit: 'tps' })
      figures.push({ name: `with the outbox, ${clients} clients`, value: outbox.ratio, unit: '×', atLeast: 0.85 })
      figures.push({ name: `with NOTIFY in the transaction, ${clients} clients`, value: notify.ratio, unit: '×' })
    }
    await feed.stop()
    await polling.close()
    await database.close()
    await server.stop()
    return { figures, notes: [`A server with its durable defaults; ${availableParallelism()} cores shared by server and clients.`] }
  },
}
