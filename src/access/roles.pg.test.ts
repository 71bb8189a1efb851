import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Role } from '#access/access.ts'
import { auditKeptMs } from '#access/audit.ts'
import {
  AccessInputError,
  RoleBuiltInError,
  RoleInUseError,
  RoleNotFoundError,
  UnauthenticatedError,
} from '#access/errors.ts'
import { sql } from '#database/database.ts'
import { HandClock, signedIn, testAccess, testPassword } from '#test/support/access.ts'
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
  'roles: checked against the rules and the types, in force at once, kept while they have holders',
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
        `update stoa.role
         set content = '[{"type":"page","actions":["read"],"filter":null,"fields":null}]'
         where name = 'author'`,
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
      `update stoa.role
         set content = '[{"type":"page","actions":["read"],"filter":null,"fields":null}]'
         where name = 'author'`,
    ),
  )
  assert.ok(
    (await there.identify(cookie)).authority.grant('read', 'page'),
    'also what an operator changes by SQL',
  )
})

test(
  'a fresh install: anonymous callers read what is published; authors change their own entries',
  { skip },
  async () => {
    await using db = await testDatabase()
    const access = testAccess(db.database)
    const visitor = await access.identify(anonymous)
    assert.deepEqual(visitor.describe(), {
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
  'the audit log: actor, action and origin; in pages, without secrets, append-only, pruned by age',
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
