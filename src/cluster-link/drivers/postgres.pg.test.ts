import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { linkContract } from '#cluster-link/contract.ts'
import { LinkUnavailableError } from '#cluster-link/errors.ts'
import { PostgresClusterLink } from '#cluster-link/drivers/postgres.ts'
import { primaryConnector } from '#database/postgres/primary-connector.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'
import { startProxy } from '#test/support/proxy.ts'

function linkTo(url: string): PostgresClusterLink {
  return new PostgresClusterLink({
    connect: primaryConnector({ url, applicationName: 'stoa test link' }),
    logger: silentLogger,
  })
}

linkContract('PostgreSQL NOTIFY', {
  skip: databaseMissing,
  open: async (count) => {
    const db = await testDatabase({ migrated: false })
    const links = Array.from({ length: count }, () => linkTo(db.url))
    // A link that is still connecting receives nothing yet: losing that is allowed, but not what is
    // tested here.
    await Promise.all(links.map((link) => link.send('warm', 'x')))
    return {
      links,
      [Symbol.asyncDispose]: async () => {
        await Promise.all(links.map((link) => link.close()))
        await db[Symbol.asyncDispose]()
      },
    }
  },
})

test(
  'PostgreSQL NOTIFY: a broken connection is made again by itself',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    const link = linkTo(db.url)
    await link.send('feed', 'x')
    await db.database.run(
      sql(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()
           and (query like 'listen%' or query like '%pg_notify%')`,
      ),
    )
    const deadline = Date.now() + 10_000
    for (;;) {
      try {
        await link.send('feed', 'again')
        break
      } catch (error) {
        if (Date.now() > deadline) throw error
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
    assert.equal(link.connected, true)
    await link.close()
  },
)

test(
  'PostgreSQL NOTIFY: connections that end at once are not made anew all the time, nor all logged',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    const connect = primaryConnector({ url: db.url, applicationName: 'stoa test link' })
    let connections = 0
    const said: string[] = []
    const note = (_facts: object, message: string): void => void said.push(message)
    const link = new PostgresClusterLink({
      connect: async () => {
        const client = await connect()
        connections += 1
        setTimeout(() => client.connection.stream.destroy(), 50)
        return client
      },
      logger: { ...silentLogger, warn: note, info: note },
    })
    await new Promise((resolve) => setTimeout(resolve, 4_000))
    await link.close()
    assert.ok(connections >= 3 && connections <= 7, `${connections} connections`)
    assert.ok(said.length <= 3, said.join('; '))
  },
)

test(
  'PostgreSQL NOTIFY: finds the primary among hosts, and leaves a connection that swallows all',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using network = await startProxy(db.url)
    const closed = await freePort()
    const url = network.url.replace('@', `@127.0.0.1:${closed},`)
    const link = linkTo(url)
    const other = linkTo(db.url)
    await Promise.all([link.send('feed', 'x'), other.send('feed', 'x')])
    network.swallowResponses()
    await assert.rejects(link.send('feed', 'lost'), LinkUnavailableError)
    network.heal()
    const received: string[] = []
    other.listen('feed', (text) => received.push(text))
    const deadline = Date.now() + 10_000
    while (!received.includes('again')) {
      assert.ok(Date.now() < deadline, 'the link does not come back')
      await link.send('feed', 'again').catch(() => undefined)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await Promise.all([link.close(), other.close()])
  },
)

test(
  'PostgreSQL NOTIFY: closing does not wait for a server that does not respond',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using network = await startProxy(db.url)
    const link = linkTo(network.url)
    await link.send('feed', 'x')
    network.silence()
    const late = Symbol('late')
    const timer = Promise.withResolvers<symbol>()
    const alarm = setTimeout(() => timer.resolve(late), 4_000)
    assert.notEqual(await Promise.race([link.close(), timer.promise]), late)
    clearTimeout(alarm)
  },
)
