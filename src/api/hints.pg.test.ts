import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'

const writes: readonly (readonly [string, string, object?])[] = [
  ['PATCH', '', { fields: { title: 'A' } }],
  ['PUT', '', { fields: { title: 'A' } }],
  ['DELETE', ''],
  ['POST', '/publish'],
  ['POST', '/unpublish'],
  ['POST', '/archive'],
  ['POST', '/unarchive'],
  ['POST', '/restore', { version: 1 }],
  ['GET', '/versions'],
  ['GET', '/versions/1'],
  ['GET', '/schedule'],
  ['POST', '/schedule', { action: 'publish', dueAt: '2099-01-01T00:00:00Z' }],
]

test(
  'a slug where only an id is taken is refused with the way to the id',
  { skip: databaseMissing },
  async () => {
    await using site = await testSite()
    await site.request('PUT', '/api/types/thing', {
      body: {
        label: 'Thing',
        fields: [
          { name: 'title', kind: 'text' },
          { name: 'slug', kind: 'slug', from: 'title' },
        ],
      },
    })
    site.forgetDocument()
    await site.request('POST', '/api/content/thing', {
      body: { fields: { title: 'My slug' }, publish: true },
    })
    for (const [method, path, body] of writes) {
      const url = `/api/content/thing/my-slug${path}`
      const refused = await site.request(method, url, body === undefined ? {} : { body })
      assert.equal(refused.json.code, 'E_ENTRY_NOT_FOUND', `${method} ${url}`)
      assert.match(refused.json.detail, /GET \/api\/content\/thing\/my-slug shows/, url)
    }
    const { json } = await site.get('/api/content/thing/my-slug')
    assert.equal(json.data.fields.title, 'My slug')
    const missing = await site.get('/api/content/thing/no-such-slug')
    assert.doesNotMatch(missing.json.detail, /takes the id/)
  },
)

test('the document names the headers of reads and writes', { skip: databaseMissing }, async () => {
  await using site = await testSite()
  const { paths } = await site.document()
  const namesOf = (method: string): Set<string> => {
    const { parameters, responses } = paths['/api/content/{type}/{id}']![method] as {
      readonly parameters: readonly { readonly name: string }[]
      readonly responses: { readonly 200: { readonly headers: object } }
    }
    return new Set([...parameters.map(({ name }) => name), ...Object.keys(responses[200].headers)])
  }
  const read = namesOf('get')
  for (const name of ['Stoa-Token', 'If-None-Match', 'ETag', 'Cache-Status', 'Age'])
    assert.ok(read.has(name), `GET has ${name}`)
  const write = namesOf('patch')
  for (const name of ['Stoa-Token', 'Prefer', 'Idempotency-Key', 'If-Match', 'ETag'])
    assert.ok(write.has(name), `PATCH has ${name}`)
  assert.ok(write.has('Preference-Applied') && write.has('Idempotency-Replayed'))
})

test(
  'raw UTF-8 in a URL and a line break in a header have sentences of their own',
  { skip: databaseMissing },
  async () => {
    await using site = await testSite()
    const origin = await site.server.listen({ host: '127.0.0.1', port: 0 })
    const port = Number(new URL(origin).port)
    const url = await send(port, 'GET /api/content/café HTTP/1.1\r\nHost: x\r\n\r\n')
    assert.match(url, /^HTTP\/1\.1 400 [\s\S]*must be percent-encoded/)
    const header = await send(port, 'GET / HTTP/1.1\r\nHost: x\r\nX-Name: one\ntwo\r\n\r\n')
    assert.match(header, /^HTTP\/1\.1 400 [\s\S]*line break or another control character/)
    const nonsense = await send(port, 'HELLO\r\n\r\n')
    assert.match(nonsense, /This is not an HTTP request/)
  },
)

function send(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let received = ''
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    socket.setEncoding('utf8').on('data', (part: string) => (received += part))
    socket.on('end', () => resolve(received)).on('error', reject)
  })
}
