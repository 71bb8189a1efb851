import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import sharp from 'sharp'
import type { Sharp } from 'sharp'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { BlobNotFoundError } from '#file-store/errors.ts'
import { AssetNotFoundError, MediaBusyError, RenditionError } from '#media/errors.ts'
import type { Asset, Delivery, Media, RenditionOptions } from '#media/media.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { editor, renditionOf, testMedia } from '#test/support/media.ts'

const skip = databaseMissing

/** Left half red, right half blue, with a green square in the top left corner. */
async function picture(width = 800, height = 400): Promise<Sharp> {
  const block = (color: string, w: number, h: number): Sharp =>
    sharp({ create: { width: w, height: h, channels: 3, background: color } })
  return block('#0000ff', width, height).composite([
    {
      input: await block('#ff0000', width / 2, height)
        .png()
        .toBuffer(),
      left: 0,
      top: 0,
    },
    {
      input: await block('#00ff00', height / 4, height / 4)
        .png()
        .toBuffer(),
      left: 0,
      top: 0,
    },
  ])
}

async function upload(media: Media, db: Database, name: string, data: Buffer): Promise<Asset> {
  return media.upload(db, editor, { name, source: Readable.from([data]) })
}

async function bytesOf(delivery: Delivery): Promise<Buffer> {
  const data = await buffer(await delivery.open())
  assert.equal(data.length, delivery.bytes)
  return data
}

async function colorAt(data: Buffer, x: number, y: number): Promise<string> {
  const { data: raw } = await sharp(data)
    .toColourspace('srgb')
    .removeAlpha()
    .extract({ left: x, top: y, width: 1, height: 1 })
    .raw()
    .toBuffer({ resolveWithObject: true })
  const [red = 0, green = 0, blue = 0] = raw
  if (red > 150 && green < 100) return 'red'
  if (green > 150 && red < 100) return 'green'
  return blue > 150 && red < 100 ? 'blue' : `${red},${green},${blue}`
}

test(
  'size, format and content type are what was asked for, in every format',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const asset = await upload(
      parts.media,
      db.database,
      'a.png',
      await (await picture()).png().toBuffer(),
    )
    for (const format of ['avif', 'webp', 'jpeg', 'png'] as const) {
      const delivery = await renditionOf(parts.media, db.database, {
        id: asset.id,
        options: { width: 200, format },
      })
      const data = await bytesOf(delivery)
      const metadata = await sharp(data).metadata()
      assert.deepEqual(
        [metadata.width, metadata.height, metadata.mediaType],
        [256, 128, `image/${format}`],
      )
      assert.equal(delivery.contentType, `image/${format}`)
      assert.match(
        delivery.disposition,
        new RegExp(`^inline; filename="a\\.${format === 'jpeg' ? 'jpg' : format}"`),
      )
      assert.deepEqual(
        [await colorAt(data, 5, 5), await colorAt(data, 100, 100), await colorAt(data, 200, 100)],
        ['green', 'red', 'blue'],
      )
    }
    const accepted = async (accept: string): Promise<string> =>
      (
        await renditionOf(
          parts.media,
          db.database,
          { id: asset.id, options: { width: 64 } },
          accept,
        )
      ).contentType
    assert.deepEqual(
      [
        await accepted('image/avif,image/webp,*/*'),
        await accepted('image/webp,*/*'),
        await accepted('*/*'),
      ],
      ['image/avif', 'image/webp', 'image/png'],
    )
  },
)

