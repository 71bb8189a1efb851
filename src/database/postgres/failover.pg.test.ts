import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { DatabaseTimeoutError, DatabaseUnavailableError } from '#database/errors.ts'
import { silentLogger } from '#lib/logger.ts'
import { PostgresServer, replicationMissing } from '#test/support/postgres-server.ts'
import { startProxy } from '#test/support/proxy.ts'

const skip = replicationMissing
const hasOpenssl = spawnSync('openssl', ['version']).status === 0
const insert = sql<{ n: number }>(`insert into item (n) values ($1) returning n`)
const count = sql<{ n: number }>(`select count(*)::int as n from item`)
const where = sql<{ port: number }>(`select inet_server_port() as port`)

function open(
  hosts: readonly PostgresServer[],
  connectTimeoutMs: number,
  statementTimeoutMs = 5_000,
): PostgresDatabase & AsyncDisposable {
  const names = hosts.map((host) => `127.0.0.1:${host.port}`)
  const url = `postgres://postgres@${names.join(',')}/postgres`
  const database = new PostgresDatabase({
    url,
    connectionsMax: 4,
    statementTimeoutMs,
    connectTimeoutMs,
    logger: silentLogger,
  })
  return Object.assign(database, { [Symbol.asyncDispose]: async () => database.close() })
}

test('writes follow the primary, and never reach a read-only server', { skip }, async () => {
  await using first = await PostgresServer.primary()
  await first.query('create table item (n int primary key)')
  await using second = await PostgresServer.standbyOf(first)
  await first.commitOnlyWithStandby()
  await using database = open([second, first], 15_000)
  assert.deepEqual(
    await database.run(where),
    [{ port: first.port }],
    'the standby stands first in the URL, and is passed over',
  )

  // Writers go on through the death of the primary. What was acknowledged is compared with what
  // is there at the end.
  const acknowledged: number[] = []
  const unknown: unknown[] = []
  let next = 0
  const stop = { now: false }
  const writers = Array.from({ length: 4 }, async () => {
    while (!stop.now) {
      next += 1
      const n = next
      try {
        await database.run(insert, [n])
        acknowledged.push(n)
      } catch (error) {
        unknown.push(error)
      }
    }
  })
  while (acknowledged.length < 50) await sleep(10)
  await first.kill()
  await second.promote()
  const before = acknowledged.length
  const until = Date.now() + 20_000
  while (acknowledged.length < before + 50 && Date.now() < until) await sleep(10)
  stop.now = true
  await Promise.all(writers)

  assert.ok(
    acknowledged.length >= before + 50,
    `writes go on after the failover: ${acknowledged.length - before}`,
  )
  for (const error of unknown) assert.ok(error instanceof DatabaseUnavailableError, String(error))
  assert.deepEqual(await database.run(where), [{ port: second.port }])
  const there = new Set((await second.query('select n from item')).map((row) => row['n']))
  assert.deepEqual(
    acknowledged.filter((n) => !there.has(n)),
    [],
    'nothing acknowledged is lost',
  )
})

test('a server that turns read-only under open connections is left at once', { skip }, async () => {
  await using first = await PostgresServer.primary()
  await using second = await PostgresServer.primary()
  for (const server of [first, second]) await server.query('create table item (n int primary key)')
  await second.query('alter system set default_transaction_read_only = on')
  await second.query('select pg_reload_conf()')
  await using database = open([first, second], 5_000)
  await Promise.all(Array.from({ length: 4 }, (_, n) => database.run(insert, [n])))
  // The roles change while all four connections are open and idle.
  await second.query('alter system reset default_transaction_read_only')
  await second.query('select pg_reload_conf()')
  await first.query('alter system set default_transaction_read_only = on')
  await first.query('select pg_reload_conf()')
  await until(
    async () =>
      (await first.query('show default_transaction_read_only'))[0]?.[
        'default_transaction_read_only'
      ] === 'on',
  )
  await until(
    async () =>
      (await second.query('show default_transaction_read_only'))[0]?.[
        'default_transaction_read_only'
      ] === 'off',
  )
  await assert.rejects(
    database.run(insert, [100]),
    (error: unknown) =>
      error instanceof DatabaseUnavailableError && error.facts['code'] === '25006',
  )
  assert.deepEqual(await database.run(where), [{ port: second.port }])
  await Promise.all(Array.from({ length: 4 }, (_, n) => database.run(insert, [200 + n])))
  assert.deepEqual(await first.query('select count(*)::int as n from item'), [{ n: 4 }])
  assert.deepEqual(await database.run(count), [{ n: 4 }])
})

