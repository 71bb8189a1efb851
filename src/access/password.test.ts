import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PasswordRefusedError, ThrottledError } from '#access/errors.ts'
import { checkPassword, defaultPasswordCost, PasswordHasher } from '#access/password.ts'
import { systemClock } from '#lib/clock.ts'

const cheap = { memoryKiB: 64, passes: 1 }

test('a hash is a PHC string with a salt of its own, and only its password verifies', async () => {
  const hasher = new PasswordHasher(systemClock, cheap)
  const [one, two] = await Promise.all([
    hasher.hash('a stoa is a roof'),
    hasher.hash('a stoa is a roof'),
  ])
  assert.match(one, /^\$argon2id\$v=19\$m=64,t=1,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/)
  assert.notEqual(one, two)
  assert.equal(await hasher.verify('a stoa is a roof', one), true)
  assert.equal(await hasher.verify('a stoa is a rooF', one), false)
  assert.equal(await hasher.verify('a stoa is a roof', null), false)
})

test('the reference implementation’s vector verifies: argon2id, v=19, m=65536, t=2, p=1', async () => {
  const vector =
    '$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc'
  assert.equal(await new PasswordHasher(systemClock).verify('password', vector), true)
})

test('a hash with other parameters still verifies, and is outdated', async () => {
  const old = await new PasswordHasher(systemClock, cheap).hash('correct staple horse')
  const today = new PasswordHasher(systemClock, { memoryKiB: 128, passes: 1 })
  assert.equal(await today.verify('correct staple horse', old), true)
  assert.equal(today.outdated(old), true)
  assert.equal(today.outdated(await today.hash('correct staple horse')), false)
})

test('the same letters typed on another keyboard are the same password', async () => {
  const hasher = new PasswordHasher(systemClock, cheap)
  assert.equal(
    await hasher.verify('passwo\u0308rterbuch', await hasher.hash('passw\u00f6rterbuch')),
    true,
  )
})

test('the rules: length, not the email, not one of the commonest', () => {
  const refused = [
    '',
    'elevenchars',
    'x'.repeat(257),
    'ada@example.com',
    'ADA@example.com',
    'Password1234',
    'aaaaaaaaaaaaaaaa',
    'abababababab',
    '123456789012',
  ]
  for (const password of refused)
    assert.throws(() => checkPassword(password, 'ada@example.com'), PasswordRefusedError, password)
  for (const password of ['twelve chars', '🏛️🏺'.repeat(4), 'x y'.repeat(85)])
    assert.doesNotThrow(() => checkPassword(password, 'ada@example.com'))
})

test('a flood is turned away instead of queueing without end, and afterwards there is room again', async () => {
  const hasher = new PasswordHasher(systemClock, cheap)
  const flood = await Promise.allSettled(
    Array.from({ length: 200 }, () => hasher.hash('one of very many')),
  )
  const refused = flood.filter((each) => each.status === 'rejected')
  assert.equal(refused.length, 200 - 66, 'two run, 64 wait')
  assert.ok(refused.every((each) => each.reason instanceof ThrottledError))
  await hasher.hash('one of very many')
})

test('who waited past the deadline is told so instead of being served late', async () => {
  let nowMs = 0
  const hasher = new PasswordHasher({ nowMs: () => nowMs, monotonicMs: () => nowMs }, cheap)
  const running = [hasher.hash('the first in line'), hasher.hash('the second in line')]
  const waiting = assert.rejects(hasher.hash('the third in line'), ThrottledError)
  nowMs = 5_001
  await Promise.all(running)
  await waiting
})

test('OWASP’s parameters are the default', () => {
  assert.deepEqual(defaultPasswordCost, { memoryKiB: 19_456, passes: 2 })
})