test(
  'a crop follows the focal point, and its revision says that it may move',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const { media } = parts
    const asset = await upload(
      media,
      db.database,
      'a.png',
      await (await picture()).png().toBuffer(),
    )
    const square: RenditionOptions = { width: 128, height: 128, format: 'png' }
    const cornersOf = async (): Promise<string[]> => {
      const data = await bytesOf(
        await renditionOf(media, db.database, { id: asset.id, options: square }),
      )
      assert.deepEqual(
        [(await sharp(data).metadata()).width, (await sharp(data).metadata()).height],
        [128, 128],
      )
      return [await colorAt(data, 2, 2), await colorAt(data, 125, 125)]
    }
    assert.deepEqual(await cornersOf(), ['red', 'blue'], 'the middle')
    await media.update(db.database, asset.id, { focalPoint: { x: 0, y: 0.5 } }, null)
    assert.deepEqual(await cornersOf(), ['green', 'red'])
    await media.update(db.database, asset.id, { focalPoint: { x: 1, y: 0.5 } }, null)
    assert.deepEqual(await cornersOf(), ['blue', 'blue'])
    assert.equal(
      (await renditionOf(media, db.database, { id: asset.id, options: square })).revision,
      3,
    )
    assert.equal(
      (await renditionOf(media, db.database, { id: asset.id, options: { width: 128 } })).revision,
      null,
    )
    assert.equal(
      (await db.database.run(sql(`select key from stoa.rendition where key like '%-crop%'`)))
        .length,
      1,
      'crops around old points are forgotten',
    )
  },
)

test(
  'EXIF orientation is applied to sizes, crops and pixels, and no metadata comes along',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const { media } = parts
    const turned = await (
      await picture()
    )
      .withExif({
        IFD0: { Copyright: 'the owner' },
        IFD3: { GPSLatitudeRef: 'N', GPSLatitude: '51/1 30/1 3230/100' },
      })
      .withMetadata({ orientation: 6 })
      .jpeg({ quality: 95 })
      .toBuffer()
    assert.ok(turned.includes('the owner'))
    const asset = await upload(media, db.database, 'a.jpg', turned)
    assert.deepEqual([asset.width, asset.height], [400, 800])
    const whole = await bytesOf(
      await renditionOf(media, db.database, {
        id: asset.id,
        options: { width: 192, format: 'png' },
      }),
    )
    assert.deepEqual(
      [(await sharp(whole).metadata()).width, (await sharp(whole).metadata()).height],
      [192, 384],
    )
    // Turned by 90° clockwise: the red half is on top, and the green square in the top right
    // corner.
    assert.deepEqual(
      [await colorAt(whole, 185, 5), await colorAt(whole, 5, 100), await colorAt(whole, 5, 300)],
      ['green', 'red', 'blue'],
    )
    await media.update(db.database, asset.id, { focalPoint: { x: 0.5, y: 1 } }, null)
    const bottom = await bytesOf(
      await renditionOf(media, db.database, {
        id: asset.id,
        options: { width: 192, height: 192, format: 'png' },
      }),
    )
    assert.deepEqual(
      [await colorAt(bottom, 5, 5), await colorAt(bottom, 185, 185)],
      ['blue', 'blue'],
    )
    for (const format of ['jpeg', 'webp', 'avif'] as const) {
      const data = await bytesOf(
        await renditionOf(media, db.database, { id: asset.id, options: { width: 64, format } }),
      )
      const metadata = await sharp(data).metadata()
      assert.deepEqual(
        [metadata.exif, metadata.xmp, metadata.iptc, metadata.orientation],
        [undefined, undefined, undefined, undefined],
        format,
      )
      assert.ok(!data.includes('the owner'))
    }
  },
)

test('transparency becomes white in a JPEG and stays elsewhere', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const clear = await sharp({
    create: { width: 100, height: 100, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } },
  })
    .png()
    .toBuffer()
  const asset = await upload(parts.media, db.database, 'a.png', clear)
  assert.equal(
    await colorAt(
      await bytesOf(
        await renditionOf(parts.media, db.database, { id: asset.id, options: { format: 'jpeg' } }),
      ),
      5,
      5,
    ),
    '255,255,255',
  )
  assert.equal(
    (
      await sharp(
        await bytesOf(
          await renditionOf(parts.media, db.database, {
            id: asset.id,
            options: { format: 'webp' },
          }),
        ),
      ).metadata()
    ).hasAlpha,
    true,
  )
})

