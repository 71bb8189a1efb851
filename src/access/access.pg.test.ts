import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Role } from '#access/access.ts'
import { auditKeptMs } from '#access/audit.ts'
import {
  AccessInputError,
  ApiTokenNotFoundError,
  EmailTakenError,
  EscalationError,
  FirstAdministratorError,
  LastAdministratorError,
  PasswordRefusedError,
  PermissionError,
  RoleBuiltInError,
  RoleInUseError,
  RoleNotFoundError,
  UnauthenticatedError,
  UserNotFoundError,
} from '#access/errors.ts'
import { secretLifetimeMs } from '#access/first-administrator.ts'
import { lastUseResolutionMs } from '#access/last-use.ts'
import { sql } from '#database/database.ts'
import { newId } from '#lib/id.ts'
import { HandClock, signedIn, testAccess, testPassword, until } from '#test/support/access.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing
const anonymous = { bearer: null, sessionCookie: null }
const grant = (grant: Partial<Role['content'][number]>): Role['content'][number] => ({
  type: '*',
  actions: ['read'],
  filter: null,
  fields: null,
  ...grant,
})
const role = (name: string, content: Role['content'] = [], system: Role['system'] = []) => ({
  name,
  label: name,
  content,
  system,
})
const problemsOf = (error: unknown): string[] => {
  assert.ok(error instanceof AccessInputError, String(error))
  return (error.facts['problems'] as { path: string }[]).map((problem) => problem.path)
}

test(
  'users: made, listed in pages, changed, deleted; what is wrong is named',
  { skip },
  async () => {
    await using db = await testDatabase()
    const access = testAccess(db.database)
    const { users, systemIdentity: system } = access
    const make = (email: string) =>
      users.create(db.database, system, {
        email,
        name: ' Ada ',
        password: testPassword,
        roles: ['editor', 'author', 'editor'],
      })
    const ada = await make('Ada@Example.com')
    assert.deepEqual(
      { ...ada, id: '', createdAt: '' },
      {
        id: '',
        email: 'ada@example.com',
        name: 'Ada',
        roles: ['author', 'editor'],
        state: 'active',
        createdAt: '',
        lastLoginAt: null,
      },
    )
    await assert.rejects(make('ADA@example.com'), EmailTakenError)
    for (let count = 0; count < 4; count += 1) await make(`user${count}@example.com`)
    const first = await users.list({ limit: 3, after: null })
    const second = await users.list({ limit: 3, after: first.after })
    assert.deepEqual([first.data.length, second.data.length, second.after], [3, 2, null])
    assert.equal(new Set([...first.data, ...second.data].map((user) => user.id)).size, 5)
    const bob = await users.update(db.database, system, ada.id, {
      email: 'bob@example.com',
      name: 'Bob',
      roles: [],
    })
    assert.deepEqual([bob.email, bob.name, bob.roles], ['bob@example.com', 'Bob', []])
    await assert.rejects(
      users.update(db.database, system, ada.id, { email: 'user1@example.com' }),
      EmailTakenError,
    )
    await users.delete(db.database, system, ada.id)
    await assert.rejects(users.get(ada.id), UserNotFoundError)
    await assert.rejects(users.delete(db.database, system, ada.id), UserNotFoundError)
    await assert.rejects(
      users.update(db.database, system, 'no\0id', { name: 'x' }),
      UserNotFoundError,
    )
    const wrong = {
      email: 'no email',
      name: 'two\nlines',
      password: testPassword,
      roles: ['Not A Role'],
    }
    await assert.rejects(
      users.create(db.database, system, wrong),
      (error) => (assert.deepEqual(problemsOf(error), ['/email', '/name', '/roles']), true),
    )
    const right = { email: 'x@example.com', name: 'X', password: testPassword, roles: ['nowhere'] }
    await assert.rejects(users.create(db.database, system, right), RoleNotFoundError)
    await assert.rejects(
      users.create(db.database, system, { ...right, roles: [], password: 'x@example.com' }),
      PasswordRefusedError,
    )
    await assert.rejects(
      users.update(db.database, system, first.data[1]!.id, { password: 'short' }),
      PasswordRefusedError,
    )
    await assert.rejects(users.list({ limit: 3, after: 'yesterday' }), AccessInputError)
  },
)

