import assert from 'node:assert/strict'
import { test } from 'node:test'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import { badJson, badQueries, entry, json } from '#test/support/bad-requests.ts'
import type { Bad, Options } from '#test/support/bad-requests.ts'

const field = (more: object): Options => ({
  body: { label: 'X', fields: [{ name: 'a', kind: 'text', ...more }] },
})

const bad: readonly Bad[] = [
  ...badJson,
  // Bodies
  [
    'an unknown field',
    'POST /api/content/thing',
    400,
    'E_REQUEST_INVALID',
    entry({ title: 'x' }, { publsh: true }),
  ],
  ['fields missing', 'POST /api/content/thing', 400, 'E_REQUEST_INVALID', { body: {} }],
  ['fields as a list', 'POST /api/content/thing', 400, 'E_REQUEST_INVALID', entry([])],
  [
    'publish as text',
    'POST /api/content/thing',
    400,
    'E_REQUEST_INVALID',
    entry({ title: 'x' }, { publish: 'true' }),
  ],
  [
    'an id that is no id',
    'POST /api/content/thing',
    400,
    'E_REQUEST_INVALID',
    entry({ title: 'x' }, { id: 'mine' }),
  ],
  [
    'an id that is taken',
    'POST /api/content/thing',
    409,
    'E_ENTRY_EXISTS',
    entry({ title: 'x' }, { id: 'ID' }),
  ],
  ['an unknown field', 'POST /api/content/thing', 422, 'E_VALIDATION', entry({ titel: 'x' })],
  [
    'text where a number is needed',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    entry({ rank: '1' }),
  ],
  [
    'a number beyond its maximum',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    entry({ rank: 11 }),
  ],
  [
    'a fraction where a whole is needed',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    entry({ rank: 1.5 }),
  ],
  [
    'a lone surrogate',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    { raw: String.raw`{"fields":{"title":"\ud800"}}`, headers: json },
  ],
  [
    'U+0000',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    { raw: String.raw`{"fields":{"title":"a\u0000b"}}`, headers: json },
  ],
  [
    'an option that is none',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    entry({ color: 'green' }),
  ],
  [
    'a date without a zone',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    entry({ at: '2026-01-01T00:00:00' }),
  ],
  [
    'the 30th of February',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    entry({ at: '2026-02-30T00:00:00Z' }),
  ],
  [
    'a reference to nothing',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    entry({ parent: 'OTHER' }),
  ],
  [
    'a value that is taken',
    'POST /api/content/thing',
    409,
    'E_UNIQUE_CONFLICT',
    entry({ title: 'y', sku: 'taken' }),
  ],
  [
    'publishing without what is required',
    'POST /api/content/thing',
    422,
    'E_VALIDATION',
    entry({ rank: 1 }, { publish: true }),
  ],
  [
    'a locale that is none',
    'POST /api/content/thing',
    404,
    'E_LOCALE_NOT_FOUND',
    entry({ title: 'x' }, { locale: 'xx' }),
  ],
  ['a type that is none', 'POST /api/content/nothing', 404, 'E_TYPE_NOT_FOUND', entry({})],
  ...badQueries,
  // Paths
  ['a path that is none', 'GET /api/nothing', 404, 'E_ROUTE_NOT_FOUND'],
  ['a path with a slash too many', 'GET /api/content/thing/', 404, 'E_ENTRY_NOT_FOUND'],
  ['a path climbing out', 'GET /static/..%2f..%2fpackage.json', 404, 'E_ROUTE_NOT_FOUND'],
  ['broken percent-encoding in the path', 'GET /api/content/%zz', 400, 'E_REQUEST_MALFORMED'],
  ['an entry that is none', 'GET /api/content/thing/OTHER', 404, 'E_ENTRY_NOT_FOUND'],
  ['U+0000 in a slug', 'GET /api/content/thing/a%00b', 404, 'E_ENTRY_NOT_FOUND'],
  ['the version 0', 'GET /api/content/thing/ID/versions/0', 400, 'E_REQUEST_INVALID'],
  ['the version one', 'GET /api/content/thing/ID/versions/one', 400, 'E_REQUEST_INVALID'],
  ['a version that is none', 'GET /api/content/thing/ID/versions/99', 404, 'E_VERSION_NOT_FOUND'],
  ['a method that the path does not have', 'POST /healthz/live', 405, 'E_METHOD_NOT_ALLOWED'],
  [
    'a method that the path does not have, with a body',
    'POST /healthz/live',
    405,
    'E_METHOD_NOT_ALLOWED',
    { raw: 'x', headers: { 'content-type': 'text/plain' } },
  ],
  ['a method that nothing has', 'TRACE /api/content/thing', 405, 'E_METHOD_NOT_ALLOWED'],
  ['a method that is too new', 'QUERY /api/content/thing', 405, 'E_METHOD_NOT_ALLOWED'],
  // Headers
  [
    'a stale If-Match',
    'PATCH /api/content/thing/ID',
    412,
    'E_VERSION_CONFLICT',
    { ...entry({ title: 'z' }), headers: { 'if-match': '"99"' } },
  ],
  [
    'an If-Match from elsewhere',
    'PATCH /api/content/thing/ID',
    412,
    'E_VERSION_CONFLICT',
    { ...entry({ title: 'z' }), headers: { 'if-match': '"abc"' } },
  ],
  [
    'an If-Match without quotes',
    'PATCH /api/content/thing/ID',
    400,
    'E_REQUEST_INVALID',
    { ...entry({ title: 'z' }), headers: { 'if-match': '1' } },
  ],
  [
    'two tags in If-Match that no version has',
    'PATCH /api/content/thing/ID',
    412,
    'E_VERSION_CONFLICT',
    { ...entry({ title: 'z' }), headers: { 'if-match': '"8", "9"' } },
  ],
  [
    'an Idempotency-Key of 300 characters',
    'POST /api/content/thing',
    400,
    'E_REQUEST_INVALID',
    { ...entry({ title: 'z' }), headers: { 'idempotency-key': 'k'.repeat(300) } },
  ],
  [
    'an Idempotency-Key with a space',
    'POST /api/content/thing',
    400,
    'E_REQUEST_INVALID',
    { ...entry({ title: 'z' }), headers: { 'idempotency-key': 'a b' } },
  ],
  [
    'a token that is none',
    'GET /api/content/thing',
    401,
    'E_UNAUTHENTICATED',
    { headers: { authorization: 'Bearer stoa_nothing' } },
  ],
  [
    'a password where a token belongs',
    'POST /api/content/thing',
    401,
    'E_SIGN_IN_NEEDED',
    { ...entry({ title: 'z' }), headers: { authorization: 'Basic YTpi' } },
  ],
  [
    'a session that is none',
    'POST /api/content/thing',
    401,
    'E_UNAUTHENTICATED',
    {
      ...entry({ title: 'z' }),
      as: 'anonymous',
      headers: { cookie: 'stoa_session=nothing' },
    },
  ],
  // Types, locales, releases, schedule
  [
    'a type without fields',
    'PUT /api/types/x',
    422,
    'E_TYPE_INVALID',
    { body: { label: 'X', fields: [] } },
  ],
  ['a type that is a list', 'PUT /api/types/x', 400, 'E_REQUEST_INVALID', { body: [] }],
  [
    'a type under another name',
    'PUT /api/types/x',
    400,
    'E_REQUEST_INVALID',
    { body: { name: 'y', label: 'X', fields: [{ name: 'a', kind: 'text' }] } },
  ],
  ['a type with a capital', 'PUT /api/types/Thing', 422, 'E_TYPE_INVALID', field({})],
  [
    'a kind of field that is none',
    'PUT /api/types/x',
    422,
    'E_TYPE_INVALID',
    field({ kind: 'color' }),
  ],
  ['a field named id', 'PUT /api/types/x', 422, 'E_TYPE_INVALID', field({ name: 'id' })],
  [
    'an option of a field that is none',
    'PUT /api/types/x',
    422,
    'E_TYPE_INVALID',
    field({ maxLength: 3 }),
  ],
  ['a pattern that never ends', 'PUT /api/types/x', 422, 'E_TYPE_INVALID', field({ pattern: '(' })],
  [
    'a stale revision',
    'PUT /api/types/thing',
    412,
    'E_TYPE_CONFLICT',
    { ...field({}), headers: { 'if-match': '"99"' } },
  ],
  ['a change that loses values', 'PUT /api/types/thing', 409, 'E_TYPE_LOSS', field({})],
  ['deleting a type with entries', 'DELETE /api/types/thing', 409, 'E_TYPE_IN_USE'],
  ['dryRun in words', 'PUT /api/types/x?dryRun=yes', 400, 'E_REQUEST_INVALID', field({})],
  ['a locale with a bad code', 'PUT /api/locales/EN_us', 422, 'E_LOCALE_INVALID', { body: {} }],
  [
    'a fallback that is none',
    'PUT /api/locales/fr',
    404,
    'E_LOCALE_NOT_FOUND',
    { body: { fallback: 'xx' } },
  ],
  ['deleting the default locale', 'DELETE /api/locales/en', 409, 'E_LOCALE_IN_USE'],
  [
    'a release without a name',
    'POST /api/releases',
    400,
    'E_REQUEST_INVALID',
    { body: { name: '' } },
  ],
  ['a release that is none', 'GET /api/releases/OTHER', 404, 'E_RELEASE_NOT_FOUND'],
  [
    'a schedule in the past',
    'POST /api/content/thing/ID/schedule',
    422,
    'E_SCHEDULE_INVALID',
    { body: { action: 'publish', dueAt: '2020-01-01T00:00:00Z' } },
  ],
  [
    'a schedule of what cannot be',
    'POST /api/content/thing/ID/schedule',
    400,
    'E_REQUEST_INVALID',
    { body: { action: 'delete', dueAt: '2040-01-01T00:00:00Z' } },
  ],
  [
    'a scheduled action that is none',
    'DELETE /api/content/thing/ID/schedule/OTHER',
    404,
    'E_SCHEDULE_NOT_FOUND',
  ],
  // Access
  [
    'a role that is none',
    'POST /api/tokens',
    404,
    'E_ROLE_NOT_FOUND',
    { body: { name: 'T', roles: ['absent'] } },
  ],
  ['a page of users without end', 'GET /api/users?limit=1001', 400, 'E_REQUEST_INVALID'],
  [
    'an anonymous write',
    'POST /api/content/thing',
    401,
    'E_SIGN_IN_NEEDED',
    { ...entry({ title: 'x' }), as: 'anonymous' },
  ],
  [
    'an anonymous write to a draft',
    'DELETE /api/content/thing/ID',
    404,
    'E_ENTRY_NOT_FOUND',
    { as: 'anonymous' },
  ],
  [
    'a slug of 2,000 characters',
    `GET /api/content/thing/${'a'.repeat(2_000)}`,
    414,
    'E_URL_TOO_LONG',
  ],
  ['more than one may', 'PUT /api/types/x', 403, 'E_PERMISSION', { ...field({}), as: 'editor' }],
]

