import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cache } from '#cache/cache.ts'
import type { FillContext } from '#cache/fill.ts'
import { ChangeFeed } from '#change-feed/feed.ts'
import { sql } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { migrate } from '#database/migrate.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { PostgresServer, replicationMissing } from '#test/support/postgres-server.ts'

const leaseMs = 1_000
const delayMs = 1_500
const rows = 40

const select = sql<{ n: number; port: number }>(
  `select n, inet_server_port() as port from item where id = $1`,
)
const raise = sql<{ n: number }>(`update item set n = n + 1 where id = $1 returning n`)

type Item = { readonly n: number; readonly port: number }

const item =
  (id: number) =>
  async (context: FillContext): Promise<Item> =>
    (await context.row('item', String(id)).run(select, [id]))[0]!

test(
  'fills go to a standby that has replayed all the node knows of, never to one that lags',
  { skip: replicationMissing },
  async () => {
    await using primary = await PostgresServer.primary()
    const database = new PostgresDatabase({
      url: primary.url,
      connectionsMax: 10,
      statementTimeoutMs: 5_000,
      connectTimeoutMs: 5_000,
      logger: silentLogger,
    })
    await migrate(database)
    await database.run({
      text: `create table item (id int primary key, n int not null)`,
      prepare: 'never',
    })
    await database.run({
      text: `select stoa.attach('item', 'item', '{id}', '{}')`,
      prepare: 'never',
    })
    await database.run({
      text: `insert into item select i, 0 from generate_series(1, ${rows}) i`,
      prepare: 'never',
    })
    await using standby = await PostgresServer.standbyOf(primary)
    const replica = new PostgresDatabase({
      url: standby.url,
      wanted: 'standby',
      connectionsMax: 4,
      statementTimeoutMs: 500,
      connectTimeoutMs: 500,
      logger: silentLogger,
    })
    const feed = new ChangeFeed({
      database,
      link: null,
      clock: systemClock,
      logger: silentLogger,
      config: { leaseMs },
    })
    const cache = new Cache({ feed, database, replica })
    const from = { primary: 0, standby: 0 }
    /**
     * Raises a row and reads it, with the token and then without one; then another row that no
     * has read yet.
     */
    const round = async (id: number): Promise<void> => {
      const { value, token } = await feed.write(database, async (tx) => tx.run(raise, [id]))
      const written = value[0]!.n
      for (const options of [{ since: token }, {}]) {
        const found = await cache.get(`item:${id}`, item(id), options)
        assert.ok(
          found.value.n >= written,
          `row ${id} has ${written}, and ${found.value.n} was returned (${found.state}, from ` +
            `${found.value.port === primary.port ? 'the primary' : 'the standby'})`,
        )
        if (found.state === 'filled')
          from[found.value.port === primary.port ? 'primary' : 'standby'] += 1
      }
    }
    const rounds = async (count: number): Promise<void> => {
      for (let at = 0; at < count; at += 1) await round(1 + (at % rows))
    }
    try {
      // Caught up, and time to replay between a poll and the question: the standby serves.
      for (let id = 1; id <= rows; id += 1) {
        await feed.settle(1_000)
        await sleep(30)
        const found = await cache.get(`item:${id}`, item(id))
        assert.equal(found.value.n, 0)
        from[found.value.port === primary.port ? 'primary' : 'standby'] += 1
      }
      assert.ok(from.standby > rows / 2, `only ${from.standby} of ${rows} came from the standby`)
      await rounds(100)

      // It lags by more than the lease. What it has is old, as a query shows; no read
      // is served from it.
      await standby.query(`alter system set recovery_min_apply_delay = '${delayMs}ms'`)
      await standby.query('select pg_reload_conf()')
      const lags = async (): Promise<boolean> => {
        await database.run(raise, [1])
        const [[behind], [now]] = [await replica.run(select, [1]), await database.run(select, [1])]
        return behind!.n < now!.n
      }
      // Its replay takes up the new setting in its own time.
      for (let tries = 1; !(await lags()); tries += 1) {
        assert.ok(tries < 500, 'the standby lags')
        await sleep(10)
      }
      const before = from.standby
      await rounds(200)
      assert.equal(from.standby, before, 'a standby that lags is not read from')
      await sleep(leaseMs)
      for (let id = 1; id <= rows; id += 1)
        assert.equal(
          (await cache.get(`item:${id}`, item(id))).value.n,
          (await database.run(select, [id]))[0]!.n,
        )

      // It is gone: one fill pays for finding out.
      assert.deepEqual(cache.missing, { replica: false, secondLevel: false })
      await standby.kill()
      await rounds(1)
      assert.deepEqual(cache.missing, { replica: true, secondLevel: false })
      const startMs = performance.now()
      await rounds(20)
      assert.ok(performance.now() - startMs < 3_000, 'fills do not wait for a standby that is gone')
    } finally {
      cache.close()
      await feed.stop()
      await Promise.all([replica.close(), database.close()])
    }
  },
)
