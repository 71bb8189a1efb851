import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import { brokenInvariants, reading, testContent } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

const node: ContentType = {
  name: 'node',
  label: 'Node',
  fields: [
    { name: 'title', kind: 'text' },
    { name: 'hard', kind: 'reference', onDelete: 'restrict' },
    { name: 'soft', kind: 'reference', many: true, onDelete: 'unset', filterable: true },
    { name: 'owner', kind: 'reference', onDelete: 'cascade' },
    {
      name: 'parts',
      kind: 'list',
      of: {
        name: 'part',
        kind: 'group',
        fields: [{ name: 'to', kind: 'reference', onDelete: 'unset' }],
      },
    },
    { name: 'body', kind: 'richText' },
  ],
}

const secret: ContentType = {
  name: 'secret',
  label: 'Secret',
  fields: [{ name: 'hard', kind: 'reference' }],
}

const types = [node, secret]

const input = (fields: Record<string, unknown>, publish = false) => ({
  locale: null,
  fields,
  publish,
})

test(
  'history: versions page by page, one version, restore; archive hides and unarchive brings back',
  { skip },
  async () => {
    await using t = await testContent({ types })
    const { entries } = t.content
    const { id } = await entries.create(t.admin, 'node', input({ title: 'v1' }, true))
    for (let i = 2; i <= 5; i += 1)
      await entries.save(
        t.admin,
        { type: 'node', id },
        { ...input({ title: `v${i}` }), merge: true },
        null,
      )
    const first = await entries.versions(
      t.admin,
      { type: 'node', id },
      {
        locale: null,
        limit: 3,
        before: null,
      },
    )
    assert.deepEqual(
      first.map((one) => one.version),
      [5, 4, 3],
    )
    const rest = await entries.versions(
      t.admin,
      { type: 'node', id },
      { locale: null, limit: 3, before: 3 },
    )
    assert.deepEqual(
      rest.map((one) => [one.version, one.publishedAt !== null, one.isPublished]),
      [
        [2, false, false],
        [1, true, true],
      ],
    )
    assert.equal(
      (await entries.version(t.admin, { type: 'node', id }, { locale: null, version: 3 }))
        .fieldsJson,
      '{"title":"v3"}',
    )
    await assert.rejects(
      entries.version(t.admin, { type: 'node', id }, { locale: null, version: 9 }),
      {
        code: 'E_VERSION_NOT_FOUND',
      },
    )
    await assert.rejects(
      entries.versions(
        t.call({ node: { read: true } }),
        { type: 'node', id },
        {
          locale: null,
          limit: 3,
          before: null,
        },
      ),
      { code: 'E_FORBIDDEN' },
    )
    assert.equal(
      (await entries.restore(t.admin, { type: 'node', id }, { locale: null, version: 2 }, 5))
        .fieldsJson,
      '{"title":"v2"}',
    )
    await assert.rejects(
      entries.restore(t.admin, { type: 'node', id }, { locale: null, version: 2 }, 5),
      {
        code: 'E_VERSION_CONFLICT',
      },
    )
    const [archived] = await entries.archive(t.admin, { type: 'node', id }, true, null)
    assert.equal(archived?.status, 'archived')
    await assert.rejects(entries.get(t.admin, 'node', id, reading()), { code: 'E_ENTRY_NOT_FOUND' })
    await assert.rejects(
      entries.save(t.admin, { type: 'node', id }, { ...input({ title: 'x' }), merge: true }, null),
      { code: 'E_ENTRY_ARCHIVED' },
    )
    await assert.rejects(
      entries.publish(t.admin, { type: 'node', id }, { locales: null, version: null }, null),
      { code: 'E_ENTRY_ARCHIVED' },
    )
    const [back] = await entries.archive(t.admin, { type: 'node', id }, false, null)
    assert.equal(back?.status, 'draft')
    assert.deepEqual(await brokenInvariants(t.database), [])
  },
)
