import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Logger } from '#lib/logger.ts'
import { Trouble } from '#lib/trouble.ts'

test('the log hears of the first failure and of the end, once each time', () => {
  const said: string[] = []
  const say = (level: string) => (_facts: object, message: string) => void said.push(`${level} ${message}`)
  const logger: Logger = { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error'), child: () => logger }
  const trouble = new Trouble(logger, { failing: 'it fails', over: 'it works again' })
  trouble.worked()
  for (let time = 0; time < 2; time += 1) {
    trouble.failed(new Error('x'))
    trouble.failed(new Error('x'))
    trouble.worked()
    trouble.worked()
  }
  const once = ['warn it fails', 'debug it fails', 'info it works again']
  assert.deepEqual(said, [...once, ...once])
})
