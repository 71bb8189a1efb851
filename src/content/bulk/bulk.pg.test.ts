import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBulk } from '#content/bulk/create-bulk.ts'
import { systemClock } from '#lib/clock.ts'
import { newId } from '#lib/id.ts'
import { silentLogger } from '#lib/logger.ts'
import { heldOpen, testContent, untilWaiting } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

test('what was reserved is released unless somebody saves it, or refers to it, at that very moment', { skip }, async () => {
  await using t = await testContent({ types: [{ name: 'page', label: 'Page', fields: [{ name: 'title', kind: 'text' }, { name: 'next', kind: 'reference' }] }] })
  const bulk = createBulk({ clock: systemClock, logger: silentLogger })
  const [saved, referred, unused] = [newId(), newId(), newId()]
  const ids = [saved, referred, unused]
  assert.deepEqual((await bulk.reserve(t.admin, 'page', ids)).sort(), [...ids].sort())
  const other = await heldOpen(t, (call) => bulk.save(call, 'page', [{ id: saved, locale: 'en', fields: { title: 'Saved', next: referred }, publish: true }]))
  const released = bulk.release(t.admin, 'page', ids)
  await untilWaiting(t, 1)
  await other.end()
  assert.deepEqual(await released, [unused])
})
