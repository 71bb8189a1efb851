import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import { ForbiddenError, ValidationError } from '#content/errors.ts'
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

const note: ContentType = {
  name: 'note',
  label: 'Note',
  fields: [
    { name: 'title', kind: 'text', localized: true },
    { name: 'shared', kind: 'text' },
  ],
}
const options = { types: [note], locales: ['de'] }
const input = (fields: Record<string, unknown>, publish = false, locale: string | null = null) => ({
  locale,
  fields,
  publish,
  merge: true,
})
const byTable = sql<{ held: string; kept: string }>(`
  select (select coalesce(string_agg(number::text, ' ' order by number), '')
    from stoa.version) as held,
    (select coalesce(string_agg(number::text, ' ' order by number), '')
      from stoa.version_history) as kept`)

async function draftOf(
  { content, admin }: TestContent,
  id: string,
  locale: string,
): Promise<{ version: number; fields: unknown }> {
  const { entry } = await content.entries.get(
    admin,
    'note',
    id,
    reading({ perspective: 'draft', locale }),
  )
  return { version: entry.version, fields: JSON.parse(entry.fieldsJson) }
}

test(
  'versions out of use move to the history, stay readable there, and come back when published',
  { skip },
  async () => {
    await using t = await testContent(options)
    const { entries } = t.content
    const { id } = await entries.create(t.admin, 'note', input({ title: 'v1' }, true))
    const other = await entries.create(t.admin, 'note', input({ title: 'other' }))
    await entries.delete(t.admin, { type: 'note', id: other.id }, null)
    for (let i = 2; i <= 4; i += 1)
      await entries.save(t.admin, { type: 'note', id }, input({ title: `v${i}` }), null)
    assert.deepEqual(await t.database.run(byTable), [{ held: '1 4', kept: '2 3' }])
    await entries.publish(t.admin, { type: 'note', id }, { locales: null, version: 2 }, null)
    assert.deepEqual(await t.database.run(byTable), [{ held: '2 4', kept: '1 3' }])
    await entries.publish(t.admin, { type: 'note', id }, { locales: null, version: null }, null)
    assert.deepEqual(await t.database.run(byTable), [{ held: '4', kept: '1 2 3' }])
    const listed = await entries.versions(
      t.admin,
      { type: 'note', id },
      {
        locale: null,
        limit: 10,
        before: null,
      },
    )
    assert.deepEqual(
      listed.map((one) => [one.version, one.publishedAt !== null, one.isLatest]),
      [
        [4, true, true],
        [3, false, false],
        [2, true, false],
        [1, true, false],
      ],
    )
    for (let i = 1; i <= 4; i += 1)
      assert.equal(
        (await entries.version(t.admin, { type: 'note', id }, { locale: null, version: i }))
          .fieldsJson,
        `{"title":"v${i}"}`,
      )
    // The trigger keeps the version before, also when other statements write.
    await t.database.run(
      sql<object>(
        `update stoa.version set number = number + 1, is_published = false,
          data = '{"title":"by hand"}'`,
      ),
    )
    assert.equal(
      (await entries.version(t.admin, { type: 'note', id }, { locale: null, version: 4 }))
        .fieldsJson,
      '{"title":"v4"}',
    )
    await entries.delete(t.admin, { type: 'note', id }, null)
    assert.deepEqual(await t.database.run(byTable), [{ held: '', kept: '' }])
  },
)

test(
  'history keeps when each version itself was published, also after later publishing',
  { skip },
  async () => {
    let nowMs = Date.parse('2026-01-01T00:00:00Z')
    const clock = { nowMs: () => (nowMs += 1_000), monotonicMs: () => performance.now() }
    await using t = await testContent({ ...options, clock })
    const { entries } = t.content
    const dates = async (): Promise<(string | null)[]> => {
      const page = { locale: null, limit: 10, before: null }
      const listed = await entries.versions(t.admin, { type: 'note', id }, page)
      for (const { version, publishedAt, publishedBy } of listed) {
        const one = await entries.version(t.admin, { type: 'note', id }, { locale: null, version })
        assert.equal(one.publishedAt, publishedAt)
        assert.equal(publishedBy === null, publishedAt === null)
      }
      return listed.map((one) => one.publishedAt).toReversed()
    }
    const first = await entries.create(t.admin, 'note', input({ title: 'v1' }, true))
    const { id } = first
    const second = await entries.save(
      t.admin,
      { type: 'note', id },
      input({ title: 'v2' }, true),
      null,
    )
    assert.deepEqual(await dates(), [first.publishedAt, second.publishedAt])
    const only = (version: number) => ({ locales: null, version })
    const [again] = await entries.publish(t.admin, { type: 'note', id }, only(1), null)
    assert.deepEqual(await dates(), [again!.publishedAt, second.publishedAt])
    await entries.unpublish(t.admin, { type: 'note', id }, null, null)
    assert.deepEqual(await dates(), [again!.publishedAt, second.publishedAt])
    await entries.save(t.admin, { type: 'note', id }, input({ title: 'v3' }), null)
    assert.deepEqual(await dates(), [again!.publishedAt, second.publishedAt, null])
    await entries.publish(t.admin, { type: 'note', id }, only(2), null)
    assert.equal((await dates())[2], null)
  },
)

