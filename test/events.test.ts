import assert from 'node:assert/strict'
import { test } from 'node:test'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'
import { EventClient } from '#test/support/event-client.ts'
import { startNode, stoaProgram, temporaryFolder } from '#test/support/node.ts'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

/** A client of `/api/events` goes from node to node while they are killed, and misses nothing. */

const writesAfterKill = 15

test('nodes are killed one after the other, and a client misses no event', { skip }, async () => {
  await using db = await testDatabase()
  await using files = await temporaryFolder()
  const environment = {
    STOA_DATABASE_URL: db.url,
    STOA_FILES_URL: `file://${files.path}`,
    STOA_STARTER: 'false',
    STOA_SECRET: 'a secret of a test, which is long enough',
  }
  await using nodes = new AsyncDisposableStack()
  const start = async (name: string) =>
    nodes.use(await startNode({ environment: { ...environment, STOA_NODE: name } }))
  const first = await start('one')
  const living = [first, await start('two')]
  const env = { ...process.env, ...first.environment }
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [stoaProgram, 'token', 'create', 'writer', '--role', 'administrator', '--json'],
    { env },
  )
  const { token } = JSON.parse(stdout) as { token: string }
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const send = async (method: string, path: string, body: object): Promise<string> => {
    const response = await fetch(`${living.at(-1)!.origin}${path}`, {
      method,
      headers,
      body: JSON.stringify(body),
    })
    const text = await response.text()
    assert.ok(response.ok, text)
    return text
  }
  await send('PUT', '/api/types/note', {
    label: 'Note',
    fields: [{ name: 'title', kind: 'text', required: true }],
  })
  await using client = await new EventClient(() =>
    living.map(({ origin }) => `${origin}/api/events`),
  ).begun()
  const written: string[] = []
  const write = async (): Promise<void> => {
    const body = { fields: { title: `note ${written.length}` }, publish: true }
    const { data } = JSON.parse(await send('POST', '/api/content/note', body))
    written.push(data.id)
  }
  for (const name of ['three', 'four']) {
    const writing = (async () => {
      for (let n = 0; n < writesAfterKill; n += 1) await write()
    })()
    const victim = living.shift()!
    victim.process.kill('SIGKILL')
    await writing
    living.push(await start(name))
    await write()
  }
  await client.until(({ events }) => events.length >= written.length, 'all events')
  assert.deepEqual(client.events.map(({ data }) => data.entry).sort(), written.sort())
  assert.ok(client.connections > 1, 'it went from node to node')
})
