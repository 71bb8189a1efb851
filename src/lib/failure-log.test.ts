import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Logger } from '#lib/logger.ts'
import { FailureLog } from '#lib/failure-log.ts'

const longEnoughMs = 60_000

function recorded(): { readonly failures: FailureLog; readonly said: string[] } {
  const said: string[] = []
  const say = (level: string) => (facts: object, message: string) =>
    void said.push(
      [
        `${level} ${message}`,
        'comesAndGoes' in facts ? ', off and on' : '',
        'failures' in facts ? ` after ${String(facts.failures)}` : '',
      ].join(''),
    )
  const logger: Logger = {
    debug: () => undefined,
    info: say('info'),
    warn: say('warn'),
    error: say('error'),
    child: () => logger,
  }
  return {
    failures: new FailureLog(logger, { failing: 'it fails', recovered: 'it works again' }),
    said,
  }
}

test('the log has the first failure and the recovery, once each time', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { failures, said } = recorded()
  failures.success()
  for (let time = 0; time < 2; time += 1) {
    failures.failure(new Error('x'))
    failures.failure(new Error('x'))
    failures.success()
    failures.success()
    t.mock.timers.tick(longEnoughMs)
  }
  const once = ['warn it fails', 'info it works again after 2']
  assert.deepEqual(said, [...once, ...once])
})

test('a failure that comes and goes is logged as that once, and so is its end', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { failures, said } = recorded()
  const offAndOn = (times: number): void => {
    for (let time = 0; time < times; time += 1) {
      failures.failure(new Error('x'))
      failures.success()
      t.mock.timers.tick(100)
    }
  }
  offAndOn(1_000)
  const begun = ['warn it fails', 'info it works again after 1', 'warn it fails, off and on']
  assert.deepEqual(said, begun)
  failures.failure(new Error('x'))
  t.mock.timers.tick(longEnoughMs)
  assert.deepEqual(said, begun, 'it still fails')
  failures.success()
  t.mock.timers.tick(longEnoughMs)
  assert.deepEqual(said, [...begun, 'info it works again after 1000'])
  said.length = 0
  offAndOn(1)
  assert.deepEqual(
    said,
    ['warn it fails', 'info it works again after 1'],
    'what comes later is news',
  )
})