test(
  'a primary that falls silent costs one statement, not one for each connection to it',
  { skip },
  async () => {
    await using first = await PostgresServer.primary()
    await first.query('create table item (n int primary key)')
    await using second = await PostgresServer.standbyOf(first)
    await using network = await startProxy(first.url)
    const hosts = [new URL(network.url).port, second.port].map((port) => `127.0.0.1:${port}`)
    const url = `postgres://postgres@${hosts.join(',')}/postgres`
    const database = new PostgresDatabase({
      url,
      connectionsMax: 4,
      statementTimeoutMs: 500,
      connectTimeoutMs: 10_000,
      logger: silentLogger,
    })
    try {
      await Promise.all(Array.from({ length: 4 }, () => database.run(sql('select pg_sleep(0.2)'))))
      assert.equal(database.usage().idle, 4)
      network.swallowResponses()
      await second.promote()
      await assert.rejects(database.run(where), DatabaseTimeoutError)
      // The search that this began finds the new primary; the three other connections are not
      // tried.
      await until(
        async () =>
          database.usage().idle === 0 ||
          (await database.control.run(where))[0]?.port === second.port,
      )
      assert.deepEqual(
        await Promise.all(Array.from({ length: 4 }, () => database.run(where))),
        Array.from({ length: 4 }, () => [{ port: second.port }]),
      )
    } finally {
      await database.close()
    }
  },
)

test(
  'commits that wait for a standby which is away cost the server no more connections than the ' +
    'node may hold',
  { skip },
  async () => {
    await using server = await PostgresServer.primary()
    await server.query('create table item (n int primary key)')
    await using database = open([server], 1_000, 300)
    await database.run(insert, [0])
    await server.commitOnlyWithStandby()
    for (let round = 0; round < 3; round += 1) {
      const outcomes = await Promise.allSettled(
        Array.from({ length: 4 }, (_, n) => database.run(insert, [1 + round * 4 + n])),
      )
      assert.ok(
        outcomes.every(
          (outcome) =>
            outcome.status === 'rejected' && outcome.reason instanceof DatabaseTimeoutError,
        ),
        JSON.stringify(outcomes),
      )
      const [waiting] = await server.query(
        `select count(*)::int as n from pg_stat_activity where wait_event = 'SyncRep'`,
      )
      assert.deepEqual(waiting, { n: 4 })
    }
    await server.query('alter system reset synchronous_standby_names')
    await server.query('select pg_reload_conf()')
    await until(async () =>
      database.run(count).then(
        () => true,
        () => false,
      ),
    )
    await Promise.all(Array.from({ length: 4 }, (_, n) => database.run(insert, [100 + n])))
  },
)

test(
  'a standby URL that leads to a primary reads nothing there, and the log says so',
  { skip },
  async () => {
    await using primary = await PostgresServer.primary()
    await using standby = await PostgresServer.standbyOf(primary)
    const logged: string[] = []
    const read = async (server: PostgresServer): Promise<object[]> => {
      const database = new PostgresDatabase({
        url: server.url,
        wanted: 'standby',
        connectionsMax: 1,
        statementTimeoutMs: 5_000,
        connectTimeoutMs: 500,
        logger: {
          ...silentLogger,
          warn: (facts, message) =>
            void logged.push(`${message}: ${(facts as { err: Error }).err.message}`),
        },
      })
      try {
        return await database.run(sql('select 1 as one'))
      } finally {
        await database.close()
      }
    }
    await assert.rejects(read(primary), DatabaseUnavailableError)
    assert.match(
      logged.join('\n'),
      /no standby can be read; the primary is read instead: 127.0.0.1:\d+ is the primary/,
    )
    assert.deepEqual(await read(standby), [{ one: 1 }])
    assert.equal(logged.length, 1)
  },
)

