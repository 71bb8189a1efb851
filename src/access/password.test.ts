import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PasswordRefusedError, ThrottledError } from '#access/errors.ts'
import { checkPassword, defaultPasswordCost, PasswordHasher } from '#access/password.ts'
import { systemClock } from '#lib/clock.ts'

const cheap = { memoryKiB: 64, passes: 1 }
const client = { key: '192.0.2.1', known: false }

test('a hash is a PHC string with a salt of its own, and only its password verifies', async () => {
  const hasher = new PasswordHasher(systemClock, cheap)
  const [one, two] = await Promise.all([
    hasher.hash('a stoa is a roof', client),
    hasher.hash('a stoa is a roof', client),
  ])
  assert.match(one, /^\$argon2id\$v=19\$m=64,t=1,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/)
  assert.notEqual(one, two)
  assert.equal(await hasher.verify('a stoa is a roof', one, client), true)
  assert.equal(await hasher.verify('a stoa is a rooF', one, client), false)
  assert.equal(await hasher.verify('a stoa is a roof', null, client), false)
})

test('the vector of the reference implementation verifies', async () => {
  const vector =
    '$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc'
  assert.equal(await new PasswordHasher(systemClock).verify('password', vector, client), true)
})

test('a hash with other parameters still verifies, and is outdated', async () => {
  const old = await new PasswordHasher(systemClock, cheap).hash('correct staple horse', client)
  const today = new PasswordHasher(systemClock, { memoryKiB: 128, passes: 1 })
  assert.equal(await today.verify('correct staple horse', old, client), true)
  assert.equal(today.outdated(old), true)
  assert.equal(today.outdated(await today.hash('correct staple horse', client)), false)
})

test('the same letters typed on another keyboard are the same password', async () => {
  const hasher = new PasswordHasher(systemClock, cheap)
  assert.equal(
    await hasher.verify(
      'passwo\u0308rterbuch',
      await hasher.hash('passw\u00f6rterbuch', client),
      client,
    ),
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

test('a flood from one client, or from many strangers, leaves the others their turn', async () => {
  const hasher = new PasswordHasher(systemClock, cheap)
  const hash = (key: string, known = false) => hasher.hash('one of very many', { key, known })
  const order: string[] = []
  const noted = async (name: string, hashed: Promise<string>): Promise<void> => {
    await hashed
    order.push(name)
  }
  const flood = [
    ...Array.from({ length: 120 }, () => hash('attacker')),
    ...Array.from({ length: 120 }, (_, index) => hash(`stranger ${index}`)),
  ].map((hashed) => noted('flood', hashed))
  const owners = [noted('neighbour', hash('owner', true)), noted('owner', hash('device', true))]
  const outcomes = await Promise.allSettled([...flood, ...owners])
  const refused = outcomes.filter((each) => each.status === 'rejected')
  assert.equal(refused.length, 240 - 66, 'two run, 64 wait')
  assert.ok(refused.every((each) => each.reason instanceof ThrottledError))
  for (const name of ['neighbour', 'owner']) {
    const at = order.indexOf(name)
    assert.ok(at >= 0 && at < 10, `${name} had its turn after ${at} others`)
  }
  await hash('attacker')
})

test('a client that waited past the deadline is refused instead of being served late', async () => {
  let nowMs = 0
  const hasher = new PasswordHasher({ nowMs: () => nowMs, monotonicMs: () => nowMs }, cheap)
  const running = [
    hasher.hash('the first in line', client),
    hasher.hash('the second in line', client),
  ]
  const waiting = assert.rejects(hasher.hash('the third in line', client), ThrottledError)
  nowMs = 5_001
  await Promise.all(running)
  await waiting
})

test('OWASP’s parameters are the default', () => {
  assert.deepEqual(defaultPasswordCost, { memoryKiB: 19_456, passes: 2 })
})
