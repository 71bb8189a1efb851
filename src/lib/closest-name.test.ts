import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closestName } from '#lib/closest-name.ts'

test('a mistyped name finds the name that was meant, and a strange one finds none', () => {
  const names = ['STOA_PORT', 'STOA_HOST', 'STOA_DATABASE_URL', 'STOA_DATABASE_READ_URL']
  const meant = (given: string): string | null => closestName(given, names)
  assert.equal(meant('STOA_PRT'), 'STOA_PORT')
  assert.equal(meant('STOA_PROT'), 'STOA_PORT')
  assert.equal(meant('stoa_port'), 'STOA_PORT')
  assert.equal(meant('STOA_DATBASE_URL'), 'STOA_DATABASE_URL')
  assert.equal(meant('STOA_TELEMETRY'), null)
  assert.equal(meant(''), null)
})