test(
  'a save that waits for one who adds a locale carries what all locales share',
  { skip },
  async () => {
    await using t = await testContent(options)
    const { entries } = t.content
    for (const remembered of [true, false]) {
      const { id } = await entries.create(t.admin, 'note', input({ title: 'one', shared: 'a' }))
      if (remembered)
        await entries.save(t.admin, { type: 'note', id }, input({ shared: 'b' }), null)
      const adding = await heldOpen(t, (call) =>
        entries.save(call, { type: 'note', id }, input({ title: 'eins' }, false, 'de'), null),
      )
      const saving = entries.save(t.admin, { type: 'note', id }, input({ shared: 'c' }), null)
      await untilWaiting(t, 1)
      await adding.end()
      await saving
      assert.deepEqual((await draftOf(t, id, 'de')).fields, { title: 'eins', shared: 'c' })
    }
    assert.deepEqual(await brokenInvariants(t.database), [])
  },
)

test(
  'who waits for a first draft beside the published version goes on from that draft',
  { skip },
  async () => {
    await using t = await testContent(options)
    const { entries } = t.content
    const { id } = await entries.create(t.admin, 'note', input({ title: 'one' }, true))
    const drafting = await heldOpen(t, (call) =>
      entries.save(call, { type: 'note', id }, input({ title: 'two' }), null),
    )
    const publishing = entries.publish(
      t.admin,
      { type: 'note', id },
      { locales: null, version: null },
      null,
    )
    await untilWaiting(t, 1)
    await drafting.end()
    assert.equal((await publishing)[0]?.version, 2)
    assert.deepEqual(await brokenInvariants(t.database), [])
  },
)

test(
  'who waits for a save numbers on from it, and a save that waits is not lost',
  { skip },
  async () => {
    await using t = await testContent(options)
    const { entries } = t.content
    const { id } = await entries.create(t.admin, 'note', input({ title: 'one' }))
    const saving = await heldOpen(t, (call) =>
      entries.save(call, { type: 'note', id }, input({ title: 'two' }), null),
    )
    const publishing = entries.save(
      t.admin,
      { type: 'note', id },
      input({ shared: 'x' }, true),
      null,
    )
    await untilWaiting(t, 1)
    await saving.end()
    assert.equal((await publishing).version, 3)
    assert.deepEqual(await draftOf(t, id, 'en'), {
      version: 3,
      fields: { title: 'two', shared: 'x' },
    })
    const archiving = await heldOpen(t, (call) =>
      entries.archive(call, { type: 'note', id }, true, null),
    )
    const late = assert.rejects(
      entries.save(t.admin, { type: 'note', id }, input({ title: 'late' }), null),
      {
        code: 'E_ENTRY_ARCHIVED',
      },
    )
    await untilWaiting(t, 1)
    await archiving.end()
    await late
    const deleting = await heldOpen(t, (call) => entries.delete(call, { type: 'note', id }, 3))
    const gone = assert.rejects(
      entries.save(t.admin, { type: 'note', id }, input({ title: 'late' }), null),
      {
        code: /E_ENTRY_(NOT_FOUND|ARCHIVED)/,
      },
    )
    await deleting.end()
    await gone
    assert.deepEqual(await brokenInvariants(t.database), [])
  },
)

test(
  'a save that publishes a published entry replaces it in place, and says no where a publish would',
  { skip },
  async () => {
    await using t = await testContent({
      types: [
        { name: 'note', label: 'Note', fields: [{ name: 'title', kind: 'text', required: true }] },
      ],
    })
    const { entries } = t.content
    const { id } = await entries.create(t.admin, 'note', {
      locale: null,
      fields: { title: 'one' },
      publish: true,
    })
    const saves = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        entries.save(
          t.admin,
          { type: 'note', id },
          { locale: null, fields: { title: `save ${index}` }, merge: true, publish: true },
          null,
        ),
      ),
    )
    assert.deepEqual(
      saves.map((save) => save.version).sort((a, b) => a - b),
      Array.from({ length: 20 }, (_, index) => index + 2),
      'each is a version of its own',
    )
    assert.deepEqual(await brokenInvariants(t.database), [])
    const { entry } = await entries.get(t.admin, 'note', id, reading())
    const last = saves.find((save) => save.version === 21)!
    assert.deepEqual(
      [entry.version, entry.status, entry.fieldsJson],
      [21, 'published', last.fieldsJson],
    )
    const versions = await entries.versions(
      t.admin,
      { type: 'note', id },
      {
        locale: null,
        limit: 100,
        before: null,
      },
    )
    assert.deepEqual(
      [
        versions.length,
        versions.filter((version) => version.isPublished).map((version) => version.version),
        versions.every((version) => version.publishedAt !== null),
      ],
      [21, [21], true],
    )
    await assert.rejects(
      entries.save(
        t.admin,
        { type: 'note', id },
        { locale: null, fields: { title: null }, merge: true, publish: true },
        null,
      ),
      ValidationError,
    )
    const mayUpdate = t.call({ note: { read: true, readDraft: true, update: true } })
    await assert.rejects(
      entries.save(
        mayUpdate,
        { type: 'note', id },
        { locale: null, fields: { title: 'mine' }, merge: true, publish: true },
        null,
      ),
      ForbiddenError,
    )
    const draft = await entries.save(
      mayUpdate,
      { type: 'note', id },
      { locale: null, fields: { title: 'draft' }, merge: true },
      null,
    )
    assert.deepEqual([draft.version, draft.status], [22, 'changed'])
  },
)