test(
  'a failed call leaves a caller’s transaction usable and changes nothing',
  { skip },
  async () => {
    await using db = await testDatabase()
    const access = testAccess(db.database)
    const input = {
      email: 'ada@example.com',
      name: 'Ada',
      password: testPassword,
      roles: ['editor'],
    }
    await db.database.transaction(async (tx) => {
      await access.users.create(tx, access.systemIdentity, input)
      await assert.rejects(access.users.create(tx, access.systemIdentity, input), EmailTakenError)
    })
    assert.equal((await access.users.list({ limit: 10, after: null })).data.length, 1)
    const actions = (await access.auditLog({ limit: 10, after: null })).data.map(
      (entry) => entry.action,
    )
    assert.deepEqual(actions, ['user.create'], 'what was not done is not in the audit log')
  },
)

test(
  'the last active administrator stays, also against two demotions at once',
  { skip },
  async () => {
    await using db = await testDatabase()
    const access = testAccess(db.database)
    const { users, systemIdentity: system } = access
    const make = (email: string) =>
      users.create(db.database, system, {
        email,
        name: 'A',
        password: testPassword,
        roles: ['administrator'],
      })
    const ada = await make('ada@example.com')
    await assert.rejects(
      users.update(db.database, system, ada.id, { roles: ['editor'] }),
      LastAdministratorError,
    )
    await assert.rejects(
      users.update(db.database, system, ada.id, { state: 'disabled' }),
      LastAdministratorError,
    )
    await assert.rejects(users.delete(db.database, system, ada.id), LastAdministratorError)
    assert.deepEqual((await users.get(ada.id)).roles, ['administrator'])
    const bob = await make('bob@example.com')
    await users.update(db.database, system, bob.id, { state: 'disabled' })
    await assert.rejects(
      users.delete(db.database, system, ada.id),
      LastAdministratorError,
      'a disabled administrator is none',
    )
    await users.update(db.database, system, bob.id, { state: 'active' })

    for (let round = 0; round < 5; round += 1) {
      const outcomes = await Promise.allSettled([
        users.update(db.database, system, ada.id, { roles: ['editor'] }),
        round % 2 === 0
          ? users.update(db.database, system, bob.id, { state: 'disabled' })
          : users.update(db.database, system, bob.id, { roles: [] }),
      ])
      const refused = outcomes.filter((each) => each.status === 'rejected')
      assert.equal(refused.length, 1)
      assert.ok(refused[0]!.reason instanceof LastAdministratorError, String(refused[0]!.reason))
      for (const id of [ada.id, bob.id])
        await users.update(db.database, system, id, { roles: ['administrator'], state: 'active' })
    }
    const deletions = await Promise.allSettled([
      users.delete(db.database, system, ada.id),
      users.delete(db.database, system, bob.id),
    ])
    assert.equal(deletions.filter((each) => each.status === 'fulfilled').length, 1)
  },
)

