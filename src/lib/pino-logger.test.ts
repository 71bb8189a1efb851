import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { errorFacts, forPeople } from '#lib/pino-logger.ts'

test('a line for people has the time, the message and the facts of its own', () => {
  const line = JSON.stringify({
    level: 30,
    time: '2026-11-20T18:39:01.000Z',
    node: 'n1',
    part: 'api',
    url: 'http://127.0.0.1:4000',
    startedInMs: 900,
    msg: 'ready',
  })
  assert.equal(forPeople(line), '18:39:01 ready  url=http://127.0.0.1:4000 startedInMs=900\n')
  const failure = JSON.stringify({
    level: 50,
    time: '2026-11-20T18:39:01.000Z',
    msg: 'a request failed',
    err: { message: 'x', stack: 'Error: x\n    at y' },
  })
  assert.equal(forPeople(failure), '18:39:01 ERROR a request failed\nError: x\n    at y\n')
})

test('an expected failure is logged with code and cause, a defect with its stack', () => {
  const away = errorFacts(
    new DatabaseUnavailableError('It is away.', { host: 'db1' }, { cause: new Error('refused') }),
  ) as Record<string, unknown>
  assert.deepEqual(
    [away['code'], away['message'], away['facts'], away['stack']],
    ['E_DATABASE_UNAVAILABLE', 'It is away.: refused', { host: 'db1' }, undefined],
  )
  assert.match((errorFacts(new TypeError('x')) as { stack: string }).stack, /TypeError: x\n +at /)
  const warning = JSON.stringify({
    level: 40,
    time: '2026-11-20T18:39:01.000Z',
    msg: 'away',
    err: { message: 'refused', stack: 'Error: refused\n    at y' },
  })
  assert.equal(forPeople(warning), '18:39:01 WARN away\nrefused\n')
})
