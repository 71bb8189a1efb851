import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  csrfTokenOf,
  looksLikeApiToken,
  looksLikeSecret,
  newApiToken,
  newSecret,
} from '#access/secrets.ts'

test('an API token carries its checksum: a mistyped one is noticed without the database', () => {
  for (let round = 0; round < 50; round += 1) {
    const { token, hint } = newApiToken()
    assert.match(token, /^stoa_[0-9A-Za-z]{49}$/)
    assert.ok(token.startsWith(hint) && hint.length < 12)
    assert.equal(looksLikeApiToken(token), true)
    const at = 5 + ((round * 7) % 43)
    const slip = token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1)
    assert.equal(looksLikeApiToken(slip), false)
  }
  for (const text of ['', 'stoa_', `stoa_${'A'.repeat(49)}`, 'Bearer x', `${newApiToken().token} `])
    assert.equal(looksLikeApiToken(text), false)
})

test('a secret has 256 bits, and a CSRF token belongs to one session and one key', () => {
  const cookie = newSecret()
  assert.equal(Buffer.from(cookie, 'base64url').length, 32)
  assert.equal(looksLikeSecret(cookie), true)
  assert.equal(looksLikeSecret(`${cookie}\0`), false)
  assert.notEqual(csrfTokenOf(cookie, 'key'), csrfTokenOf(newSecret(), 'key'))
  assert.notEqual(csrfTokenOf(cookie, 'key'), csrfTokenOf(cookie, 'other key'))
  assert.equal(csrfTokenOf(cookie, 'key'), csrfTokenOf(cookie, 'key'))
})
