import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LoginFailedError, ThrottledError } from '#access/errors.ts'
import {
  accountLimit,
  blockMaxMs,
  deviceLimit,
  networkLimit,
  networkOf,
  pairLimit,
  windowMs,
} from '#access/throttle.ts'
import { HandClock, signedIn, testAccess, testPassword } from '#test/support/access.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing
const from = { address: '192.0.2.1', agent: 'Mozilla/5.0' }
const wrong = 'wrong wrong wrong'

test(
  'an account closes for a network after some failures, longer each time, and opens with time',
  { skip },
  async () => {
    await using db = await testDatabase()
    const clock = new HandClock()
    const access = testAccess(db.database, clock)
    const { user } = await signedIn(access, db.database, ['author'])
    const attempt = (password: string) =>
      access.login(db.database, {
        email: user.email,
        password,
        address: '192.0.2.7',
        agent: '',
      })
    for (let count = 0; count < pairLimit.free; count += 1)
      await assert.rejects(attempt(wrong), LoginFailedError)
    const waits: number[] = []
    for (let count = 0; count < 12; count += 1) {
      await assert.rejects(attempt(testPassword), (error: unknown) => {
        assert.ok(error instanceof ThrottledError)
        waits.push(error.retryAfterS)
        return true
      })
      clock.advance(waits.at(-1)! * 1_000)
      await assert.rejects(attempt(wrong), LoginFailedError)
    }
    assert.deepEqual(waits.slice(0, 5), [1, 2, 4, 8, 16])
    assert.equal(waits.at(-1), blockMaxMs / 1_000)
    clock.advance(blockMaxMs)
    await attempt(testPassword)
    for (let count = 0; count < pairLimit.free; count += 1)
      await assert.rejects(attempt(wrong), LoginFailedError)
    clock.advance(windowMs + 1)
    await assert.rejects(attempt(wrong), LoginFailedError)
    await attempt(testPassword)
  },
)

test(
  'a stranger keeps neither the owner of an account out nor the others of a network',
  { skip },
  async () => {
    await using db = await testDatabase()
    const access = testAccess(db.database, new HandClock())
    const { user, login } = await signedIn(access, db.database, ['author'])
    const attempt = (password: string, address: string, more: object = {}) =>
      access.login(db.database, { email: user.email, password, address, agent: '', ...more })
    const stranger = '198.51.100.1'
    for (let count = 0; count < 100; count += 1) await assert.rejects(attempt(wrong, stranger))
    await assert.rejects(attempt(testPassword, stranger), ThrottledError)
    await attempt(testPassword, '203.0.113.9')
    const { deviceCookie } = login
    await attempt(testPassword, stranger, { deviceCookie })
    const { user: other } = await signedIn(access, db.database, ['editor'])
    await access.login(db.database, {
      email: other.email,
      password: testPassword,
      address: stranger,
      agent: '',
    })
    // Very many networks close the account to unknown devices in unknown networks alone.
    for (let count = 0; count < accountLimit.free; count += 1)
      await assert.rejects(attempt(wrong, `2001:db8:${count}::1`))
    await assert.rejects(attempt(testPassword, '2001:db8:ffff::1'), ThrottledError)
    await attempt(testPassword, '2001:db8:ffff::1', { deviceCookie })
    await attempt(testPassword, '203.0.113.9')
    // A device has a budget of its own, and the cookie of another account gives none.
    for (let count = 0; count < deviceLimit.free; count += 1)
      await assert.rejects(attempt(wrong, stranger, { deviceCookie }), LoginFailedError)
    await assert.rejects(attempt(testPassword, stranger, { deviceCookie }), ThrottledError)
    const foreign = { deviceCookie: `${other.id}${deviceCookie.slice(36)}` }
    await assert.rejects(attempt(testPassword, stranger, foreign), ThrottledError)
  },
)