const thing = {
  label: 'Thing',
  fields: [
    { name: 'title', kind: 'text', required: true, filterable: true },
    { name: 'sku', kind: 'text', unique: true },
    { name: 'body', kind: 'markdown' },
    { name: 'rank', kind: 'number', integer: true, max: 10, filterable: true },
    { name: 'color', kind: 'select', options: ['red'] },
    { name: 'at', kind: 'dateTime' },
    { name: 'parent', kind: 'reference', types: ['thing'] },
  ],
}
const other = '01890000-0000-7000-8000-000000000000'

test('each bad input gets its problem document', { skip: databaseMissing }, async (t) => {
  assert.ok(bad.length >= 60)
  await using site = await testSite()
  assert.equal((await site.request('PUT', '/api/types/thing', { body: thing })).status, 201)
  site.forgetDocument()
  const made = await site.request('POST', '/api/content/thing', {
    body: { fields: { title: 'x', sku: 'taken', color: 'red' } },
  })
  const id: string = made.json.data.id
  const real = (text: string): string => text.replaceAll('OTHER', other).replaceAll('ID', id)
  for (const [
    what,
    request,
    status,
    code,
    { body, raw, headers = {}, as = 'administrator' } = {},
  ] of bad) {
    await t.test(`${what}: ${status} ${code}`, async () => {
      const [method = '', url = ''] = request.split(' ')
      const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body))
      const sent = typeof payload === 'string' && raw === undefined ? real(payload) : payload
      const response = await site.request(method, real(url), {
        as,
        headers: { ...(body === undefined ? {} : json), ...headers },
        ...(sent === undefined ? {} : { body: sent }),
      })
      assert.equal(response.status, status, response.text)
      const { json: problem } = response
      assert.equal(problem.code, code, response.text)
      assert.match(response.headers['content-type'] ?? '', /^application\/problem\+json/)
      assert.equal(response.headers['cache-control'], 'no-store')
      assert.equal(problem.status, status)
      assert.equal(problem.type, `/docs/reference/errors#${code.toLowerCase()}`)
      assert.equal(problem.requestId, response.headers['x-request-id'])
      assert.ok(problem.title.length > 0 && problem.detail.length > 10, response.text)
      assert.doesNotMatch(problem.detail, /undefined|\[object|at .*\.ts:/)
    })
  }
})

test('the largest page that a list allows is no bad input', { skip: databaseMissing }, async () => {
  await using site = await testSite()
  assert.equal((await site.request('PUT', '/api/types/thing', { body: thing })).status, 201)
  const made = await site.request('POST', '/api/content/thing', {
    body: { fields: { title: 'x' } },
  })
  for (const list of [
    'content/thing',
    `content/thing/${made.json.data.id}/versions`,
    'releases',
    'assets',
    'users',
    'audit',
  ]) {
    const response = await site.request('GET', `/api/${list}?limit=200`)
    assert.equal(response.status, 200, `${list}: ${response.text}`)
  }
})