test('the first administrator: one secret, one use, one day', { skip }, async () => {
  await using db = await testDatabase()
  const clock = new HandClock()
  const access = testAccess(db.database, clock)
  const input = (secret: string, email = 'ada@example.com') => ({
    secret,
    email,
    name: 'Ada',
    password: testPassword,
    agent: 'test',
  })
  const old = (await access.firstAdministratorSecret())!
  const replaced = (await access.firstAdministratorSecret())!
  await assert.rejects(
    access.createFirstAdministrator(db.database, input(old)),
    FirstAdministratorError,
    'replaced',
  )
  clock.advance(secretLifetimeMs)
  await assert.rejects(
    access.createFirstAdministrator(db.database, input(replaced)),
    FirstAdministratorError,
    'too old',
  )
  for (const wrong of ['', '\0', 'x'.repeat(43)])
    await assert.rejects(
      access.createFirstAdministrator(db.database, input(wrong)),
      FirstAdministratorError,
    )
  const secret = (await access.firstAdministratorSecret())!
  const rows = await db.database.run(
    sql<{ row: string }>(`select f::text as row from stoa.first_administrator f`),
  )
  assert.ok(rows.length === 1 && !rows[0]!.row.includes(secret))
  await assert.rejects(
    access.createFirstAdministrator(db.database, { ...input(secret), password: 'short' }),
    PasswordRefusedError,
  )
  const outcomes = await Promise.allSettled(
    Array.from({ length: 6 }, (_each, index) =>
      access.createFirstAdministrator(db.database, input(secret, `ada${index}@example.com`)),
    ),
  )
  assert.equal(outcomes.filter((each) => each.status === 'fulfilled').length, 1)
  for (const each of outcomes)
    if (each.status === 'rejected')
      assert.ok(each.reason instanceof FirstAdministratorError, String(each.reason))
  const { data } = await access.users.list({ limit: 10, after: null })
  assert.deepEqual(
    data.map((user) => user.roles),
    [['administrator']],
  )
  assert.equal(await access.firstAdministratorSecret(), null)
})

test(
  'API tokens: shown once, hashed, expiring, noted at most once a minute, refused when deleted',
  { skip },
  async () => {
    await using db = await testDatabase()
    const clock = new HandClock()
    const access = testAccess(db.database, clock)
    const { tokens, systemIdentity: system } = access
    const end = new Date(clock.nowMs() + 3_600_000).toISOString()
    const { token, info } = await tokens.create(db.database, system, {
      name: 'site',
      roles: ['editor'],
      expiresAt: end,
    })
    assert.ok(token.startsWith(info.hint) && info.lastUsedAt === null && info.expiresAt === end)
    const [row] = await db.database.run(
      sql<{ row: string }>(`select t::text as row from stoa.api_token t`),
    )
    assert.ok(!row!.row.includes(token))
    const identity = await access.identify({
      bearer: token,
      sessionCookie: 'ignored beside a bearer',
    })
    assert.deepEqual(identity.authority.actor, { kind: 'token', id: info.id, name: 'site' })
    assert.deepEqual([identity.user, identity.csrfToken, identity.expiresAt], [null, null, end])
    assert.ok(identity.authority.grant('publish', 'article'))
    const lastUsed = async () => (await tokens.list())[0]!.lastUsedAt
    const noted = new Date(clock.nowMs()).toISOString()
    await until(async () => (await lastUsed()) === noted)
    clock.advance(lastUseResolutionMs - 1)
    await access.identify({ bearer: token, sessionCookie: null })
    assert.equal(await lastUsed(), noted)
    clock.advance(1)
    await access.identify({ bearer: token, sessionCookie: null })
    await until(async () => (await lastUsed()) !== noted)
    clock.advance(Date.parse(end) - clock.nowMs())
    await assert.rejects(
      access.identify({ bearer: token, sessionCookie: null }),
      UnauthenticatedError,
    )
    const other = await tokens.create(db.database, system, {
      name: 'for ever',
      roles: ['anonymous'],
      expiresAt: null,
    })
    await access.identify({ bearer: other.token, sessionCookie: null })
    await tokens.delete(db.database, system, other.info.id)
    await assert.rejects(
      access.identify({ bearer: other.token, sessionCookie: null }),
      UnauthenticatedError,
    )
    await assert.rejects(tokens.delete(db.database, system, other.info.id), ApiTokenNotFoundError)
    for (const bearer of ['', 'stoa_', `${other.token}x`, '\0'])
      await assert.rejects(access.identify({ bearer, sessionCookie: null }), UnauthenticatedError)
    for (const [expiresAt, roles, path] of [
      [new Date(clock.nowMs()).toISOString(), ['editor'], '/expiresAt'],
      ['2027-02-31T00:00:00Z', ['editor'], '/expiresAt'],
      ['tomorrow', ['editor'], '/expiresAt'],
      [null, [], '/roles'],
    ] as const) {
      await assert.rejects(
        tokens.create(db.database, system, { name: 'x', roles, expiresAt }),
        (error) => (assert.deepEqual(problemsOf(error), [path]), true),
      )
    }
  },
)

