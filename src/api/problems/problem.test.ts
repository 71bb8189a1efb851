import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { RequestInvalidError, ServerBusyError } from '#api/problems/errors.ts'
import { problemResponse } from '#api/problems/problem.ts'
import { statuses } from '#api/problems/statuses.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'

/**
 * Codes that end a command or a start, that belong to background work, or that a part always turns
 * into its own words. None of them reaches a client.
 */
const neverOfARequest: ReadonlySet<string> = new Set([
  'E_CALL_DEADLINE',
  'E_CALL_FAILED',
  'E_CALL_NODE_GONE',
  'E_CALL_NO_LEADER',
  'E_CALL_TOO_LARGE',
  'E_CALL_UNKNOWN',
  'E_JOB_LOST',
  'E_JOB_REFUSED',
  'E_JOB_TIMEOUT',
  'E_JOB_TOO_LARGE',
  'E_LISTEN',
  'E_DATABASE_CONSTRAINT',
  'E_DATABASE_EMBEDDED',
  'E_DATABASE_MIGRATION',
  'E_DATABASE_UNSUPPORTED',
  'E_DATA_FOLDER_IN_USE',
  'E_HTTP_CACHE_AWAY',
  'E_HTTP_CACHE_BUSY',
  'E_HTTP_CACHE_REFUSED',
  'E_HTTP_CACHE_URL',
  'E_LINK_MESSAGE',
  'E_LINK_UNAVAILABLE',
  'E_NODES_DATABASE',
  'E_NODES_FENCE',
  'E_NODES_OLDER',
  'E_NODES_SECRET',
  'E_NODE_DRAIN_DEADLINE',
  'E_NODE_NOT_FOUND',
])
const commandOnly = /^src\/(cli|config|node|supervisor)\//

test('every code that can reach a client has a status, and every status a code', () => {
  const codes = new Set<string>()
  for (const file of globSync('src/**/errors.ts')) {
    if (commandOnly.test(file)) continue
    for (const match of readFileSync(file, 'utf8').matchAll(/code = '(E_[A-Z_]+)'/g))
      codes.add(match[1] ?? '')
  }
  assert.deepEqual(
    [...codes].filter((code) => statuses[code] === undefined && !neverOfARequest.has(code)).sort(),
    [],
    'add a row to statuses in statuses.ts',
  )
  assert.deepEqual(
    Object.keys(statuses).filter((code) => !codes.has(code)),
    [],
    'a row of statuses.ts without a code',
  )
  assert.ok(codes.size > 15)
})

test('a problem document names the docs, the code, the request and the facts', () => {
  const { status, headers, body, defect } = problemResponse(
    new RequestInvalidError({ in: 'query', path: '/limit', message: 'must be integer' }),
    'r1',
  )
  assert.equal(status, 400)
  assert.equal(headers['cache-control'], 'no-store')
  assert.equal(defect, false)
  assert.deepEqual(body, {
    faults: [{ in: 'query', path: '/limit', message: 'must be integer' }],
    type: '/docs/reference/errors#e_request_invalid',
    title: 'Invalid request',
    status: 400,
    detail: 'query /limit must be integer.',
    code: 'E_REQUEST_INVALID',
    requestId: 'r1',
  })
  assert.equal(problemResponse(new ServerBusyError(), 'r1').headers['retry-after'], '1')
})

test('an unexpected error shows nothing of itself', () => {
  for (const error of [
    new Error('password is hunter2'),
    'text',
    null,
    new TypeError('x is undefined'),
  ]) {
    const { status, body, defect } = problemResponse(error, 'r2')
    assert.equal(status, 500)
    assert.equal(defect, true)
    assert.equal(body.code, 'E_INTERNAL')
    assert.doesNotMatch(JSON.stringify(body), /hunter2|undefined/)
  }
})

test('clients do not learn which hosts the database has', () => {
  const { status, body } = problemResponse(
    new DatabaseUnavailableError('No host takes writes now. 10.0.0.1:5432: refused', {
      hosts: '10.0.0.1:5432',
    }),
    'r1',
  )
  assert.equal(status, 503)
  assert.doesNotMatch(JSON.stringify(body), /10\.0/)
})
