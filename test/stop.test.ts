import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { sql } from '#database/database.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram } from '#test/support/node.ts'

const roundsMax = 200
const pauseMs = 50

test(
  'a node that builds an index, which waits for a table, leaves all the same when it is stopped',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using node = await startNode({
      environment: { STOA_DATABASE_URL: db.url, STOA_STARTER: 'false' },
    })
    const env = { PATH: process.env['PATH'] ?? '', ...node.environment }
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [stoaProgram, '--json', 'token', 'create', 'administrator', '--role', 'administrator'],
      { env },
    )
    const { token } = JSON.parse(stdout) as { token: string }
    const send = async (
      method: string,
      path: string,
      content: object,
      headers: Readonly<Record<string, string>> = {},
    ): Promise<Response> => {
      const response = await fetch(`${node.origin}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${token}`,
          'content-type': 'application/json',
          ...headers,
        },
        body: JSON.stringify(content),
      })
      assert.ok(response.ok, await response.clone().text())
      return response
    }
    const type = (filterable: boolean): object => ({
      name: 'note',
      label: 'Note',
      fields: [{ name: 'n', kind: 'number', filterable }],
    })
    const made = await send('PUT', '/api/types/note', type(false))
    await send('POST', '/api/content/note', { fields: { n: 1 }, publish: true })
    const client = new pg.Client({ connectionString: db.url })
    await client.connect()
    try {
      await client.query('begin')
      await client.query('lock table stoa.version in share update exclusive mode')
      await send('PUT', '/api/types/note', type(true), {
        'if-match': made.headers.get('etag') ?? '',
      })
      const building = sql(
        `select 1 from pg_stat_activity where query like 'create index%'
           and state = 'active' and datname = current_database()`,
      )
      for (let round = 0; (await db.database.run(building)).length === 0; round += 1) {
        assert.ok(round < roundsMax, 'no index is built')
        await sleep(pauseMs)
      }
      // Which kills it when it does not end, and then there is no status.
      assert.equal(await node.stop(), 0)
      assert.match(node.output(), /background work did not end in time/)
      assert.deepEqual(await db.database.run(sql('select id from stoa.node')), [], 'it has left')
    } finally {
      await client.end()
    }
  },
)
