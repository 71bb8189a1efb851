import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { silentLogger } from '#lib/logger.ts'

const welcome = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49])
/** A row, and a description of rows, of 32,767 columns in six bytes; a message of no kind. */
const nonsense = [
  [0x44, 0, 0, 0, 6, 0x7f, 0xff],
  [0x54, 0, 0, 0, 6, 0x7f, 0xff],
  [0, 0, 0, 0, 4],
]

test('a server that sends nonsense cannot be reached, and ends no process', async () => {
  for (const bytes of nonsense) {
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.once('data', () => {
        socket.write(welcome)
        socket.on('data', () => socket.write(Buffer.from(bytes)))
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const database = new PostgresDatabase({
      url: `postgres://x@127.0.0.1:${port}/x`,
      connectionsMax: 1,
      statementTimeoutMs: 500,
      connectTimeoutMs: 500,
      logger: silentLogger,
    })
    await assert.rejects(database.run(sql('select 1')), DatabaseUnavailableError)
    await database.close()
    server.close()
  }
})