test('nobody gives, changes or takes over more than they may do themselves', { skip }, async () => {
  await using db = await testDatabase()
  const access = testAccess(db.database)
  const { users, roles, tokens, systemIdentity: system } = access
  const d = db.database
  const admin = await signedIn(access, d, ['administrator'])
  const editor = await signedIn(access, d, ['editor'])
  const none = new RegExp(PermissionError.name)
  const forbidden = { name: none }
  await assert.rejects(
    tokens.create(d, editor.identity, { name: 'x', roles: ['administrator'], expiresAt: null }),
    forbidden,
  )
  await assert.rejects(
    users.update(d, editor.identity, editor.user.id, { roles: ['editor', 'administrator'] }),
    forbidden,
  )
  await assert.rejects(
    users.create(d, editor.identity, {
      email: 'x@example.com',
      name: 'X',
      password: testPassword,
      roles: [],
    }),
    forbidden,
  )
  await assert.rejects(users.delete(d, editor.identity, admin.user.id), forbidden)
  await assert.rejects(roles.save(d, editor.identity, role('editor', [grant({})])), forbidden)
  await assert.rejects(roles.delete(d, editor.identity, 'author'), forbidden)
  await assert.rejects(tokens.delete(d, editor.identity, newId()), forbidden)
  await assert.rejects(access.logoutEverywhere(d, editor.identity, admin.user.id), forbidden)

  // An office that manages people, and no content at all.
  await roles.save(d, system, role('office', [], ['users.manage', 'tokens.manage', 'roles.manage']))
  const office = await signedIn(access, d, ['office'])
  const refused = { name: EscalationError.name }
  await assert.rejects(
    tokens.create(d, office.identity, { name: 'x', roles: ['administrator'], expiresAt: null }),
    refused,
  )
  await assert.rejects(
    tokens.create(d, office.identity, { name: 'x', roles: ['office', 'editor'], expiresAt: null }),
    refused,
  )
  await assert.rejects(
    users.create(d, office.identity, {
      email: 'x@example.com',
      name: 'X',
      password: testPassword,
      roles: ['editor'],
    }),
    refused,
  )
  await assert.rejects(
    users.update(d, office.identity, office.user.id, { roles: ['office', 'editor'] }),
    refused,
  )
  await assert.rejects(
    users.update(d, office.identity, editor.user.id, { password: 'taken over by me' }),
    refused,
  )
  await assert.rejects(
    users.update(d, office.identity, admin.user.id, { email: 'mine@example.com' }),
    refused,
  )
  await assert.rejects(users.delete(d, office.identity, admin.user.id), refused)
  await assert.rejects(
    roles.save(
      d,
      office.identity,
      role('office', [grant({})], ['users.manage', 'tokens.manage', 'roles.manage']),
    ),
    refused,
  )
  await assert.rejects(
    roles.save(d, office.identity, role('editor', [])),
    refused,
    'nor take away from those who may more',
  )
  await assert.rejects(roles.save(d, office.identity, role('mine', [], ['audit.read'])), refused)
  const made = await tokens.create(d, office.identity, {
    name: 'x',
    roles: ['office'],
    expiresAt: null,
  })
  assert.equal(made.info.createdBy?.id, office.user.id)
  await users.create(d, office.identity, {
    email: 'colleague@example.com',
    name: 'X',
    password: testPassword,
    roles: ['office'],
  })
  const withToken = await access.identify({ bearer: made.token, sessionCookie: null })
  await assert.rejects(
    tokens.create(d, withToken, { name: 'y', roles: ['administrator'], expiresAt: null }),
    refused,
  )
  await assert.rejects(users.updateOwn(db.database, withToken, { name: 'x', agent: '' }), refused)

  // Everything by name is still not the administrator: that role grows with the program.
  await roles.save(
    d,
    system,
    role(
      'almost',
      [
        grant({
          actions: ['read', 'readDraft', 'create', 'update', 'publish', 'archive', 'delete'],
        }),
      ],
      [...admin.identity.describe().system],
    ),
  )
  const almost = await signedIn(access, d, ['almost'])
  await assert.rejects(
    tokens.create(d, almost.identity, { name: 'x', roles: ['administrator'], expiresAt: null }),
    refused,
  )
  await tokens.create(d, almost.identity, {
    name: 'x',
    roles: ['editor', 'author'],
    expiresAt: null,
  })
  await tokens.create(d, admin.identity, { name: 'x', roles: ['administrator'], expiresAt: null })
})