test('an animation stays one where the format can move, crop included', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const frames = await Promise.all(
    ['red', 'green', 'blue'].map((color) =>
      sharp({ create: { width: 200, height: 100, channels: 3, background: color } })
        .png()
        .toBuffer(),
    ),
  )
  const gif = await sharp(frames, { join: { animated: true } })
    .gif({ delay: [100, 100, 100] })
    .toBuffer()
  const asset = await upload(parts.media, db.database, 'a.gif', gif)
  assert.deepEqual([asset.width, asset.height], [200, 100])
  const shape = async (options: RenditionOptions, accept: string): Promise<unknown[]> => {
    const { format, width, height, pages } = await sharp(
      await bytesOf(await renditionOf(parts.media, db.database, { id: asset.id, options }, accept)),
    ).metadata()
    return [format, width, height, pages ?? 1]
  }
  assert.deepEqual(await shape({ width: 64 }, 'image/avif,image/webp'), ['webp', 64, 32, 3])
  assert.deepEqual(await shape({ width: 64, height: 64 }, '*/*'), ['gif', 64, 64, 3])
  assert.deepEqual(await shape({ width: 64, format: 'jpeg' }, ''), ['jpeg', 64, 32, 1])
  assert.deepEqual(await shape({ width: 64, format: 'avif' }, ''), ['heif', 64, 32, 1])
})

test(
  'twenty requests at once share one rendition, and another node finds it made',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const asset = await upload(
      parts.media,
      db.database,
      'a.png',
      await (await picture()).png().toBuffer(),
    )
    const before = parts.store.puts
    const deliveries = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        renditionOf(parts.media, db.database, {
          id: asset.id,
          options: { width: 110 + index, format: 'webp' },
        }),
      ),
    )
    assert.equal(parts.store.puts - before, 2, '128 and 192')
    assert.equal(new Set(deliveries.map((delivery) => delivery.etag)).size, 2)
    const other = parts.another()
    assert.equal(
      (
        await renditionOf(other, db.database, {
          id: asset.id,
          options: { width: 110, format: 'webp' },
        })
      ).etag,
      deliveries[0]!.etag,
    )
    assert.equal(parts.store.puts - before, 2)
    const both = await Promise.all(
      [parts.media, other].map((node) =>
        renditionOf(node, db.database, { id: asset.id, options: { width: 300, format: 'webp' } }),
      ),
    )
    assert.deepEqual(await bytesOf(both[0]!), await bytesOf(both[1]!))
  },
)

test('more than can be done in time is refused with how long to wait', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, {
    rendersMax: 1,
    rendersWaitingMax: 2,
    renderWaitMs: 60_000,
  })
  // Large enough that the first is still being made when the last is asked for, on whatever
  // machine.
  const asset = await upload(
    parts.media,
    db.database,
    'a.png',
    await (await picture(3_000, 1_500)).png().toBuffer(),
  )
  const results = await Promise.allSettled(
    [512, 640, 768, 1_024, 1_280].map((width) =>
      renditionOf(parts.media, db.database, { id: asset.id, options: { width, format: 'avif' } }),
    ),
  )
  const failures = results.flatMap((result) =>
    result.status === 'rejected' ? [result.reason as unknown] : [],
  )
  assert.equal(failures.length, 2)
  for (const error of failures)
    assert.ok(error instanceof MediaBusyError && typeof error.facts['retryAfterS'] === 'number')
  await renditionOf(parts.media, db.database, {
    id: asset.id,
    options: { width: 96, format: 'webp' },
  })
  await using slow = await testMedia(db.database, {
    rendersMax: 1,
    rendersWaitingMax: 2,
    renderWaitMs: 1,
  })
  const late = await upload(
    slow.media,
    db.database,
    'b.png',
    await (await picture(2_000, 1_000)).png().toBuffer(),
  )
  const waits = await Promise.allSettled(
    [1_024, 1_280].map((width) =>
      renditionOf(slow.media, db.database, { id: late.id, options: { width, format: 'avif' } }),
    ),
  )
  assert.deepEqual(
    waits.map((result) => result.status).toSorted(),
    ['fulfilled', 'rejected'],
    'whichever came second',
  )
  assert.ok(
    waits.some((result) => result.status === 'rejected' && result.reason instanceof MediaBusyError),
  )
})

