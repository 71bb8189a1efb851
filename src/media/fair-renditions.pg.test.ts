import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'node:test'
import sharp from 'sharp'
import { sql } from '#database/database.ts'
import { MediaBusyError, RenditionError } from '#media/errors.ts'
import { cropRatios, widthSteps } from '#media/rendition-plan.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { editor, renditionOf, testMedia } from '#test/support/media.ts'

const skip = databaseMissing

async function noise(width: number, height: number): Promise<Buffer> {
  return sharp({
    create: {
      width,
      height,
      channels: 3,
      background: '#336699',
      noise: { type: 'gaussian', mean: 128, sigma: 40 },
    },
  })
    .jpeg()
    .toBuffer()
}

/** Every crop of every width: more than any page asks for. */
const variants = widthSteps.flatMap((width) =>
  cropRatios.map((ratio) => ({ width, height: Math.max(1, Math.round(width / ratio)) })),
)

test(
  'callers who ask for the variants of one picture without end do not delay another picture',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const { media } = parts
    const [large, small] = await Promise.all(
      [await noise(2_400, 1_600), await noise(300, 200)].map((data, index) =>
        media.upload(db.database, editor, {
          name: `${index}.jpg`,
          source: Readable.from([data]),
        }),
      ),
    )
    const ended = new AbortController()
    const loop = async (caller: string): Promise<void> => {
      for (let index = 0; !ended.signal.aborted; index += 1) {
        const options = { ...variants.at(-1 - (index % 200))!, format: 'avif' } as const
        await renditionOf(media, db.database, { id: large!.id, options, caller }).catch(
          (error: unknown) => assert.ok(error instanceof MediaBusyError),
        )
      }
    }
    const loops = ['a', 'a', 'b', 'c'].map(loop)
    await sleep(1_000)
    const startedMs = performance.now()
    await renditionOf(media, db.database, { id: small!.id, options: { width: 64 }, caller: 'd' })
    const waitedMs = performance.now() - startedMs
    ended.abort()
    await Promise.all(loops)
    assert.ok(waitedMs < 2_500, `the other picture took ${waitedMs} ms`)
  },
)

test(
  'a rendition in use stays while a stranger asks for every variant, and lost ones are made again',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, { renditionsPerAssetMax: 8 })
    const { media, store } = parts
    const { id } = await media.upload(db.database, editor, {
      name: 'a.jpg',
      source: Readable.from([await noise(64, 64)]),
    })
    const hot = { id, options: { width: 64, format: 'webp' } as const, caller: 'site' }
    await renditionOf(media, db.database, hot)
    let made = store.puts
    for (const options of variants.slice(0, 60)) {
      const before = store.puts
      await renditionOf(media, db.database, { id, options: { ...options, format: 'png' } })
      made += store.puts - before
      parts.clock.aheadMs += 1_000
      await buffer(await (await renditionOf(media, db.database, hot)).open())
    }
    assert.equal(store.puts, made, 'the rendition in use was never made again')
    const [kept] = await db.database.run(
      sql<{ count: string }>(`select count(*)::text as count from stoa.rendition`),
    )
    assert.equal(kept!.count, '8')
    assert.ok((await parts.files()).length <= 9, 'those that made room left no file behind')
  },
)

test('renditions of an asset are bounded in bytes as well', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, { renditionBytesPerAssetMax: 40_000 })
  const { id } = await parts.media.upload(db.database, editor, {
    name: 'a.jpg',
    source: Readable.from([await noise(256, 256)]),
  })
  for (const width of [256, 192, 128, 96, 64])
    await renditionOf(parts.media, db.database, { id, options: { width, format: 'png' } })
  const rows = await db.database.run(
    sql<{ bytes: string }>(`select bytes::text as bytes from stoa.rendition order by used_at`),
  )
  const sum = rows.reduce((total, row) => total + Number(row.bytes), 0)
  assert.ok(rows.length > 0 && sum <= 40_000, `${rows.length} renditions of ${sum} bytes`)
})