test('refused sign-ins cannot flood the audit log', { skip }, async () => {
  await using db = await testDatabase()
  const clock = new HandClock()
  const access = testAccess(db.database, clock)
  for (let count = 0; count < 300; count += 1) {
    const input = {
      email: `user${count}@example.com`,
      password: wrong,
      address: `2001:db8:${count}::1`,
      agent: '',
    }
    await assert.rejects(access.login(db.database, input), LoginFailedError)
    await assert.rejects(access.login(db.database, input), LoginFailedError)
  }
  const { data } = await access.auditLog({ limit: 1_000, after: null })
  assert.equal(data.length, 200)
  clock.advance(3_600_000)
  const input = { email: 'last@example.com', password: wrong, ...from }
  await assert.rejects(access.login(db.database, input), LoginFailedError)
  const [newest] = (await access.auditLog({ limit: 1, after: null })).data
  assert.deepEqual(newest?.facts, { reason: 'unknown email', leftOut: 100 })
})

test('an unknown email closes like a known one', { skip }, async () => {
  await using db = await testDatabase()
  const access = testAccess(db.database, new HandClock())
  const attempt = () =>
    access.login(db.database, { email: 'unknown@example.com', password: testPassword, ...from })
  for (let count = 0; count < pairLimit.free; count += 1)
    await assert.rejects(attempt(), LoginFailedError)
  await assert.rejects(attempt(), ThrottledError)
})

test('many guesses at once are no more guesses than one after the other', { skip }, async () => {
  await using db = await testDatabase()
  const clock = new HandClock()
  const access = testAccess(db.database, clock)
  const { user } = await signedIn(access, db.database, ['author'])
  clock.advance(1)
  const outcomes = await Promise.allSettled(
    Array.from({ length: 60 }, (_each, index) =>
      access.login(db.database, {
        email: user.email,
        password: `guess number ${index}`,
        address: '203.0.113.7',
        agent: '',
      }),
    ),
  )
  const verified = outcomes.filter(
    (each) => each.status === 'rejected' && each.reason instanceof LoginFailedError,
  )
  assert.equal(verified.length, pairLimit.free)
})

test(
  'an address closes after many failures on many accounts, and owning one account does not open it',
  { skip },
  async () => {
    await using db = await testDatabase()
    const clock = new HandClock()
    const access = testAccess(db.database, clock)
    const { user } = await signedIn(access, db.database, ['author'])
    const address = '2001:db8:1:2:3:4:5:6'
    for (let count = 0; count < networkLimit.free; count += 1) {
      await assert.rejects(
        access.login(db.database, {
          email: `user${count}@example.com`,
          password: testPassword,
          address,
          agent: '',
        }),
        LoginFailedError,
      )
    }
    await assert.rejects(
      access.login(db.database, {
        email: user.email,
        password: testPassword,
        address: '2001:db8:1:2:ffff::1',
        agent: '',
      }),
      ThrottledError,
      'the same network',
    )
    await access.login(db.database, {
      email: user.email,
      password: testPassword,
      address: '2001:db8:2:3::1',
      agent: '',
    })
    clock.advance(1_000)
    await access.login(db.database, {
      email: user.email,
      password: testPassword,
      address,
      agent: '',
    })
    await assert.rejects(
      access.login(db.database, {
        email: 'user1@example.com',
        password: testPassword,
        address,
        agent: '',
      }),
      ThrottledError,
    )
    clock.advance(windowMs + blockMaxMs)
    assert.ok((await access.prune()).throttles >= networkLimit.free)
  },
)

test('networks: one IPv4 address, 56 bits of IPv6', () => {
  assert.equal(networkOf('192.0.2.1'), '192.0.2.1')
  assert.equal(networkOf('::ffff:192.0.2.1'), '192.0.2.1')
  assert.equal(networkOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:0::/56')
  assert.equal(networkOf('2001:0DB8::1'), '2001:db8:0:0::/56')
  assert.equal(networkOf('::1'), '0:0:0:0::/56')
  assert.equal(networkOf('fe80::1%eth0'), 'fe80:0:0:0::/56')
  assert.equal(networkOf('64:ff9b::192.0.2.33'), '64:ff9b:0:0::/56')
  assert.equal(networkOf('not an address'), 'unknown')
})