test(
  'roles: checked against the rules and the types, at once in force, not deleted while somebody has them',
  { skip },
  async () => {
    await using db = await testDatabase()
    const access = testAccess(db.database)
    const { roles, systemIdentity: system } = access
    const d = db.database
    const definition = {
      name: 'article',
      label: 'Article',
      fields: [
        { name: 'title', kind: 'text' },
        { name: 'section', kind: 'text', filterable: true },
        { name: 'rank', kind: 'number', filterable: true },
        { name: 'tags', kind: 'select', options: ['a', 'b'], many: true, filterable: true },
      ],
    }
    await d.run(sql(`insert into stoa.content_type (name, definition) values ('article', $1)`), [
      JSON.stringify(definition),
    ])
    const compare = (field: string, test: unknown) =>
      ({ op: 'compare', field, test }) as unknown as Role['content'][number]['filter']
    const problems = async (
      content: Partial<Role['content'][number]>,
      name = 'press',
    ): Promise<string[]> => {
      const outcome = await roles
        .save(d, system, role(name, [grant(content)]))
        .then(() => null, problemsOf)
      return outcome ?? []
    }
    const article = 'article'
    assert.deepEqual(await problems({ type: article, fields: ['title', 'nope'] }), [
      '/content/0/fields/1',
    ])
    assert.deepEqual(await problems({ type: 'Nope' }), ['/content/0/type'])
    assert.deepEqual(await problems({ actions: [] }), ['/content/0/actions'])
    assert.deepEqual(await problems({ actions: ['fly' as 'read'] }), ['/content/0/actions/0'])
    assert.deepEqual(
      await problems({ type: article, filter: compare('title', { is: 'eq', value: 'x' }) }),
      ['/content/0/filter'],
      'not filterable',
    )
    assert.deepEqual(
      await problems({ type: article, filter: compare('rank', { is: 'eq', value: 'x' }) }),
      ['/content/0/filter'],
    )
    assert.deepEqual(
      await problems({ type: article, filter: compare('rank', { is: 'contains', value: 'x' }) }),
      ['/content/0/filter'],
    )
    assert.deepEqual(
      await problems({ type: article, filter: compare('tags', { is: 'lt', value: 'x' }) }),
      ['/content/0/filter'],
    )
    assert.deepEqual(
      await problems({ filter: compare('section', { is: 'eq', value: 'x' }) }),
      ['/content/0/filter'],
      '* has only what every type has',
    )
    assert.deepEqual(
      await problems({ type: article, filter: compare('rank', { is: 'like', value: 'x' }) }),
      ['/content/0/filter/test/is'],
    )
    assert.deepEqual(
      await problems({ type: 'later', filter: compare('any', { is: 'in', values: ['\0', {}] }) }),
      ['/content/0/filter/test/values/0', '/content/0/filter/test/values/1'],
    )
    assert.deepEqual(await problems({ type: article, filter: { op: 'drop' } as never }), [
      '/content/0/filter/op',
    ])
    assert.deepEqual(
      await problems({ type: article, filter: { op: 'and', filters: [null] } as never }),
      ['/content/0/filter/filters/0'],
    )
    let deep: unknown = compare('section', { is: 'eq', value: 'x' })
    for (let depth = 0; depth < 20; depth += 1) deep = { op: 'not', filter: deep }
    assert.equal((await problems({ type: article, filter: deep as never })).length, 1)
    assert.deepEqual(
      await problems({
        type: 'later',
        filter: compare('anything', { is: 'gt', value: 3 }),
        fields: ['anything'],
      }),
      [],
      'a type may come later',
    )
    assert.deepEqual(
      await problems({ actions: ['readDraft'] }, 'anonymous'),
      ['/content/0/actions/0'],
      'drafts never reach the anonymous role',
    )
    assert.deepEqual(await problems({ own: true }, 'anonymous'), ['/content/0/own'])
    await assert.rejects(roles.save(d, system, role('administrator')), RoleBuiltInError)
    await assert.rejects(roles.save(d, system, role('Bad Name')), AccessInputError)

    const saved = await roles.save(
      d,
      system,
      role('press', [
        grant({
          type: article,
          filter: compare('createdAt', { is: 'gt', value: '2026-01-01T00:00:00+02:00' }),
        }),
      ]),
    )
    assert.deepEqual(
      saved.content[0]?.filter,
      compare('createdAt', { is: 'gt', value: '2025-12-31T22:00:00.000Z' }),
      'values are kept in normal form',
    )
    assert.deepEqual(await roles.get('press'), saved)
    const press = await signedIn(access, d, ['press'])
    assert.equal(press.identity.authority.grant('update', article), null)
    await roles.save(d, system, role('press', [grant({ type: article, actions: ['update'] })]))
    const again = await access.identify({ bearer: null, sessionCookie: press.login.cookie })
    assert.deepEqual(again.authority.grant('update', article), { filter: null, fields: null })
    assert.equal(again.authority.grant('read', article), null)
    await assert.rejects(roles.delete(d, system, 'press'), RoleInUseError)
    await access.users.delete(d, system, press.user.id)
    await roles.delete(d, system, 'press')
    await assert.rejects(roles.get('press'), RoleNotFoundError)
    await assert.rejects(roles.get('\0'), RoleNotFoundError)
    await assert.rejects(roles.delete(d, system, 'anonymous'), RoleBuiltInError)
    assert.deepEqual(
      (await roles.list()).filter((each) => each.builtIn).map((each) => each.name),
      ['administrator', 'anonymous', 'author', 'editor'],
    )
  },
)

