import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { openText, sealText } from '#lib/sealed-text.ts'

const key = (name: string): Buffer => createHash('sha256').update(name).digest()

test('a sealed text comes back under its key only, and not when it was changed', () => {
  const sealed = sealText(key('one'), 's3://key:secret@bucket – ü')
  assert.ok(!Buffer.from(sealed, 'base64').toString('latin1').includes('secret'))
  assert.equal(openText(key('one'), sealed), 's3://key:secret@bucket – ü')
  assert.notEqual(sealText(key('one'), 'x'), sealText(key('one'), 'x'))
  assert.throws(() => openText(key('two'), sealed))
  const bytes = Buffer.from(sealed, 'base64')
  bytes[bytes.length - 1]! ^= 1
  assert.throws(() => openText(key('one'), bytes.toString('base64')))
})
