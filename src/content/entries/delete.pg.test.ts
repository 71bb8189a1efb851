import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import { EntryReferencedError } from '#content/errors.ts'
import { sql } from '#database/database.ts'
import {
  brokenInvariants,
  heldOpen,
  reading,
  testContent,
  untilWaiting,
} from '#test/support/content.ts'
import type { TestContent } from '#test/support/content.ts'
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

async function noneDangles(t: TestContent): Promise<void> {
  assert.deepEqual(
    await t.database.run(
      sql<object>(
        `select 1 from stoa.reference r where target_kind = 'entry' and not exists (select
          from stoa.entry e where e.id = r.target_id)`,
      ),
    ),
    [],
  )
}

test('restrict refuses and names those that the caller may read', { skip }, async () => {
  await using t = await testContent({ types })
  const { entries } = t.content
  const target = await entries.create(t.admin, 'node', input({ title: 'Target' }))
  for (let i = 0; i < 25; i += 1) await entries.create(t.admin, 'node', input({ hard: target.id }))
  await entries.create(t.admin, 'secret', input({ hard: target.id }))
  const linked = await entries.create(
    t.admin,
    'node',
    input({
      body: {
        type: 'doc',
        content: [
          {
            type: 'paragraph',
            content: [
              {
                type: 'text',
                text: 'x',
                marks: [{ type: 'link', attrs: { href: '/x', entry: target.id } }],
              },
            ],
          },
        ],
      },
    }),
  )
  assert.equal(linked.version, 1)
  const editor = t.call({ node: { readDraft: true, delete: true } })
  await assert.rejects(entries.delete(editor, { type: 'node', id: target.id }, null), (error) => {
    assert.ok(error instanceof EntryReferencedError)
    const { referrers } = error.facts as { referrers: { type: string }[] }
    assert.equal(referrers.length, 20)
    assert.ok(referrers.every((one) => one.type === 'node'))
    return true
  })
})

test(
  'unset makes new versions without the reference, published where it was; cascade deletes along',
  { skip },
  async () => {
    await using t = await testContent({ types })
    const { entries } = t.content
    const target = await entries.create(t.admin, 'node', input({ title: 'Target' }, true))
    const keep = await entries.create(t.admin, 'node', input({ title: 'Keep' }))
    const soft = await entries.create(
      t.admin,
      'node',
      input(
        { title: 'Soft', soft: [target.id, keep.id], parts: [{ to: target.id }, { to: keep.id }] },
        true,
      ),
    )
    await entries.save(
      t.admin,
      { type: 'node', id: soft.id },
      { ...input({ title: 'Soft draft' }), merge: true },
      null,
    )
    const child = await entries.create(t.admin, 'node', input({ owner: target.id }))
    const grandchild = await entries.create(
      t.admin,
      'node',
      input({ owner: child.id, hard: target.id }),
    )
    await assert.rejects(
      entries.delete(t.call({ node: { readDraft: true } }), { type: 'node', id: target.id }, null),
      { code: 'E_FORBIDDEN' },
    )
    const outcome = await entries.delete(t.admin, { type: 'node', id: target.id }, 1)
    assert.deepEqual([...outcome.deleted].sort(), [target.id, child.id, grandchild.id].sort())
    assert.deepEqual(outcome.unset, [soft.id])
    const expected = { soft: [keep.id], parts: [{}, { to: keep.id }] }
    const published = await entries.get(t.admin, 'node', soft.id, reading())
    assert.deepEqual(JSON.parse(published.entry.fieldsJson), { title: 'Soft', ...expected })
    const draft = await entries.get(t.admin, 'node', soft.id, reading({ perspective: 'draft' }))
    assert.deepEqual(JSON.parse(draft.entry.fieldsJson), { title: 'Soft draft', ...expected })
    await assert.rejects(
      entries.get(t.admin, 'node', target.id, reading({ perspective: 'draft' })),
      { code: 'E_ENTRY_NOT_FOUND' },
    )
    await noneDangles(t)
    assert.deepEqual(await brokenInvariants(t.database), [])
  },
)

test(
  'an asset is taken out of fields that say unset, unless a field restricts',
  { skip },
  async () => {
    const gallery: ContentType = {
      name: 'gallery',
      label: 'Gallery',
      fields: [
        { name: 'images', kind: 'asset', many: true, onDelete: 'unset' },
        { name: 'cover', kind: 'asset' },
      ],
    }
    await using t = await testContent({ types: [gallery] })
    const { entries } = t.content
    const asset = '0197a000-0000-7000-8000-0000000000f1'
    const missing = '0197a000-0000-7000-8000-0000000000f2'
    await t.database.run(
      sql<object>(`insert into stoa.asset (id, name, content_type, bytes, blob, alt, search,
        created_at, created_by)
      values ($1, 'a.png', 'image/png', 1, repeat('a', 64), '{}', '', now(), '{}')`),
      [asset],
    )
    await assert.rejects(entries.create(t.admin, 'gallery', input({ images: [missing] })), {
      code: 'E_VALIDATION',
    })
    const one = await entries.create(t.admin, 'gallery', input({ images: [asset] }, true))
    const two = await entries.create(t.admin, 'gallery', input({ cover: asset }))
    assert.deepEqual(await entries.takeOutAsset(t.admin, asset), [])
    await entries.save(
      t.admin,
      { type: 'gallery', id: two.id },
      { ...input({ cover: null }), merge: true },
      null,
    )
    assert.deepEqual(await entries.takeOutAsset(t.admin, asset), [one.id])
    assert.equal(
      (await entries.get(t.admin, 'gallery', one.id, reading())).entry.fieldsJson,
      '{"images":[]}',
    )
    assert.deepEqual(await t.database.run(sql<object>('select 1 from stoa.reference')), [])
  },
)