test(
  'API tokens: what changes holds from the next request on, also what an operator changes by SQL',
  { skip },
  async () => {
    await using db = await testDatabase()
    const clock = new HandClock()
    const [here, there] = [testAccess(db.database, clock), testAccess(db.database, clock)]
    const { token, info } = await here.tokens.create(db.database, here.systemIdentity, {
      name: 'site',
      roles: ['author'],
      expiresAt: null,
    })
    const bearer = { bearer: token, sessionCookie: null }
    for (const node of [here, there])
      assert.ok((await node.identify(bearer)).authority.grant('create', 'article'))
    await here.roles.save(db.database, here.systemIdentity, role('author', []))
    assert.equal((await here.identify(bearer)).authority.grant('create', 'article'), null)
    assert.equal((await there.identify(bearer)).authority.grant('create', 'article'), null)
    await db.database.run(
      sql(
        `update stoa.role set content = '[{"type":"page","actions":["read"],"filter":null,"fields":null}]' where name = 'author'`,
      ),
    )
    assert.ok((await there.identify(bearer)).authority.grant('read', 'page'))
    await here.tokens.delete(db.database, here.systemIdentity, info.id)
    await assert.rejects(here.identify(bearer), UnauthenticatedError)
    await assert.rejects(there.identify(bearer), UnauthenticatedError)
  },
)

test('a changed role holds on another node from the next request on', { skip }, async () => {
  await using db = await testDatabase()
  const clock = new HandClock()
  const [here, there] = [testAccess(db.database, clock), testAccess(db.database, clock)]
  const { login } = await signedIn(here, db.database, ['author'])
  const cookie = { bearer: null, sessionCookie: login.cookie }
  assert.ok((await there.identify(cookie)).authority.grant('create', 'article'))
  assert.ok((await there.identify(anonymous)).authority.grant('read', 'article'))
  await here.roles.save(db.database, here.systemIdentity, role('author', []))
  await here.roles.save(db.database, here.systemIdentity, role('anonymous', []))
  assert.equal(
    (await here.identify(anonymous)).authority.grant('read', 'article'),
    null,
    'at once where it was saved',
  )
  assert.equal((await there.identify(cookie)).authority.grant('create', 'article'), null)
  assert.equal((await there.identify(anonymous)).authority.grant('read', 'article'), null)
  await db.database.run(
    sql(
      `update stoa.role set content = '[{"type":"page","actions":["read"],"filter":null,"fields":null}]' where name = 'author'`,
    ),
  )
  assert.ok(
    (await there.identify(cookie)).authority.grant('read', 'page'),
    'also what an operator changes by SQL',
  )
})

