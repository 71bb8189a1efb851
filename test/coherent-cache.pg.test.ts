import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'

test(
  'the example: two processes on an empty database, and every read with a token sees the write',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    const ports = [await freePort(), await freePort()]
    const children = ports.map((port) =>
      spawn(process.execPath, ['examples/coherent-cache.ts'], {
        env: { ...process.env, DATABASE_URL: db.url, PORT: String(port) },
        stdio: ['ignore', 'pipe', 'inherit'],
      }),
    )
    try {
      const ready = await Promise.all(
        children.map(async (child) =>
          Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => null)]),
        ),
      )
      assert.ok(
        ready.every((said) => said !== null),
        'a process ended before it listened',
      )
      for (let round = 0; round < 50; round += 1) {
        const [writer, reader] = round % 2 === 0 ? ports : ports.toReversed()
        const written = await fetch(`http://127.0.0.1:${writer}/articles/1`, {
          method: 'PUT',
          body: `title ${round}`,
        })
        const token = written.headers.get('token')
        assert.ok(token !== null && written.status === 204)
        const read = await fetch(`http://127.0.0.1:${reader}/articles/1`, { headers: { token } })
        assert.equal(await read.text(), `title ${round}`)
      }
      const again = await fetch(`http://127.0.0.1:${ports[0]}/articles/1`)
      await again.text()
      const hit = await fetch(`http://127.0.0.1:${ports[0]}/articles/1`)
      assert.equal(hit.headers.get('cache-status'), 'stoa; hit')
      assert.equal(await hit.text(), 'title 49')
      assert.equal((await fetch(`http://127.0.0.1:${ports[1]}/articles/nothing`)).status, 404)
    } finally {
      await Promise.all(
        children.map(async (child) => {
          if (child.exitCode !== null) return
          const ended = once(child, 'exit')
          child.kill('SIGTERM')
          await ended
        }),
      )
    }
  },
)