test('a reference made while its target is deleted never dangles', { skip }, async () => {
  await using t = await testContent({ types, connectionsMax: 20 })
  const { entries } = t.content
  for (let round = 0; round < 10; round += 1) {
    const target = await entries.create(t.admin, 'node', input({ title: 'T' }))
    const from = await entries.create(t.admin, 'node', input({ title: 'F' }))
    await Promise.allSettled([
      entries.save(
        t.admin,
        { type: 'node', id: from.id },
        { ...input({ hard: target.id }), merge: true },
        null,
      ),
      entries.delete(t.admin, { type: 'node', id: target.id }, null),
      entries.create(t.admin, 'node', input({ soft: [target.id] })),
    ])
  }
  await noneDangles(t)
})

test(
  'an old version that refers to a deleted entry is never published, not by a release either',
  { skip },
  async () => {
    await using t = await testContent({ types })
    const { entries, releases } = t.content
    const [target, kept] = [
      await entries.create(t.admin, 'node', input({ title: 'T' })),
      await entries.create(t.admin, 'node', input({ title: 'K' })),
    ]
    const { id } = await entries.create(
      t.admin,
      'node',
      input({ title: 'v1', soft: [target.id, kept.id] }, true),
    )
    const release = async (version: number): Promise<string> => {
      const { id: made } = await releases.create(t.admin, 'R')
      await releases.put(t.admin, made, [{ entryId: id, locale: 'en', action: 'publish', version }])
      return made
    }
    await entries.save(
      t.admin,
      { type: 'node', id },
      { ...input({ title: 'v2', soft: [kept.id] }), merge: true },
      null,
    )
    const over = await release(2)
    await releases.publish(t.admin, over)
    assert.deepEqual(
      (await entries.delete(t.admin, { type: 'node', id: target.id }, null)).unset,
      [],
    )
    const refused = { code: 'E_VALIDATION', message: /deleted/ }
    await assert.rejects(
      entries.publish(t.admin, { type: 'node', id }, { locales: null, version: 1 }, null),
      refused,
    )
    const keptBack = { code: 'E_RELEASE_REFUSED', message: /deleted/ }
    await assert.rejects(releases.publish(t.admin, await release(1)), keptBack)
    await assert.rejects(releases.undo(t.admin, over), keptBack)
    await assert.rejects(
      entries.restore(t.admin, { type: 'node', id }, { locale: null, version: 1 }, null),
      {
        code: 'E_VALIDATION',
      },
    )
    assert.equal((await entries.get(t.admin, 'node', id, reading())).entry.version, 2)
    await noneDangles(t)
    assert.deepEqual(await brokenInvariants(t.database), [])
  },
)

test(
  'publishing an old version and deleting its target wait for each other',
  { skip },
  async () => {
    await using t = await testContent({ types })
    const { entries } = t.content
    const target = await entries.create(t.admin, 'node', input({ title: 'T' }))
    const { id } = await entries.create(t.admin, 'node', input({ title: 'v1', hard: target.id }))
    await entries.save(
      t.admin,
      { type: 'node', id },
      { ...input({ title: 'v2', hard: null }), merge: true },
      null,
    )
    const publication = await heldOpen(t, (call) =>
      entries.publish(call, { type: 'node', id }, { locales: null, version: 1 }, null),
    )
    const deletion = entries.delete(t.admin, { type: 'node', id: target.id }, null)
    await untilWaiting(t, 1)
    const stopped = assert.rejects(deletion, { code: 'E_ENTRY_REFERENCED' })
    await publication.end()
    await stopped
    await entries.unpublish(t.admin, { type: 'node', id }, null, null)
    const second = await heldOpen(t, (call) =>
      entries.delete(call, { type: 'node', id: target.id }, null),
    )
    const late = entries.publish(t.admin, { type: 'node', id }, { locales: null, version: 1 }, null)
    await untilWaiting(t, 1)
    const refused = assert.rejects(late, { code: 'E_VALIDATION' })
    await second.end()
    await refused
    await noneDangles(t)
  },
)