test('what has no renditions says so, and so does a damaged image', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database, { imageBytesMax: 1_000_000 })
  const { media } = parts
  const reason = async (
    asset: Asset,
    options: RenditionOptions = { width: 64 },
  ): Promise<string> => {
    const error: unknown = await renditionOf(media, db.database, { id: asset.id, options }).then(
      () => null,
      (error: unknown) => error,
    )
    assert.ok(error instanceof RenditionError, String(error))
    return error.reason
  }
  assert.equal(
    await reason(await upload(media, db.database, 'a.txt', Buffer.from('text'))),
    'notAnImage',
  )
  assert.equal(
    await reason(await upload(media, db.database, 'a.svg', Buffer.from('<svg/>')), {
      format: 'png',
    }),
    'notAnImage',
  )
  const jpeg = await (await picture()).jpeg({ quality: 100 }).toBuffer()
  const cut = await upload(media, db.database, 'cut.jpg', jpeg.subarray(0, jpeg.length / 2))
  assert.deepEqual([cut.width, cut.height], [800, 400])
  assert.equal(await reason(cut), 'damaged')
  assert.deepEqual(await db.database.run(sql(`select 1 from stoa.rendition`)), [])
  const huge = await upload(
    media,
    db.database,
    'a.jpg',
    Buffer.concat([jpeg, Buffer.alloc(1_000_000)]),
  )
  assert.equal(huge.width, null)
  assert.equal(await reason(huge), 'tooLarge')
  assert.equal(await reason(cut, { width: 0 }), 'options')
  const avif = await upload(
    media,
    db.database,
    'a.avif',
    await (await picture(64, 32)).avif().toBuffer(),
  )
  assert.equal(
    (await renditionOf(media, db.database, { id: avif.id, options: { width: 32 } }, '*/*'))
      .contentType,
    'image/jpeg',
  )
  await db.database.run(sql(`update stoa.asset set width = 8000, height = 4000 where id = $1`), [
    avif.id,
  ])
  assert.equal(await reason(avif), 'tooLarge')
  await assert.rejects(
    renditionOf(media, db.database, { id: 'nonsense', options: {} }),
    AssetNotFoundError,
  )
})

test(
  'an asset keeps a bounded number of renditions; what made room, or was lost, is made again',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, { renditionsPerAssetMax: 3 })
    const { media, clock, store } = parts
    const asset = await upload(
      media,
      db.database,
      'a.png',
      await (await picture()).png().toBuffer(),
    )
    const made = async (width: number): Promise<Buffer> =>
      bytesOf(
        await renditionOf(media, db.database, { id: asset.id, options: { width, format: 'webp' } }),
      )
    const first = await made(32)
    for (const width of [64, 96, 128, 192]) {
      clock.aheadMs += 1_000
      await made(width)
    }
    assert.equal((await db.database.run(sql(`select 1 from stoa.rendition`))).length, 3)
    assert.deepEqual(await made(32), first)
    const delivery = await renditionOf(media, db.database, {
      id: asset.id,
      options: { width: 32, format: 'webp' },
    })
    await store.delete(delivery.etag.replaceAll('"', ''))
    assert.deepEqual(await bytesOf(delivery), first, 'the store lost it')
    await media.delete(db.database, asset.id)
    clock.aheadMs += 3_600_000 * 2
    await media.collect({ olderThanMs: 3_600_000, dryRun: false })
    assert.deepEqual(await parts.files(), [])
    await assert.rejects(
      delivery.open(),
      (error) => error instanceof BlobNotFoundError || error instanceof AssetNotFoundError,
    )
  },
)
