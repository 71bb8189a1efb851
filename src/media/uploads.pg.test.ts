import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'
import {
  AssetInputError,
  MediaBusyError,
  UploadChecksumError,
  UploadNotFoundError,
  UploadOffsetError,
  UploadRefusedError,
  UploadTooLargeError,
} from '#media/errors.ts'
import type { Database } from '#database/database.ts'
import type { Media } from '#media/media.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { digest, editor, testMedia } from '#test/support/media.ts'

const skip = databaseMissing
const stranger: Actor = { ...editor, id: '01890000-0000-7000-8000-000000000002' }
const limits = { uploadPartBytes: 10_000, uploadBytesMax: 1_000_000 }

function bytes(count: number, seed = 1): Buffer {
  return Buffer.from(
    Array.from({ length: count }, (_, index) => (index * 31 + seed * 7 + (index >> 8)) % 256),
  )
}

function stream(data: Buffer): Readable {
  return Readable.from([data])
}

/** Sends `data`, then breaks as a connection does. */
function cut(data: Buffer): Readable {
  return Readable.from(
    (async function* () {
      for (let at = 0; at < data.length; at += 1_500)
        yield data.subarray(at, Math.min(at + 1_500, data.length))
      throw Object.assign(new Error('aborted'), { code: 'ECONNRESET' })
    })(),
  )
}

async function contentOf(
  media: Media,
  database: Database,
  assetId: string | null,
): Promise<Buffer> {
  assert.ok(assetId !== null)
  return buffer(await media.original(await media.find(database, assetId)).open())
}

test('an upload in pieces becomes the asset, and its parts are gone', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, limits)
  const { uploads } = parts.media
  const data = bytes(45_000)
  const { id, received, assetId } = await uploads.create(editor, {
    name: '../film.bin',
    bytes: data.length,
    alt: { en: 'x' },
  })
  assert.deepEqual([received, assetId], [0, null])
  const half = await uploads.append(editor, id, {
    offset: 0,
    source: stream(data.subarray(0, 22_222)),
    checksum: null,
  })
  assert.deepEqual([half.received, half.assetId], [22_222, null])
  const whole = await uploads.append(editor, id, {
    offset: 22_222,
    source: stream(data.subarray(22_222)),
    checksum: null,
  })
  assert.ok((await contentOf(parts.media, db.database, whole.assetId)).equals(data))
  const asset = await parts.media.get(whole.assetId!)
  assert.deepEqual([asset.name, asset.alt, asset.createdBy], ['film.bin', { en: 'x' }, editor])
  assert.deepEqual(await parts.files(), [digest(data)])
  assert.deepEqual(await uploads.status(editor, id), whole)
  const small = await uploads.create(editor, { name: 'small.txt', bytes: 5 })
  const done = await uploads.append(editor, small.id, {
    offset: 0,
    source: stream(Buffer.from('small')),
    checksum: null,
  })
  assert.equal((await contentOf(parts.media, db.database, done.assetId)).toString(), 'small')
})

test(
  'a connection that is cut loses nothing that arrived, and any node goes on',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, limits)
    const nodes = [parts.media, parts.another(), parts.another()]
    const data = bytes(64_000, 2)
    const { id } = await nodes[0]!.uploads.create(editor, { name: 'a.bin', bytes: data.length })
    let offset = 0
    for (let round = 0; offset < 60_000; round += 1) {
      const node = nodes[round % 3]!
      await assert.rejects(
        node.uploads.append(editor, id, {
          offset,
          source: cut(data.subarray(offset, offset + 13_337)),
          checksum: null,
        }),
        /aborted/,
      )
      const next = (await nodes[(round + 1) % 3]!.uploads.status(editor, id)).received
      assert.equal(next, Math.min(offset + 13_337, data.length))
      offset = next
    }
    const state = await nodes[1]!.uploads.status(editor, id)
    assert.ok(
      (await contentOf(nodes[2]!, db.database, state.assetId)).equals(data),
      'the last cut came after the last byte',
    )
    assert.deepEqual(await parts.files(), [digest(data)])
  },
)