test('a deletion goes on from what referrers are once it has their locks', { skip }, async () => {
  await using t = await testContent({ types })
  const { entries, releases } = t.content
  const target = await entries.create(t.admin, 'node', input({ title: 'T' }))
  const from = async (fields: Record<string, unknown>): Promise<string> =>
    (await entries.create(t.admin, 'node', input({ ...fields, soft: [target.id] }))).id
  const [letsGo, gone, archived] = [
    await from({ owner: target.id }),
    await from({ owner: target.id }),
    await from({}),
  ]
  await entries.archive(t.admin, { type: 'node', id: archived }, true, null)
  const other = await heldOpen(t, async (call) => {
    await entries.save(
      call,
      { type: 'node', id: letsGo },
      { ...input({ owner: null, soft: [] }), merge: true },
      null,
    )
    await entries.delete(call, { type: 'node', id: gone }, null)
  })
  const deletion = entries.delete(t.admin, { type: 'node', id: target.id }, null)
  await untilWaiting(t, 1)
  const { id: release } = await releases.create(t.admin, 'R')
  const put = releases.put(t.admin, release, [
    { entryId: target.id, locale: 'en', action: 'unpublish', version: null },
  ])
  await untilWaiting(t, 2)
  const refused = assert.rejects(put, { code: 'E_ENTRY_NOT_FOUND' })
  await other.end()
  assert.deepEqual(await deletion, { deleted: [target.id], unset: [archived] })
  await refused
  assert.equal(
    (await entries.get(t.admin, 'node', letsGo, reading({ perspective: 'draft' }))).entry
      .fieldsJson,
    '{"soft":[]}',
  )
  await entries.archive(t.admin, { type: 'node', id: archived }, false, null)
  assert.equal(
    (
      await entries.publish(
        t.admin,
        { type: 'node', id: archived },
        { locales: null, version: 2 },
        null,
      )
    )[0]?.status,
    'published',
  )
  await noneDangles(t)
  assert.deepEqual(await brokenInvariants(t.database), [])
})

test(
  'deleting a target follows the type as it is now, not as it was when the reference was saved',
  { skip },
  async () => {
    await using t = await testContent({
      types: [
        { name: 'target', label: 'Target', fields: [{ name: 'title', kind: 'text' }] },
        {
          name: 'holder',
          label: 'Holder',
          fields: [
            { name: 'title', kind: 'text' },
            { name: 'to', kind: 'reference', onDelete: 'cascade' },
          ],
        },
      ],
    })
    const define = (onDelete: 'restrict' | 'cascade' | null): Promise<unknown> =>
      // In a transaction of the caller, the entries are not upgraded afterwards.
      t.database.transaction((tx) =>
        t.content.types.save(
          tx,
          {
            name: 'holder',
            label: 'Holder',
            fields: [
              { name: 'title', kind: 'text' },
              ...(onDelete === null ? [] : [{ name: 'to', kind: 'reference', onDelete } as const]),
            ],
          },
          { expected: null, allowLoss: true },
        ),
      )
    const pair = async (): Promise<{ readonly target: string; readonly holder: string }> => {
      const target = await t.content.entries.create(t.admin, 'target', input({ title: 'T' }))
      const holder = await t.content.entries.create(
        t.admin,
        'holder',
        input({ title: 'H', to: target.id }, true),
      )
      return { target: target.id, holder: holder.id }
    }
    const first = await pair()
    const second = await pair()
    await define('restrict')
    await assert.rejects(
      t.content.entries.delete(t.admin, { type: 'target', id: first.target }, null),
      {
        code: 'E_ENTRY_REFERENCED',
      },
    )
    await define('cascade')
    await define(null)
    assert.deepEqual(
      await t.content.entries.delete(t.admin, { type: 'target', id: first.target }, null),
      {
        deleted: [first.target],
        unset: [],
      },
    )
    await noneDangles(t)
    while ((await t.content.types.states(t.database)).some((state) => !state.settled))
      await t.content.types.settle(t.database)
    assert.deepEqual(await t.database.run(sql(`select 1 from stoa.reference`)), [])
    for (const id of [first.holder, second.holder])
      await t.content.entries.get(t.admin, 'holder', id, reading())
  },
)

test(
  'a deletion that has more references to look at than it may is refused, not done in part',
  { skip },
  async () => {
    await using t = await testContent({ types })
    const target = await t.content.entries.create(t.admin, 'node', input({ title: 'T' }))
    await t.database.run(
      sql<object>(`
        with made as (
          insert into stoa.entry (id, type, created_by)
          select ('00000000-0000-7000-8000-' || lpad(n::text,
            12, '0'))::uuid, 'node', '{"kind":"system","id":null,"name":"Stoa"}'
          from generate_series(1, 1000) n returning id
        )
        insert into stoa.reference (entry_id, locale, perspective, path, target_kind, target_id)
        select id, 'l' || k, 'draft', 'soft', 'entry', $1 from made, generate_series(1, 11) k`),
      [target.id],
    )
    const restricting = await t.content.entries.create(
      t.admin,
      'node',
      input({ title: 'R', hard: target.id }),
    )
    await assert.rejects(t.content.entries.delete(t.admin, { type: 'node', id: target.id }, null), {
      code: 'E_DELETE_TOO_WIDE',
    })
    const kept = await t.content.entries.get(
      t.admin,
      'node',
      restricting.id,
      reading({ perspective: 'draft', include: ['hard'] }),
    )
    assert.ok(kept.included.has(target.id))
  },
)