test(
  'a fresh install: the anonymous role reads what is published and nothing else; an author only touches their own',
  { skip },
  async () => {
    await using db = await testDatabase()
    const access = testAccess(db.database)
    const nobody = await access.identify(anonymous)
    assert.deepEqual(nobody.describe(), {
      system: [],
      content: [{ type: '*', action: 'read', filter: null, fields: null }],
    })
    const { identity, user } = await signedIn(access, db.database, ['author'])
    const mine = { op: 'compare', field: 'createdBy', test: { is: 'eq', value: user.id } }
    for (const action of ['readDraft', 'update', 'publish', 'archive', 'delete'] as const)
      assert.deepEqual(identity.authority.grant(action, 'article')?.filter, mine)
    for (const action of ['read', 'create'] as const)
      assert.equal(identity.authority.grant(action, 'article')?.filter, null)
    assert.ok(identity.authority.key.endsWith(user.id))
  },
)

test(
  'the audit log: who, what, from where; in pages, without secrets, only ever appended, pruned by age',
  { skip },
  async () => {
    await using db = await testDatabase()
    const clock = new HandClock()
    const access = testAccess(db.database, clock)
    const admin = await signedIn(access, db.database, ['administrator'])
    const origin = { address: '192.0.2.44', requestId: 'request-1' }
    const by = await access.identify({ bearer: null, sessionCookie: admin.login.cookie, origin })
    clock.advance(10)
    const { token, info } = await access.tokens.create(db.database, by, {
      name: 'site',
      roles: ['editor'],
      expiresAt: null,
    })
    clock.advance(10)
    await access.users.update(db.database, by, admin.user.id, {
      name: 'Ada',
      password: 'another long one',
    })
    clock.advance(10)
    await assert.rejects(
      access.login(db.database, {
        email: admin.user.email,
        password: 'wrong wrong wrong',
        address: 'no address',
        agent: '',
      }),
    )
    const first = await access.auditLog({ limit: 2, after: null })
    const second = await access.auditLog({ limit: 100, after: first.after })
    const all = [...first.data, ...second.data]
    const actions = all.map((entry) => entry.action)
    assert.deepEqual(actions.slice(0, 3), ['session.refuse', 'user.update', 'token.create'])
    assert.deepEqual(
      actions.slice(3).sort(),
      ['session.start', 'user.create'],
      'of the same millisecond',
    )
    assert.deepEqual(
      { ...all[2], id: '', at: '' },
      {
        id: '',
        at: '',
        actor: { kind: 'user', id: admin.user.id, name: 'administrator' },
        action: 'token.create',
        subject: `token:${info.id}`,
        facts: { name: 'site', roles: ['editor'], expiresAt: null },
        ...origin,
      },
    )
    assert.deepEqual(all[1]!.facts, {
      name: { before: 'administrator', after: 'Ada' },
      password: 'changed',
    })
    assert.equal(all[0]!.address, null)
    const [dump] = await db.database.run(
      sql<{ text: string }>(`select string_agg(a::text, ' ') as text from stoa.audit a`),
    )
    for (const secret of [
      token,
      testPassword,
      'another long one',
      'wrong wrong wrong',
      admin.login.cookie,
      'argon2id',
    ])
      assert.ok(!dump!.text.includes(secret))
    for (const statement of [
      `update stoa.audit set action = 'x'`,
      `delete from stoa.audit`,
      `truncate stoa.audit`,
    ])
      await assert.rejects(db.database.run(sql(statement)), /append-only/)
    assert.equal((await access.prune()).audit, 0)
    clock.advance(auditKeptMs + 1)
    assert.equal((await access.prune()).audit, 5)
  },
)