test(
  'bytes that do not continue what is here are refused, and of two that do one wins',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, limits)
    const { uploads } = parts.media
    const data = bytes(9_000, 3)
    const { id } = await uploads.create(editor, { name: 'a.bin', bytes: data.length })
    await assert.rejects(
      uploads.append(editor, id, { offset: 1, source: stream(data), checksum: null }),
      (error) => error instanceof UploadOffsetError && error.facts['received'] === 0,
    )
    const results = await Promise.allSettled(
      [parts.media, parts.another()].map((node) =>
        node.uploads.append(editor, id, {
          offset: 0,
          source: stream(data.subarray(0, 4_000)),
          checksum: null,
        }),
      ),
    )
    assert.deepEqual(results.map((result) => result.status).sort(), ['fulfilled', 'rejected'])
    assert.ok(
      results.some(
        (result) => result.status === 'rejected' && result.reason instanceof UploadOffsetError,
      ),
    )
    const ends = await Promise.allSettled(
      [parts.media, parts.another(), parts.another()].map((node) =>
        node.uploads.append(editor, id, {
          offset: 4_000,
          source: stream(data.subarray(4_000)),
          checksum: null,
        }),
      ),
    )
    assert.ok(ends.some((result) => result.status === 'fulfilled'))
    const [first, second] = await Promise.all([
      parts.media.uploads.status(editor, id),
      parts.another().uploads.status(editor, id),
    ])
    assert.equal(first.assetId, second.assetId)
    assert.ok((await contentOf(parts.media, db.database, first.assetId)).equals(data))
    assert.equal((await parts.media.list({ limit: 10, after: null, search: null })).data.length, 1)
    // A part that a loser put again after the winner had recorded it counts as fresh, and is left
    // to the collection.
    parts.clock.aheadMs = 2 * 3_600_000
    await parts.media.collect({ olderThanMs: 3_600_000, dryRun: false })
    assert.deepEqual(await parts.files(), [digest(data)])
  },
)

test(
  'a request takes over from an older one of the same upload, which puts away what it has',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, limits)
    const { uploads } = parts.media
    const data = bytes(30_000, 6)
    const { id } = await uploads.create(editor, { name: 'a.bin', bytes: data.length })
    const stuck = new Readable({ read: () => undefined })
    stuck.push(data.subarray(0, 12_345))
    const older = uploads.append(editor, id, { offset: 0, source: stuck, checksum: null }).then(
      () => null,
      (error: unknown) => error,
    )
    for (let tries = 0; tries < 500 && (await parts.files()).length < 2; tries += 1)
      await new Promise((resolve) => setTimeout(resolve, 10))
    const { received } = await uploads.status(editor, id)
    assert.equal(received, 12_345)
    assert.ok((await older) instanceof UploadOffsetError)
    const state = await uploads.append(editor, id, {
      offset: received,
      source: stream(data.subarray(received)),
      checksum: null,
    })
    assert.ok((await contentOf(parts.media, db.database, state.assetId)).equals(data))
  },
)

test(
  'an upload whose node died between the last byte and the asset is finished by the next request',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, limits)
    const data = bytes(25_000, 4)
    const { id } = await parts.media.uploads.create(editor, { name: 'a.bin', bytes: data.length })
    await parts.media.uploads.append(editor, id, {
      offset: 0,
      source: stream(data.subarray(0, 20_000)),
      checksum: null,
    })
    parts.store.afterPut = async (blob) => {
      if (blob.bytes === data.length) throw new Error('the node died')
    }
    await assert.rejects(
      parts.media.uploads.append(editor, id, {
        offset: 20_000,
        source: stream(data.subarray(20_000)),
        checksum: null,
      }),
      /the node died/,
    )
    parts.store.afterPut = async () => undefined
    const states = await Promise.all(
      [parts.another(), parts.another(), parts.media].map((node) =>
        node.uploads.status(editor, id),
      ),
    )
    assert.equal(new Set(states.map((state) => state.assetId)).size, 1)
    assert.ok((await contentOf(parts.media, db.database, states[0]!.assetId)).equals(data))
    assert.equal((await parts.media.list({ limit: 10, after: null, search: null })).data.length, 1)
  },
)

test('a checksum holds for all of a request or for none of it', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, limits)
  const { uploads } = parts.media
  const data = bytes(30_000, 5)
  const { id } = await uploads.create(editor, { name: 'a.bin', bytes: data.length })
  const first = data.subarray(0, 20_000)
  const checksum = (algorithm: 'sha1' | 'sha256' | 'md5', of: Buffer) => ({
    algorithm,
    digest: Buffer.from(digest(of, algorithm), 'hex'),
  })
  await assert.rejects(
    uploads.append(editor, id, {
      offset: 0,
      source: stream(first),
      checksum: checksum('sha1', data),
    }),
    UploadChecksumError,
  )
  await assert.rejects(
    uploads.append(editor, id, {
      offset: 0,
      source: cut(first),
      checksum: checksum('sha1', first),
    }),
    /aborted/,
  )
  assert.equal((await uploads.status(editor, id)).received, 0)
  assert.deepEqual(await parts.files(), [])
  await uploads.append(editor, id, {
    offset: 0,
    source: stream(first),
    checksum: checksum('sha1', first),
  })
  const state = await uploads.append(editor, id, {
    offset: 20_000,
    source: stream(data.subarray(20_000)),
    checksum: checksum('md5', data.subarray(20_000)),
  })
  assert.ok((await contentOf(parts.media, db.database, state.assetId)).equals(data))
})

