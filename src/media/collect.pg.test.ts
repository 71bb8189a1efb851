import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import type { Asset } from '#media/media.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { editor, from, testMedia } from '#test/support/media.ts'

const skip = databaseMissing

test(
  'a rollback after the upload leaves only what is collected after the grace period',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    await assert.rejects(
      db.database.transaction(async (tx) => {
        await parts.media.upload(tx, editor, { name: 'a.txt', source: from('never recorded') })
        throw new Error('the caller changed its mind')
      }),
      /changed its mind/,
    )
    const keep = await parts.media.upload(db.database, editor, {
      name: 'b.txt',
      source: from('recorded'),
    })
    assert.deepEqual((await parts.media.list({ limit: 10, after: null, search: null })).data, [
      keep,
    ])
    const hour = 3_600_000
    assert.deepEqual(await parts.media.collect({ olderThanMs: hour, dryRun: false }), {
      blobs: 0,
      bytes: 0,
      uploads: 0,
    })
    parts.clock.aheadMs = hour + 1_000
    assert.deepEqual(await parts.media.collect({ olderThanMs: hour, dryRun: true }), {
      blobs: 1,
      bytes: 14,
      uploads: 0,
    })
    assert.equal((await parts.files()).length, 2)
    assert.deepEqual(await parts.media.collect({ olderThanMs: hour, dryRun: false }), {
      blobs: 1,
      bytes: 14,
      uploads: 0,
    })
    assert.deepEqual(await parts.files(), [keep.blob])
  },
)

test(
  'bytes that are put again start their grace period anew, and those of a deleted asset begin one',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const { media, clock } = parts
    const hour = 3_600_000
    await media.receive(editor, { name: 'a', source: from('again') })
    clock.aheadMs = -10 * hour
    const old = await media.upload(db.database, editor, { name: 'b', source: from('deleted') })
    clock.aheadMs = hour / 2
    await media.receive(editor, { name: 'a', source: from('again') })
    await media.delete(db.database, old.id)
    clock.aheadMs = hour - 10_000
    assert.equal((await media.collect({ olderThanMs: hour, dryRun: false })).blobs, 0)
    clock.aheadMs = hour + 10_000
    assert.deepEqual(await media.collect({ olderThanMs: hour, dryRun: false }), {
      blobs: 1,
      bytes: 7,
      uploads: 0,
    })
    clock.aheadMs = 2 * hour
    assert.equal((await media.collect({ olderThanMs: hour, dryRun: false })).blobs, 1)
    assert.deepEqual(await parts.files(), [])
    assert.deepEqual(await db.database.run(sql(`select * from stoa.blob_release`)), [])
  },
)

test(
  'a collection never wins against an upload of equal bytes, whatever the order',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    await using parts = await testMedia(db.database)
    const { media, store, clock } = parts
    const upload = (name: string): Promise<Asset> =>
      media.upload(db.database, editor, { name, source: from('contested') })
    // The upload comes while the collector, which found the blob unused, is about to delete it.
    await media.receive(editor, { name: 'x', source: from('contested') })
    clock.aheadMs = 100_000
    store.beforeDelete = async () => {
      store.beforeDelete = async () => undefined
      await store.put(from('contested'), { bytesMax: 100 })
    }
    assert.equal(
      (await media.collect({ olderThanMs: 50_000, dryRun: false })).blobs,
      0,
      'the put refreshed the time',
    )
    // The collection comes between the upload's put and its record: it must see the fresh time.
    clock.aheadMs = 200_000
    store.afterPut = async () => {
      store.afterPut = async () => undefined
      assert.equal((await media.collect({ olderThanMs: 50_000, dryRun: false })).blobs, 0)
    }
    const asset = await upload('a')
    assert.equal(
      (
        await buffer(await media.original(await media.find(db.database, asset.id)).open())
      ).toString(),
      'contested',
    )
    // With a grace period of less than nothing it may win, and then the upload fails, and no
    // asset is without its file.
    await media.delete(db.database, asset.id)
    store.afterPut = async () => {
      store.afterPut = async () => undefined
      assert.equal((await media.collect({ olderThanMs: -1_000_000, dryRun: false })).blobs, 1)
    }
    await assert.rejects(upload('b'), { code: 'E_UPLOAD_LOST' })
    assert.deepEqual((await media.list({ limit: 10, after: null, search: null })).data, [])
  },
)

test(
  'uploads and collections without any grace, all at once: each asset there is has its bytes',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 30 })
    await using parts = await testMedia(db.database)
    const { media, another } = parts
    const other = another()
    let lost = 0
    const uploader = async (): Promise<void> => {
      for (let round = 0; round < 15; round += 1) {
        const asset = await media
          .upload(db.database, editor, { name: 'x', source: from(`contested ${round % 2}`) })
          .catch((error: unknown) => {
            assert.equal((error as { code?: string }).code, 'E_UPLOAD_LOST')
            lost += 1
            return null
          })
        if (asset === null) continue
        assert.equal(
          (
            await buffer(await media.original(await media.find(db.database, asset.id)).open())
          ).toString(),
          `contested ${round % 2}`,
        )
        await media.delete(db.database, asset.id)
      }
    }
    const done = new AbortController()
    const collector = async (): Promise<void> => {
      while (!done.signal.aborted) await other.collect({ olderThanMs: -1_000_000, dryRun: false })
    }
    const collecting = Promise.all([collector(), collector()])
    const uploads = await Promise.allSettled([uploader(), uploader(), uploader()])
    done.abort()
    await collecting
    assert.deepEqual(
      uploads.map((result) => (result.status === 'rejected' ? result.reason : null)),
      [null, null, null],
    )
    await other.collect({ olderThanMs: -1_000_000, dryRun: false })
    assert.deepEqual(await parts.files(), [], `lost: ${lost}`)
  },
)
