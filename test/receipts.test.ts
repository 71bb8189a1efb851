import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram } from '#test/support/node.ts'

/**
 * Three real nodes: a write that waits for the cluster is seen everywhere at once, and its receipt
 * is true.
 */

type Written = {
  readonly status: number
  readonly token: string
  readonly applied: string | null
  readonly tookMs: number
}

test(
  'Prefer: wait=cluster, and receipts, with three nodes of which one is stopped',
  { skip },
  async () => {
    await using db = await testDatabase()
    const environment = { STOA_DATABASE_URL: db.url, STOA_STARTER: 'false', STOA_LOG_LEVEL: 'warn' }
    await using one = await startNode({ environment: { ...environment, STOA_NODE: 'one' } })
    await using two = await startNode({
      environment: { ...environment, STOA_NODE: 'two' },
      dataDir: one.dataDir,
    })
    await using three = await startNode({
      environment: { ...environment, STOA_NODE: 'three' },
      dataDir: one.dataDir,
    })
    const made = execFileSync(
      process.execPath,
      [stoaProgram, '--json', 'token', 'create', 'test', '--role', 'administrator'],
      { env: { ...process.env, ...one.environment }, encoding: 'utf8' },
    )
    const authorization = `Bearer ${(JSON.parse(made) as { token: string }).token}`
    const send = async (
      method: string,
      url: string,
      body: unknown,
      headers: Record<string, string> = {},
    ): Promise<Written> => {
      const startedMs = performance.now()
      const response = await fetch(url, {
        method,
        headers: { authorization, 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body),
      })
      const text = await response.text()
      assert.ok(response.status < 300, `${method} ${url}: ${response.status} ${text}`)
      return {
        status: response.status,
        token: response.headers.get('stoa-token') ?? '',
        applied: response.headers.get('preference-applied'),
        tookMs: performance.now() - startedMs,
      }
    }
    const receipt = async (
      token: string,
    ): Promise<{
      everywhere: boolean
      nodes: { name: string; applied: boolean; appliedAt: string | null; problem: string | null }[]
    }> => {
      const response = await fetch(`${two.origin}/api/receipts/${token}`, {
        headers: { authorization },
      })
      assert.equal(response.status, 200)
      return ((await response.json()) as { data: Awaited<ReturnType<typeof receipt>> }).data
    }
    await send('PUT', `${one.origin}/api/types/note`, {
      name: 'note',
      label: 'Note',
      fields: [{ name: 'title', kind: 'text' }],
    })
    const id = '0197a000-0000-7000-8000-00000000000a'
    await send('POST', `${one.origin}/api/content/note`, {
      id,
      fields: { title: '0' },
      publish: true,
    })
    const titleOn = async (origin: string): Promise<string> =>
      (
        (await (await fetch(`${origin}/api/content/note/${id}`)).json()) as {
          data: { fields: { title: string } }
        }
      ).data.fields.title
    const waiting = { prefer: 'wait=cluster' }
    let last: Written | null = null
    for (let round = 1; round <= 30; round += 1) {
      const writer = [one, two, three][round % 3]!
      await Promise.all([one, two, three].map((node) => titleOn(node.origin)))
      last = await send(
        'PATCH',
        `${writer.origin}/api/content/note/${id}`,
        { fields: { title: String(round) }, publish: true },
        waiting,
      )
      assert.equal(last.applied, 'wait=cluster')
      assert.deepEqual(
        await Promise.all([one, two, three].map((node) => titleOn(node.origin))),
        [String(round), String(round), String(round)],
        'no token, and no node responds with an older version',
      )
    }
    const whole = await receipt(last!.token)
    assert.deepEqual(
      [
        whole.everywhere,
        whole.nodes.map((node) => node.name).sort(),
        whole.nodes.every((node) => node.appliedAt !== null),
      ],
      [true, ['one', 'three', 'two'], true],
    )
    three.process.kill('SIGSTOP')
    try {
      const late = await send(
        'PATCH',
        `${one.origin}/api/content/note/${id}`,
        { fields: { title: 'late' }, publish: true },
        waiting,
      )
      assert.ok(
        late.tookMs >= 900,
        `it waited for the lease of the stopped node to end, not ${late.tookMs} ms`,
      )
      const partial = await receipt(late.token)
      assert.equal(partial.everywhere, false)
      assert.deepEqual(
        partial.nodes
          .filter((node) => !node.applied)
          .map((node) => [node.name, node.problem !== null]),
        [['three', true]],
      )
      three.process.kill('SIGCONT')
      assert.equal(
        await titleOn(three.origin),
        'late',
        'its first response is not from before it was stopped',
      )
      for (let tries = 0; !(await receipt(late.token)).everywhere; tries += 1) {
        assert.ok(tries < 50, 'the receipt is complete in the end')
        await sleep(100)
      }
    } finally {
      three.process.kill('SIGCONT')
    }
    const strange = await fetch(`${two.origin}/api/receipts/strange`, {
      headers: { authorization },
    })
    assert.equal(strange.status, 404)
  },
)