test('an upload belongs to its maker; to others it does not exist', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, limits)
  const { uploads } = parts.media
  const { id } = await uploads.create(editor, { name: 'a.bin', bytes: 10 })
  for (const [actor, key] of [
    [stranger, id],
    [editor, 'nonsense'],
    [{ ...editor, kind: 'token' } as const, id],
  ] as const) {
    await assert.rejects(uploads.status(actor, key), UploadNotFoundError)
    await assert.rejects(
      uploads.append(actor, key, { offset: 0, source: stream(bytes(10)), checksum: null }),
      UploadNotFoundError,
    )
    await assert.rejects(uploads.terminate(actor, key), UploadNotFoundError)
  }
  assert.equal((await uploads.status(editor, id)).received, 0)
})

test('what is ended or abandoned leaves nothing behind', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, limits)
  const { media, clock } = parts
  const begin = async (seed: number): Promise<string> => {
    const { id } = await media.uploads.create(editor, { name: 'a.bin', bytes: 50_000 })
    await media.uploads.append(editor, id, {
      offset: 0,
      source: stream(bytes(25_000, seed)),
      checksum: null,
    })
    return id
  }
  const ended = await begin(1)
  assert.equal((await parts.files()).length, 3)
  await media.uploads.terminate(editor, ended)
  assert.deepEqual(await parts.files(), [])
  const abandoned = await begin(2)
  clock.aheadMs = 23 * 3_600_000
  assert.equal((await media.collect({ olderThanMs: 3_600_000, dryRun: false })).blobs, 0)
  const fresh = await begin(3)
  clock.aheadMs = 25 * 3_600_000
  await assert.rejects(media.uploads.status(editor, abandoned), UploadNotFoundError)
  assert.equal((await media.collect({ olderThanMs: 3_600_000, dryRun: true })).uploads, 1)
  assert.equal((await parts.files()).length, 6)
  assert.equal((await media.collect({ olderThanMs: 3_600_000, dryRun: false })).uploads, 1)
  assert.equal((await parts.files()).length, 3)
  await media.uploads.terminate(editor, fresh)
  assert.deepEqual(await parts.files(), [])
  assert.deepEqual(await db.database.run(sql(`select id from stoa.upload`)), [])
})

test('a part with the bytes of an asset goes without taking them along', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, limits)
  const asset = await parts.media.upload(db.database, editor, {
    name: 'a.bin',
    source: stream(bytes(10_000)),
  })
  const { id } = await parts.media.uploads.create(editor, { name: 'b.bin', bytes: 20_000 })
  await parts.media.uploads.append(editor, id, {
    offset: 0,
    source: stream(bytes(10_000)),
    checksum: null,
  })
  await parts.media.uploads.terminate(editor, id)
  assert.ok((await contentOf(parts.media, db.database, asset.id)).equals(bytes(10_000)))
})

test(
  'what cannot become an asset is refused as early as it is known, and then gone',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, { ...limits, uploadsPerOwnerMax: 3 })
    const { uploads } = parts.media
    await assert.rejects(uploads.create(editor, { name: 'a', bytes: 0 }), UploadRefusedError)
    await assert.rejects(
      uploads.create(editor, { name: 'a', bytes: 1_000_001 }),
      UploadTooLargeError,
    )
    for (const count of [-1, 1.5, NaN])
      await assert.rejects(uploads.create(editor, { name: 'a', bytes: count }), AssetInputError)
    const html = Buffer.from('<!doctype html><script>alert(1)</script>')
    const one = await uploads.create(editor, { name: 'photo.jpg', bytes: html.length })
    await assert.rejects(
      uploads.append(editor, one.id, { offset: 0, source: stream(html), checksum: null }),
      UploadRefusedError,
    )
    await assert.rejects(uploads.status(editor, one.id), UploadNotFoundError)
    const two = await uploads.create(editor, { name: 'a.txt', bytes: 3 })
    await assert.rejects(
      uploads.append(editor, two.id, {
        offset: 0,
        source: stream(Buffer.from('four')),
        checksum: null,
      }),
      AssetInputError,
    )
    await assert.rejects(uploads.status(editor, two.id), UploadNotFoundError)
    assert.deepEqual(await parts.files(), [])
    for (let count = 0; count < 3; count += 1) await uploads.create(editor, { name: 'a', bytes: 1 })
    await assert.rejects(uploads.create(editor, { name: 'a', bytes: 1 }), MediaBusyError)
    await uploads.create(stranger, { name: 'a', bytes: 1 })
  },
)

test('no caller begins more uploads than the limit, also not all at once', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, { ...limits, uploadsPerOwnerMax: 3 })
  const begun = await Promise.allSettled(
    Array.from({ length: 12 }, async () =>
      parts.media.uploads.create(editor, { name: 'a', bytes: 5 }),
    ),
  )
  assert.equal(begun.filter((one) => one.status === 'fulfilled').length, 3)
  assert.ok(
    begun.every((one) => one.status === 'fulfilled' || one.reason instanceof MediaBusyError),
  )
  await parts.media.uploads.create(stranger, { name: 'a', bytes: 5 })
})