test('says which hosts it has asked when none takes writes', { skip }, async () => {
  await using first = await PostgresServer.primary()
  await using second = await PostgresServer.standbyOf(first)
  await first.kill()
  await using database = open([first, second], 600)
  await assert.rejects(database.run(where), (error: unknown) => {
    assert.ok(error instanceof DatabaseUnavailableError)
    assert.match(
      error.message,
      new RegExp(`127.0.0.1:${first.port}.*ECONNREFUSED.*127.0.0.1:${second.port} is a standby`),
    )
    return true
  })
})

test('a wait that the end of an outage falls into is only a delay', { skip }, async () => {
  await using server = await PostgresServer.primary()
  await server.query('create table item (n int primary key)')
  await using database = open([server], 15_000)
  await database.run(insert, [1])
  await server.kill()
  const waiting = Array.from({ length: 20 }, async () =>
    database.transaction(async (tx) => tx.run(count)).catch((error: unknown) => error),
  )
  await sleep(200)
  await server.start()
  const results = await Promise.all(waiting)
  const refused = results.filter((result) => result instanceof Error)
  // Those that were given a connection of before the outage learn that it broke; all others waited.
  assert.ok(refused.length <= 1, `${refused.length} of 20 refused: ${String(refused[0])}`)
  assert.deepEqual(await database.run(count), [{ n: 1 }])
})

test('a database that comes and goes is not logged each time', { skip }, async () => {
  await using server = await PostgresServer.primary()
  await using network = await startProxy(server.url)
  const said: string[] = []
  const note = (_facts: object, message: string): void => void said.push(message)
  const database = new PostgresDatabase({
    url: network.url,
    connectionsMax: 1,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 200,
    logger: { ...silentLogger, warn: note, info: note },
  })
  try {
    for (let time = 0; time < 5; time += 1) {
      network.heal()
      await until(async () =>
        database.run(where).then(
          () => true,
          () => false,
        ),
      )
      network.refuse()
      await until(async () =>
        database.run(where).then(
          () => false,
          () => true,
        ),
      )
      await assert.rejects(database.run(where), DatabaseUnavailableError)
    }
  } finally {
    await database.close()
  }
  assert.deepEqual(said, [
    'the database cannot be reached',
    'the database is back',
    'the database cannot be reached',
  ])
})

test(
  'sslmode means what libpq says: require encrypts, verify-full checks the certificate',
  { skip: skip === false && !hasOpenssl ? 'no openssl here' : skip },
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'stoa-tls-'))
    try {
      const [certificate, key] = [join(folder, 'crt'), join(folder, 'key')]
      const request = [
        'req',
        '-x509',
        '-newkey',
        'rsa:2048',
        '-nodes',
        '-days',
        '2',
        '-subj',
        '/CN=localhost',
        '-addext',
        'subjectAltName=DNS:localhost',
      ]
      execFileSync('openssl', [...request, '-out', certificate, '-keyout', key], {
        stdio: 'ignore',
      })
      await using server = await PostgresServer.primary()
      await server.offerTls(certificate, key)
      const encrypted = async (host: string, parameters: string): Promise<unknown> => {
        const url = `postgres://postgres@${host}:${server.port}/postgres?${parameters}`
        const database = new PostgresDatabase({
          url,
          connectionsMax: 1,
          statementTimeoutMs: 5_000,
          connectTimeoutMs: 1_500,
          logger: silentLogger,
        })
        try {
          return (
            await database.run(
              sql<{ ssl: boolean }>('select ssl from pg_stat_ssl where pid = pg_backend_pid()'),
            )
          )[0]?.ssl
        } catch (error) {
          return error
        } finally {
          await database.close()
        }
      }
      assert.equal(await encrypted('127.0.0.1', 'sslmode=disable'), false)
      assert.equal(await encrypted('127.0.0.1', 'sslmode=require'), true)
      assert.equal(
        await encrypted('localhost', `sslmode=verify-full&sslrootcert=${certificate}`),
        true,
      )
      assert.ok(
        (await encrypted('127.0.0.1', `sslmode=verify-full&sslrootcert=${certificate}`)) instanceof
          DatabaseUnavailableError,
        'another name',
      )
      assert.ok(
        (await encrypted('localhost', 'sslmode=verify-full')) instanceof DatabaseUnavailableError,
        'signed by an unknown authority',
      )
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
)

async function until(check: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error('it did not come')
    await sleep(20)
  }
}
