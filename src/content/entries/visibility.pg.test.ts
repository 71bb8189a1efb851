import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ForbiddenError, ValidationError } from '#content/errors.ts'
import { newId } from '#lib/id.ts'
import { listing, testContent } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { all, types, put, patch } from '#test/support/articles.ts'

test(
  'include follows references level by level, and never shows what the reader may not see',
  { skip },
  async () => {
    await using t = await testContent({ types })
    const { entries } = t.content
    const root = await entries.create(t.admin, 'category', {
      locale: null,
      fields: { name: 'Root' },
      publish: true,
    })
    const child = await entries.create(t.admin, 'category', {
      locale: null,
      fields: { name: 'Child', parent: root.id },
      publish: true,
    })
    const hidden = await entries.create(t.admin, 'category', {
      locale: null,
      fields: { name: 'Hidden draft' },
    })
    for (let i = 0; i < 3; i += 1)
      await entries.create(t.admin, 'article', {
        locale: null,
        fields: { title: `A${i}`, category: i === 2 ? hidden.id : child.id },
        publish: true,
      })
    const reader = t.call({ '*': { read: true } })
    const page = await entries.list(
      reader,
      listing('article', { include: ['category.parent'], count: true }),
    )
    assert.equal(page.count, 3)
    assert.deepEqual([...page.included.keys()].sort(), [root.id, child.id].sort())
    const draft = await entries.list(
      t.admin,
      listing('article', { include: ['category'], perspective: 'draft' }),
    )
    assert.ok(draft.included.has(hidden.id))
    const narrow = t.call({
      article: { read: true },
      category: {
        read: {
          filter: { op: 'compare', field: 'id', test: { is: 'eq', value: root.id } },
          fields: ['name'],
        },
      },
    })
    const seen = await entries.list(narrow, listing('article', { include: ['category'] }))
    assert.equal(seen.included.size, 0)
    const blind = t.call({
      article: { read: { filter: null, fields: ['title'] } },
      category: { read: true },
    })
    await assert.rejects(entries.list(blind, listing('article', { include: ['category'] })), {
      code: 'E_QUERY_FIELD',
    })
  },
)

test('grants: own entries only, some fields only, before and after', { skip }, async () => {
  await using t = await testContent({ types })
  const { entries } = t.content
  const own = {
    filter: {
      op: 'compare',
      field: 'createdBy',
      test: { is: 'eq', value: '0197a000-0000-7000-8000-00000000000a' },
    },
    fields: null,
  } as const
  const actor = { kind: 'user', id: '0197a000-0000-7000-8000-00000000000a', name: 'Ann' } as const
  const author = t.call(
    { article: { read: true, readDraft: own, create: true, update: own, delete: own } },
    { actor },
  )
  const mine = await entries.create(author, 'article', { locale: null, fields: { title: 'Mine' } })
  const theirs = await entries.create(t.admin, 'article', {
    locale: null,
    fields: { title: 'Theirs' },
    publish: true,
  })
  const draft = await entries.create(t.admin, 'article', {
    locale: null,
    fields: { title: 'Their draft' },
  })
  await entries.save(author, { type: 'article', id: mine.id }, patch({ title: 'Still mine' }), null)
  await assert.rejects(
    entries.save(author, { type: 'article', id: theirs.id }, patch({ title: 'Taken' }), null),
    ForbiddenError,
  )
  await assert.rejects(
    entries.save(author, { type: 'article', id: draft.id }, patch({ title: 'Taken' }), null),
    {
      code: 'E_ENTRY_NOT_FOUND',
    },
  )
  await assert.rejects(
    entries.publish(author, { type: 'article', id: mine.id }, all, null),
    ForbiddenError,
  )
  await assert.rejects(
    entries.delete(author, { type: 'article', id: theirs.id }, null),
    ForbiddenError,
  )
  assert.deepEqual(
    (await entries.list(author, listing('article', { perspective: 'draft' }))).data.map(
      (view) => view.id,
    ),
    [mine.id],
  )
  const folder = await entries.create(t.admin, 'category', {
    locale: null,
    fields: { name: 'Hidden' },
  })
  const linker = t.call({
    article: { read: true, readDraft: true, create: true },
    category: { read: true },
  })
  for (const category of [folder.id, newId()]) {
    await assert.rejects(
      entries.create(linker, 'article', { locale: null, fields: { category } }),
      (error) =>
        error instanceof ValidationError &&
        error.faults[0]?.message === 'There is no entry with this id, or it is not yours to read.',
    )
  }
  await entries.publish(t.admin, { type: 'category', id: folder.id }, all, null)
  await entries.create(linker, 'article', { locale: null, fields: { category: folder.id } })
  const low = t.call({
    article: {
      readDraft: true,
      update: {
        filter: { op: 'compare', field: 'rank', test: { is: 'lt', value: 5 } },
        fields: ['title', 'rank'],
      },
    },
  })
  await entries.save(
    t.admin,
    { type: 'article', id: draft.id },
    patch({ rank: 1, body: 'kept' }),
    null,
  )
  await assert.rejects(
    entries.save(low, { type: 'article', id: draft.id }, patch({ rank: 9 }), null),
    ForbiddenError,
  )
  await assert.rejects(
    entries.save(low, { type: 'article', id: draft.id }, patch({ body: 'x' }), null),
    ForbiddenError,
  )
  const view = await entries.save(
    low,
    { type: 'article', id: draft.id },
    put({ title: 'New', rank: 2 }),
    null,
  )
  assert.equal(JSON.parse(view.fieldsJson).body, 'kept')
})
