import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { newId } from '#lib/id.ts'
import { brokenInvariants, heldOpen, testContent, untilWaiting } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

test(
  'a reserved entry is released unless it is saved or referred to at that very moment',
  { skip },
  async () => {
    await using t = await testContent({
      types: [
        {
          name: 'page',
          label: 'Page',
          fields: [
            { name: 'title', kind: 'text' },
            { name: 'next', kind: 'reference' },
          ],
        },
      ],
    })
    const { bulk } = t.content
    const [saved, referred, unused] = [newId(), newId(), newId()]
    const ids = [saved, referred, unused]
    assert.deepEqual((await bulk.reserve(t.admin, 'page', ids)).sort(), [...ids].sort())
    const other = await heldOpen(t, (call) =>
      bulk.save(call, 'page', [
        { id: saved, locale: 'en', fields: { title: 'Saved', next: referred }, publish: true },
      ]),
    )
    const released = bulk.release(t.admin, 'page', ids)
    await untilWaiting(t, 1)
    await other.end()
    assert.deepEqual(await released, [unused])
  },
)

test(
  'an item that would make another locale too large is refused, and that locale stays as it was',
  { skip },
  async () => {
    await using t = await testContent({
      locales: ['de'],
      types: [
        {
          name: 'page',
          label: 'Page',
          fields: [
            { name: 'title', kind: 'text', localized: true },
            { name: 'body', kind: 'markdown' },
            { name: 'text', kind: 'markdown', localized: true },
          ],
        },
      ],
    })
    const { bulk } = t.content
    const [large, small] = [newId(), newId()]
    const item = (id: string, locale: string, fields: Record<string, unknown>) => ({
      id,
      locale,
      fields,
      publish: false,
    })
    await bulk.save(t.admin, 'page', [
      item(large, 'en', { title: 'A' }),
      item(large, 'de', { text: '漢'.repeat(300_000) }),
    ])
    const outcomes = await bulk.save(t.admin, 'page', [
      item(large, 'en', { body: 'b'.repeat(200_000) }),
      item(small, 'en', { title: 'B' }),
    ])
    assert.deepEqual(
      outcomes.map((one) => one.outcome),
      ['refused', 'made'],
    )
    assert.deepEqual(await brokenInvariants(t.database), [])
    const there = await t.content.entries.locales(t.admin, { type: 'page', id: large }, 'draft')
    assert.deepEqual(
      there.map((entry) => [entry.locale, entry.version]),
      [
        ['en', 1],
        ['de', 1],
      ],
    )
  },
)

test('a refused item leaves no entry behind', { skip }, async () => {
  await using t = await testContent({
    types: [
      {
        name: 'page',
        label: 'Page',
        fields: [
          { name: 'title', kind: 'text', required: true },
          { name: 'next', kind: 'reference' },
        ],
      },
    ],
  })
  const { bulk } = t.content
  const [dangling, incomplete, good] = [newId(), newId(), newId()]
  const outcomes = await bulk.save(t.admin, 'page', [
    { id: dangling, locale: 'en', fields: { title: 'A', next: newId() }, publish: false },
    { id: incomplete, locale: 'en', fields: {}, publish: true },
    { id: good, locale: 'en', fields: { title: 'B' }, publish: true },
  ])
  assert.deepEqual(
    outcomes.map((one) => one.outcome),
    ['refused', 'refused', 'made'],
  )
  assert.deepEqual(
    (await t.database.run(sql<{ id: string }>(`select id from stoa.entry`))).map((row) => row.id),
    [good],
  )
})