test('renditions of all assets together are bounded by the collection', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, { renditionBytesMax: 10_000 })
  const { media, clock } = parts
  for (const side of [128, 64, 32]) {
    const { id } = await media.upload(db.database, editor, {
      name: `${side}.jpg`,
      source: Readable.from([await noise(side, side)]),
    })
    clock.aheadMs += 1_000
    await renditionOf(media, db.database, { id, options: { width: side, format: 'png' } })
  }
  await media.collect({ olderThanMs: 3_600_000, dryRun: false })
  const rows = await db.database.run(
    sql<{ key: string }>(`select key from stoa.rendition order by used_at`),
  )
  assert.deepEqual(
    rows.map(({ key }) => key.split('-')[0]),
    ['32x32'],
  )
  assert.equal((await parts.files()).length, 4)
})

test(
  'an image that needs more memory than it may is refused, not tried again, and ends nothing',
  { skip: skip || (process.platform === 'linux' ? false : 'the limit of memory needs Linux') },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, { imageMemoryBytesMax: 96 * 1024 ** 2 })
    const { media } = parts
    const large = await sharp({
      create: { width: 9_000, height: 9_000, channels: 3, background: '#336699' },
    })
      .jpeg({ progressive: true })
      .toBuffer()
    const { id } = await media.upload(db.database, editor, {
      name: 'a.jpg',
      source: Readable.from([large]),
    })
    const ask = () => renditionOf(media, db.database, { id, options: { width: 64 } })
    await assert.rejects(ask(), (error) => error instanceof RenditionError)
    const startedMs = performance.now()
    await assert.rejects(ask(), RenditionError)
    assert.ok(performance.now() - startedMs < 100, 'the second try is refused at once')
    const small = await media.upload(db.database, editor, {
      name: 'b.jpg',
      source: Readable.from([await noise(64, 64)]),
    })
    await renditionOf(media, db.database, { id: small.id, options: { width: 32 } })
  },
)

test('one caller cannot hold all places, bytes and unfinished uploads', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, {
    receivesMax: 4,
    receivesPerCallerMax: 2,
    uploadBytesPerOwnerMax: 1_000,
  })
  const { media } = parts
  const other = { kind: 'user', id: '01890000-0000-7000-8000-000000000002', name: 'Bob' } as const
  const silent = (): Readable => new Readable({ read: () => undefined })
  const sources = [silent(), silent()]
  const held = sources.map((source) => media.receive(editor, { name: 'a.txt', source }))
  await assert.rejects(
    media.receive(editor, { name: 'b.txt', source: Readable.from(['b']) }),
    MediaBusyError,
  )
  await media.receive(other, { name: 'b.txt', source: Readable.from(['b']) })
  for (const source of sources) source.destroy(new Error('the client left'))
  await Promise.allSettled(held)
  await media.receive(editor, { name: 'b.txt', source: Readable.from(['b']) })
  await media.uploads.create(editor, { name: 'a.bin', bytes: 900 })
  await assert.rejects(media.uploads.create(editor, { name: 'b.bin', bytes: 900 }), MediaBusyError)
  await media.uploads.create(other, { name: 'b.bin', bytes: 900 })
})

test(
  'while the database does not respond, known renditions go on at once and others fail soon',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, { lookUpMsMax: 300 })
    const { media } = parts
    const { id } = await media.upload(db.database, editor, {
      name: 'a.jpg',
      source: Readable.from([await noise(64, 64)]),
    })
    const asset = await media.find(db.database, id)
    const reader = { accept: '', caller: 'a' }
    const known = await media.rendition(asset, { width: 64 }, reader)
    const { promise: locked, resolve: lock } = Promise.withResolvers<void>()
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    const holding = db.database.transaction(async (tx) => {
      await tx.run(sql(`lock table stoa.rendition in access exclusive mode`))
      lock()
      await released
    })
    await locked
    const startedMs = performance.now()
    const again = await media.rendition(asset, { width: 64 }, reader)
    assert.equal((await buffer(await again.open())).length, known.bytes)
    assert.ok(performance.now() - startedMs < 200)
    await assert.rejects(media.rendition(asset, { width: 32 }, reader), MediaBusyError)
    assert.ok(performance.now() - startedMs < 2_000)
    release()
    await holding
    await media.rendition(asset, { width: 32 }, reader)
  },
)
