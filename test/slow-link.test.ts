import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram, withoutSettings } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'
import { startProxy } from '#test/support/proxy.ts'

/** A node does not contradict the write that it has just acknowledged, however slow its link is. */

const leaseMs = 2_000
/** Every response of the database is late by this: two statements are later than half a second. */
const lateMs = 300
const attemptsMax = 100
const password = 'a long enough password 42'

type Reply = { readonly status: number; readonly json: SiteJson; readonly cookie: string }
// The response of any route: only the test knows its shape.
// oxlint-disable-next-line typescript/no-explicit-any
type SiteJson = any
type Request = (method: string, path: string, sent?: Sent) => Promise<Reply>
type Sent = { readonly body?: object; readonly headers?: Readonly<Record<string, string>> }

/** A 503 acknowledges nothing: the request is repeated. */
function requestsTo({ origin }: RunningNode): Request {
  return async (method, path, { body, headers = {} } = {}) => {
    const json = body === undefined ? {} : { 'content-type': 'application/json' }
    const init = {
      method,
      headers: { ...json, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }
    let response = await fetch(`${origin}${path}`, init)
    for (let attempt = 1; response.status === 503 && attempt < attemptsMax; attempt += 1) {
      await sleep(200)
      response = await fetch(`${origin}${path}`, init)
    }
    const text = await response.text()
    const cookie = response.headers.getSetCookie().map((one) => one.split(';', 1)[0])
    const isJson = (response.headers.get('content-type') ?? '').includes('json')
    return {
      status: response.status,
      json: text !== '' && isJson ? JSON.parse(text) : null,
      cookie: cookie.join('; '),
    }
  }
}

/** Each write, and the read that must show it, on one node without any token. */
async function contradictions(request: Request, authorization: string): Promise<string[]> {
  const wrong: string[] = []
  const headers = { authorization }
  const written = async (method: string, path: string, body?: object): Promise<SiteJson> => {
    const reply = await request(method, path, body === undefined ? { headers } : { body, headers })
    assert.ok(
      reply.status < 300,
      `${method} ${path}: ${reply.status} ${JSON.stringify(reply.json)}`,
    )
    return reply.json?.data
  }
  const { id } = await written('POST', '/api/content/note', {
    fields: { title: '0' },
    publish: true,
  })
  const shown = async (): Promise<string> =>
    (await request('GET', `/api/content/note/${id}`)).json?.data?.fields.title
  await shown()
  for (let round = 1; round <= 3; round += 1) {
    const body = { fields: { title: String(round) }, publish: true }
    await written('PATCH', `/api/content/note/${id}`, body)
    const title = await shown()
    if (title !== String(round)) wrong.push(`round ${round} of an entry showed ${title}`)
  }
  const { token, info } = await written('POST', '/api/tokens', {
    name: 'deleted',
    roles: ['administrator'],
  })
  const withToken = { headers: { authorization: `Bearer ${token}` } }
  const isTaken = await request('GET', '/api/content/note', withToken)
  if (isTaken.status !== 200) wrong.push(`a token that was just made: ${isTaken.status}`)
  await written('DELETE', `/api/tokens/${info.id}`)
  for (const path of ['/api/content/note', '/api/content/note', '/api/session']) {
    const { status } = await request('GET', path, withToken)
    if (status !== 401) wrong.push(`a deleted token on ${path}: ${status}`)
  }
  const email = `${id}@example.com`
  await written('POST', '/api/users', { email, name: 'Ada', password, roles: ['editor'] })
  const signedIn = await request('POST', '/api/session', { body: { email, password } })
  assert.equal(signedIn.status, 201, JSON.stringify(signedIn.json))
  const session = { cookie: signedIn.cookie, 'x-csrf-token': signedIn.json.data.csrfToken }
  const before = await request('GET', '/api/session', { headers: session })
  if (before.json?.data?.user?.email !== email) wrong.push('not signed in after signing in')
  const out = await request('DELETE', '/api/session', { headers: session })
  assert.equal(out.status, 204)
  const after = await request('GET', '/api/session', { headers: session })
  if ((after.json?.data?.user ?? null) !== null) wrong.push('signed in after signing out')
  return wrong
}

test(
  'a node shows what it has acknowledged, on a slow link and just after an outage',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using network = await startProxy(db.url)
    await using node = await startNode({
      environment: { STOA_DATABASE_URL: network.url, STOA_LEASE_MS: String(leaseMs) },
    })
    const made = execFileSync(
      process.execPath,
      [stoaProgram, '--json', 'token', 'create', 'administrator', '--role', 'administrator'],
      {
        env: { ...withoutSettings, ...node.environment, STOA_DATABASE_URL: db.url },
        encoding: 'utf8',
      },
    )
    const authorization = `Bearer ${(JSON.parse(made) as { token: string }).token}`
    const request = requestsTo(node)
    const type = { label: 'Note', fields: [{ name: 'title', kind: 'text' }] }
    const defined = await request('PUT', '/api/types/note', {
      body: type,
      headers: { authorization },
    })
    assert.ok(defined.status < 300, JSON.stringify(defined.json))
    network.delay(lateMs)
    assert.deepEqual(await contradictions(request, authorization), [])
    network.delay(0)
    network.silence()
    await sleep(1.5 * leaseMs)
    network.heal()
    const users = await request('GET', '/api/users', { headers: { authorization } })
    assert.equal(users.status, 200, 'the node is back')
    assert.deepEqual(await contradictions(request, authorization), [])
  },
)
