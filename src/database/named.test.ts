import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compileNamed } from '#database/named.ts'

test('names become places; casts, times and quoted names with a colon stay', () => {
  assert.deepEqual(
    compileNamed(`insert into stoa."version:article" values (:id::uuid, :by, 'HH24:MI', :id)`),
    {
      text: `insert into stoa."version:article" values ($1::uuid, $2, 'HH24:MI', $1)`,
      names: ['id', 'by'],
    },
  )
})
