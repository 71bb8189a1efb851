import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import type { Access } from '#access/access.ts'
import { expiryFrom } from '#cli/commands/token.ts'
import { newPassword } from '#cli/password-input.ts'
import type { Site } from '#node/site.ts'
import type { Database } from '#database/database.ts'
import { testAccess, testPassword } from '#test/support/access.ts'
import { runStoa } from '#test/support/command-line.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing

/** The commands of this file use access and the database alone. */
function stoaOn(database: Database, access: Access) {
  const site = { access, database, [Symbol.asyncDispose]: async () => undefined }
  return (...argv: string[]) =>
    runStoa(argv, { assembly: { openSite: async () => site as unknown as Site } })
}

test('stoa user: create, list, password, disable, enable', { skip }, async () => {
  await using db = await testDatabase()
  const access = testAccess(db.database)
  const stoa = stoaOn(db.database, access)
  const created = await stoa(
    '--json',
    'user',
    'create',
    'Ada@example.com',
    '--name',
    'Ada',
    '--role',
    'administrator',
    '--role',
    'editor',
    '--generate-password',
  )
  assert.equal(created.status, 0, created.stderr)
  const { user, password } = JSON.parse(created.stdout)
  assert.deepEqual(
    [user.email, user.name, user.roles],
    ['ada@example.com', 'Ada', ['administrator', 'editor']],
  )
  const from = { address: '192.0.2.1', agent: '' }
  const login = await access.login(db.database, { email: 'ada@example.com', password, ...from })
  const people = await stoa('user', 'list')
  assert.match(people.stdout, /ada@example\.com +Ada +administrator,editor +active/)
  const again = await stoa('user', 'password', 'ADA@example.com', '--generate-password')
  const next = /Password: (\S{24})/.exec(again.stdout)?.[1]
  assert.ok(next !== undefined && next !== password)
  await assert.rejects(access.identify({ bearer: null, sessionCookie: login.cookie }))
  await access.login(db.database, { email: 'ada@example.com', password: next, ...from })
  const last = await stoa('user', 'disable', 'ada@example.com')
  assert.deepEqual([last.status, /E_LAST_ADMINISTRATOR/.test(last.stderr)], [1, true])
  await stoa('user', 'create', 'bob@example.com', '--role', 'author', '--generate-password')
  assert.match(
    (await stoa('user', 'disable', 'bob@example.com')).stdout,
    /bob@example\.com is disabled/,
  )
  assert.match(
    (await stoa('user', 'enable', 'bob@example.com')).stdout,
    /bob@example\.com is active/,
  )
  assert.match((await stoa('user', 'disable', 'absent@example.com')).stderr, /no such user/)
  assert.equal(
    (await stoa('user', 'create', 'x@example.com', '--generate-password')).status,
    2,
    'a role is needed',
  )
})

test('stoa token: create, list, delete', { skip }, async () => {
  await using db = await testDatabase()
  const access = testAccess(db.database)
  const stoa = stoaOn(db.database, access)
  const created = await stoa(
    'token',
    'create',
    'site',
    '--role',
    'anonymous',
    '--expires-in',
    '90d',
  )
  assert.match(created.stdout, /^stoa_[0-9A-Za-z]{49}\n$/, 'nothing but the token, for $(…)')
  await access.identify({ bearer: created.stdout.trim(), sessionCookie: null })
  const { tokens } = JSON.parse((await stoa('--json', 'token', 'list')).stdout)
  assert.deepEqual([tokens.length, tokens[0].name, tokens[0].createdBy], [1, 'site', null])
  assert.ok(Math.abs(Date.parse(tokens[0].expiresAt) - Date.now() - 90 * 86_400_000) < 60_000)
  assert.equal((await stoa('token', 'delete', tokens[0].id)).status, 0)
  await assert.rejects(access.identify({ bearer: created.stdout.trim(), sessionCookie: null }))
  assert.equal((await stoa('token', 'delete', tokens[0].id)).status, 1)
  assert.equal(
    (await stoa('token', 'create', 'x', '--role', 'anonymous', '--expires-in', 'soon')).status,
    2,
  )
})

test('an expiry is a number of hours, days, weeks or years', () => {
  assert.equal(expiryFrom('12h', 0), '1970-01-01T12:00:00.000Z')
  assert.equal(expiryFrom('2w', 0), '1970-01-15T00:00:00.000Z')
  for (const text of ['', '0d', '-1d', '1m', '1.5d', '99999y'])
    assert.throws(() => expiryFrom(text, 0), /--expires-in/)
})

test('a password comes from the first line of standard input, or from a terminal', async () => {
  const read = (text: string) => newPassword({ passwordStdin: true }, Readable.from([text]))
  assert.deepEqual(await read(`${testPassword}\r\nmore\n`), {
    password: testPassword,
    generated: false,
  })
  assert.equal((await read(testPassword)).password, testPassword)
  await assert.rejects(newPassword({}, Readable.from([])), /--password-stdin/)
})
