import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram, temporaryFolder, withoutSettings } from '#test/support/node.ts'

/** A whole node whose machine is a day ahead, beside one whose clock is right. */

const dayMs = 24 * 60 * 60 * 1_000
const password = 'a long enough password 42'

/** Loaded before the program: every date of the process is a day ahead. */
const shifted = `
  const Real = Date
  globalThis.Date = class extends Real {
    constructor(...values) {
      super(...(values.length === 0 ? [Real.now() + ${dayMs}] : values))
    }
    static now() {
      return Real.now() + ${dayMs}
    }
  }
`

// The response of any route: only the test knows its shape.
// oxlint-disable-next-line typescript/no-explicit-any
type Json = any

async function send(
  url: string,
  sent: { method?: string; body?: object; headers?: Record<string, string> } = {},
): Promise<{ status: number; json: Json; cookie: string }> {
  const { method = 'GET', body, headers = {} } = sent
  const response = await fetch(url, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  const cookie = response.headers.getSetCookie().map((one) => one.split(';', 1)[0])
  return {
    status: response.status,
    json: text === '' ? null : JSON.parse(text),
    cookie: cookie.join('; '),
  }
}

test(
  'a node whose machine is a day ahead decides by the time of the database',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using folder = await temporaryFolder()
    const shim = join(folder.path, 'tomorrow.mjs')
    await writeFile(shim, shifted)
    const environment = { STOA_DATABASE_URL: db.url, STOA_STARTER: 'false' }
    await using right = await startNode({ environment: { ...environment, STOA_NODE: 'right' } })
    await using ahead = await startNode({
      environment: { ...environment, STOA_NODE: 'ahead', NODE_OPTIONS: `--import=${shim}` },
      dataDir: right.dataDir,
    })
    const made = execFileSync(
      process.execPath,
      [stoaProgram, '--json', 'token', 'create', 'administrator', '--role', 'administrator'],
      { env: { ...withoutSettings, ...right.environment }, encoding: 'utf8' },
    )
    const headers = { authorization: `Bearer ${(JSON.parse(made) as { token: string }).token}` }
    const isToday = (text: string): boolean => Math.abs(Date.parse(text) - Date.now()) < dayMs / 2

    const type = { label: 'Note', fields: [{ name: 'title', kind: 'text' }] }
    assert.equal(
      (await send(`${ahead.origin}/api/types/note`, { method: 'PUT', body: type, headers })).status,
      201,
    )
    const entry = await send(`${ahead.origin}/api/content/note`, {
      method: 'POST',
      body: { fields: { title: 'A' }, publish: true },
      headers,
    })
    assert.ok(isToday(entry.json.data.publishedAt), entry.json.data.publishedAt)
    const dueAt = new Date(Date.now() + 3_600_000).toISOString()
    const scheduled = await send(
      `${ahead.origin}/api/content/note/${entry.json.data.id}/schedule`,
      {
        method: 'POST',
        body: { action: 'unpublish', dueAt },
        headers,
      },
    )
    assert.equal(scheduled.status, 201, 'what is due in an hour is not past')

    const user = { email: 'ada@example.com', name: 'Ada', password, roles: ['editor'] }
    assert.equal(
      (await send(`${right.origin}/api/users`, { method: 'POST', body: user, headers })).status,
      201,
    )
    for (const [one, other] of [
      [right, ahead],
      [ahead, right],
    ] as const) {
      const { status, json, cookie } = await send(`${one.origin}/api/session`, {
        method: 'POST',
        body: { email: user.email, password },
      })
      assert.equal(status, 201)
      assert.ok(Date.parse(json.data.expiresAt) < Date.now() + 14.5 * dayMs)
      const session = await send(`${other.origin}/api/session`, { headers: { cookie } })
      assert.equal(session.json.data.user.email, user.email, 'a session holds on both nodes')
      assert.equal(session.cookie, '', 'its cookie stays')
    }

    const { json } = await send(`${right.origin}/api/cluster`, { headers })
    const seen = json.data.nodes.find((node: Json) => node.name === 'ahead')
    assert.ok(Math.abs(seen.report.clockSkewMs - dayMs) < 60_000, String(seen.report.clockSkewMs))
    assert.deepEqual(seen.duties, [], 'it leads nothing')
    assert.match(JSON.stringify(json.data.degraded), /clock/)
    await ahead.printed(/clock/)
  },
)
