import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Logger } from '#lib/logger.ts'
import { Trouble } from '#lib/failure-log.ts'

const longEnoughMs = 60_000

function listened(): { readonly trouble: Trouble; readonly said: string[] } {
  const said: string[] = []
  const say = (level: string) => (facts: object, message: string) =>
    void said.push(
      `${level} ${message}${'comesAndGoes' in facts ? ', off and on' : ''}${'failures' in facts ? ` after ${String(facts.failures)}` : ''}`,
    )
  const logger: Logger = {
    debug: () => undefined,
    info: say('info'),
    warn: say('warn'),
    error: say('error'),
    child: () => logger,
  }
  return { trouble: new Trouble(logger, { failing: 'it fails', over: 'it works again' }), said }
}

test('the log hears of the first failure and of the end, once each time', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { trouble, said } = listened()
  trouble.worked()
  for (let time = 0; time < 2; time += 1) {
    trouble.failed(new Error('x'))
    trouble.failed(new Error('x'))
    trouble.worked()
    trouble.worked()
    t.mock.timers.tick(longEnoughMs)
  }
  const once = ['warn it fails', 'info it works again after 2']
  assert.deepEqual(said, [...once, ...once])
})

test('what comes and goes is told as that, once, and its end when it has kept away for a while', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { trouble, said } = listened()
  const offAndOn = (times: number): void => {
    for (let time = 0; time < times; time += 1) {
      trouble.failed(new Error('x'))
      trouble.worked()
      t.mock.timers.tick(100)
    }
  }
  offAndOn(1_000)
  const begun = ['warn it fails', 'info it works again after 1', 'warn it fails, off and on']
  assert.deepEqual(said, begun)
  trouble.failed(new Error('x'))
  t.mock.timers.tick(longEnoughMs)
  assert.deepEqual(said, begun, 'it still fails')
  trouble.worked()
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
