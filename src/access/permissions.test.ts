import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Role } from '#access/access.ts'
import { administratorRole, BoundAuthority, PermissionSet } from '#access/permissions.ts'
import type { Filter } from '#content/query/query.ts'
import type { Actor } from '#lib/actor.ts'

const user: Actor = { kind: 'user', id: '0199aaaa-0000-7000-8000-000000000001', name: 'Ada' }
const other: Actor = { kind: 'user', id: '0199aaaa-0000-7000-8000-000000000002', name: 'Bob' }
const news: Filter = { op: 'compare', field: 'section', test: { is: 'eq', value: 'news' } }
const sport: Filter = { op: 'compare', field: 'section', test: { is: 'eq', value: 'sport' } }

function role(content: Role['content'], system: Role['system'] = [], name = 'test'): Role {
  return { name, label: name, content, system, builtIn: false }
}

function authority(roles: readonly Role[], actor: Actor = user): BoundAuthority {
  return new BoundAuthority(actor, new PermissionSet(roles))
}

test('what no role grants is not allowed', () => {
  const nothing = authority([
    role([{ type: 'article', actions: ['read'], filter: null, fields: null }]),
  ])
  assert.deepEqual(nothing.grant('read', 'article'), { filter: null, fields: null })
  assert.equal(nothing.grant('readDraft', 'article'), null)
  assert.equal(nothing.grant('read', 'page'), null)
  assert.equal(authority([]).grant('read', 'article'), null)
})

test('a grant for the type itself goes before the one for every type, action by action', () => {
  const narrowed = role([
    { type: '*', actions: ['read', 'update'], filter: null, fields: null },
    { type: 'article', actions: ['read'], filter: news, fields: null },
  ])
  assert.deepEqual(authority([narrowed]).grant('read', 'article'), { filter: news, fields: null })
  assert.deepEqual(authority([narrowed]).grant('update', 'article'), { filter: null, fields: null })
  assert.deepEqual(authority([narrowed]).grant('read', 'page'), { filter: null, fields: null })
  const everything = role([{ type: '*', actions: ['read'], filter: null, fields: null }])
  assert.deepEqual(
    authority([narrowed, everything]).grant('read', 'article'),
    { filter: null, fields: null },
    'another role still allows all',
  )
})

test('several grants: any filter, all fields', () => {
  const both = authority([
    role([{ type: 'article', actions: ['read'], filter: news, fields: ['title'] }]),
    role([{ type: 'article', actions: ['read'], filter: sport, fields: ['title', 'body'] }]),
  ])
  assert.deepEqual(both.grant('read', 'article'), {
    filter: { op: 'or', filters: [news, sport] },
    fields: ['title', 'body'],
  })
})

test('own becomes a filter on the creator, and who has no id owns nothing', () => {
  const own = role([{ type: '*', actions: ['update'], filter: null, fields: null, own: true }])
  const mine = { op: 'compare', field: 'createdBy', test: { is: 'eq', value: user.id } }
  assert.deepEqual(authority([own]).grant('update', 'article'), { filter: mine, fields: null })
  const narrow = role([{ type: '*', actions: ['update'], filter: news, fields: null, own: true }])
  assert.deepEqual(authority([narrow]).grant('update', 'article')?.filter, {
    op: 'and',
    filters: [mine, news],
  })
  assert.equal(
    authority([own], { kind: 'anonymous', id: null, name: 'anonymous' }).grant('update', 'article'),
    null,
  )
})

test('equal keys see equal content: the user counts only where an own rule decides', () => {
  const all = role([{ type: '*', actions: ['read'], filter: null, fields: null }])
  const writesOwn = role([
    { type: '*', actions: ['update'], filter: null, fields: null, own: true },
  ])
  const readsOwn = role([
    { type: '*', actions: ['readDraft'], filter: null, fields: null, own: true },
  ])
  assert.equal(authority([all]).key, authority([all], other).key)
  assert.equal(
    authority([all, writesOwn]).key,
    authority([all], other).key,
    'writing is no part of what is seen',
  )
  assert.notEqual(authority([all, readsOwn]).key, authority([all, readsOwn], other).key)
  assert.notEqual(authority([all]).key, authority([readsOwn]).key)
  const filtered = (filter: Filter): string =>
    authority([role([{ type: 'article', actions: ['read'], filter, fields: null }])]).key
  assert.notEqual(filtered(news), filtered(sport))
  assert.equal(
    filtered(news),
    filtered({ test: { value: 'news', is: 'eq' }, field: 'section', op: 'compare' }),
    'the order of keys says nothing',
  )
  const fields = (names: readonly string[]): string =>
    authority([role([{ type: 'article', actions: ['read'], filter: null, fields: names }])]).key
  assert.notEqual(fields(['title']), fields(['title', 'body']))
})

test('the administrator has every permission, whatever the row says', () => {
  const all = new PermissionSet([role([], [], administratorRole)])
  assert.ok(all.system.has('users.manage') && all.system.has('cluster.manage'))
  assert.deepEqual(new BoundAuthority(user, all).grant('delete', 'anything'), {
    filter: null,
    fields: null,
  })
})

test('covers: every way to have more than another', () => {
  const set = (...roles: Role[]): PermissionSet => new PermissionSet(roles)
  const admin = set(role([], [], administratorRole))
  const reader = set(role([{ type: '*', actions: ['read'], filter: null, fields: null }]))
  const newsReader = set(role([{ type: 'article', actions: ['read'], filter: news, fields: null }]))
  const titleReader = set(
    role([{ type: 'article', actions: ['read'], filter: null, fields: ['title'] }]),
  )
  const ownWriter = set(
    role([{ type: 'article', actions: ['update'], filter: null, fields: null, own: true }]),
  )
  const writer = set(role([{ type: 'article', actions: ['update'], filter: null, fields: null }]))
  const exception = set(
    role([
      { type: '*', actions: ['read'], filter: null, fields: null },
      { type: 'article', actions: ['read'], filter: news, fields: null },
    ]),
  )
  const manager = set(role([], ['users.manage']))
  for (const each of [
    admin,
    reader,
    newsReader,
    titleReader,
    ownWriter,
    writer,
    exception,
    manager,
  ]) {
    assert.ok(each.covers(each))
    assert.ok(admin.covers(each))
    assert.ok(each.covers(set()))
    assert.ok(each === admin || !each.covers(admin))
  }
  assert.ok(reader.covers(newsReader) && reader.covers(titleReader) && reader.covers(exception))
  assert.ok(writer.covers(ownWriter))
  assert.ok(exception.covers(newsReader))
  assert.ok(
    !newsReader.covers(reader) &&
      !titleReader.covers(newsReader) &&
      !newsReader.covers(titleReader),
  )
  assert.ok(
    !ownWriter.covers(writer) &&
      !exception.covers(reader) &&
      !reader.covers(manager) &&
      !manager.covers(reader),
  )
})
