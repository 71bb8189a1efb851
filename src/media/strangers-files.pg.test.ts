import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import sharp from 'sharp'
import type { Database } from '#database/database.ts'
import type { Asset, Media, RenditionOptions } from '#media/media.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { editor, renditionOf, testMedia } from '#test/support/media.ts'

const skip = databaseMissing

/** Left half red, right half blue, a green corner, and turned by 90°: 80 × 160 pixels. */
const heic = Buffer.from(
  [
    'AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAaFtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAA',
    'AAAAAAAAAAAAADRpbG9jAAAAAERAAAIAAQAAAAABxQABAAAAAAAAAPIAAgAAAAACtwABAAAAAAAAACQAAAA4aWlu',
    'ZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA',
    '4GlwcnAAAADAaXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA',
    'AAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoBQgUWW6kkprm4CGgwIAAAMAMgAAAwACEGIAAQAHRAHBcrBi',
    'QAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAACgAAAAUAAAABBwaXhpAAAAAAMICAgAAAAJaXJvdAMA',
    'AAAYaXBtYQAAAAAAAAABAAEFgQIDBIUAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAR5tZGF0AAAA7igBrwnQ',
    'itgVeyv2x//+EY//qe2QiPf3Tu4gknPjf9hXTgN/Cp0MFfLfk4IPP827Ca8iH+zapCXP9MpfsXcx8GKNK64+elXp',
    '3bya597VfwhVooqYLlodpKyoMvM2enR9CVJbjMHwgsU7vd//3jrT/qmwn/ZvWhgHPWbo12rpxkDhMayDEa4C73Pl',
    'JxQwtmZpqzq1d2IRpOsm7WzojyUyR/Ld0NrMqYQD7Sn7Kmt06+hdgMPNJ9jVtgAgxNtztoUHmfX7WAEh4VsZr3eY',
    'Pn6qWQbbXmFOnWNRvP36O2W4nsqu5b5XDFcN1b9mPZCHFjAAAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYA',
    'AAAAAAA=',
  ].join(''),
  'base64',
)

async function upload(
  media: Media,
  database: Database,
  name: string,
  data: Buffer,
): Promise<Asset> {
  return media.upload(database, editor, { name, source: Readable.from([data]) })
}

/** Format, width, height and number of frames of a rendition, or the reason why there is none. */
async function shapeOf(
  media: Media,
  database: Database,
  wanted: { readonly id: string; readonly options: RenditionOptions },
  accept = 'image/avif,image/webp,*/*',
): Promise<unknown[]> {
  const delivery = await renditionOf(media, database, wanted, accept)
  const { format, width, height, pages } = await sharp(
    await buffer(await delivery.open()),
  ).metadata()
  return [format, width, height, pages ?? 1]
}

async function frames(width: number, height: number, count: number): Promise<Buffer[]> {
  return Promise.all(
    Array.from({ length: count }, (_, index) =>
      sharp({ create: { width, height, channels: 3, background: { r: index * 50, g: 9, b: 9 } } })
        .png()
        .toBuffer(),
    ),
  )
}

test('a HEIC is an image like any other, turned as its camera was', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const { media } = parts
  const asset = await upload(media, db.database, 'IMG_1.HEIC', heic)
  assert.deepEqual(
    [asset.name, asset.contentType, asset.width, asset.height],
    ['IMG_1.HEIC', 'image/heic', 80, 160],
  )
  const wanted = { id: asset.id, options: { width: 64 } }
  assert.deepEqual(await shapeOf(media, db.database, wanted), ['heif', 64, 128, 1])
  assert.deepEqual(await shapeOf(media, db.database, wanted, '*/*'), ['jpeg', 64, 128, 1])
  const data = await buffer(await (await renditionOf(media, db.database, wanted)).open())
  const { data: pixel } = await sharp(data)
    .extract({ left: 32, top: 10, width: 1, height: 1 })
    .raw()
    .toBuffer({ resolveWithObject: true })
  assert.ok(pixel[0]! > 150 && pixel[2]! < 100, 'red is on top')
  await assert.rejects(
    upload(media, db.database, 'cut.heic', heic.subarray(0, 300)),
    (error) => (error as { reason?: string }).reason === 'unreadableImage',
  )
})

test(
  'a TIFF is read wherever its directory lies, and its pages are no frames',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const { media } = parts
    const large = await sharp({
      create: { width: 300, height: 200, channels: 3, background: '#336699' },
    })
      .tiff({ compression: 'none' })
      .toBuffer()
    assert.ok(large.readUInt32LE(4) > 65_536, 'the directory comes last')
    const asset = await upload(media, db.database, 'scan.tif', large)
    assert.deepEqual([asset.contentType, asset.width, asset.height], ['image/tiff', 300, 200])
    const pages = await sharp(await frames(40, 20, 3), { join: { animated: true } })
      .tiff()
      .toBuffer()
    const scan = await upload(media, db.database, 'pages.tif', pages)
    for (const format of ['webp', 'auto'] as const) {
      const wanted = { id: scan.id, options: { width: 32, format } }
      const [, width, height, count] = await shapeOf(media, db.database, wanted)
      assert.deepEqual([width, height, count], [32, 16, 1])
    }
  },
)

test(
  'an image that is too tall for a format gets another, or is scaled to fit it',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const tall = await sharp({
      create: { width: 80, height: 17_000, channels: 3, background: '#336699' },
    })
      .jpeg()
      .toBuffer()
    const { id } = await upload(parts.media, db.database, 'tall.jpg', tall)
    const shape = (options: RenditionOptions) => shapeOf(parts.media, db.database, { id, options })
    assert.deepEqual(await shape({ width: 80 }), ['jpeg', 80, 17_000, 1])
    const [format, width, height] = await shape({ width: 80, format: 'webp' })
    assert.deepEqual([format, width], ['webp', 77])
    assert.ok((height as number) <= 16_383)
  },
)

test('an animation with an orientation is shown by its first frame', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const turned = await sharp(await frames(40, 20, 3), { join: { animated: true } })
    .withMetadata({ orientation: 6 })
    .webp()
    .toBuffer()
  const asset = await upload(parts.media, db.database, 'a.webp', turned)
  const wanted = { id: asset.id, options: { width: 32 } }
  const [, , , count] = await shapeOf(parts.media, db.database, wanted)
  assert.equal(count, 1)
})

test('more frames than an animation may have are shown by the first', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const one = await sharp({ create: { width: 2, height: 2, channels: 3, background: '#336699' } })
    .gif()
    .toBuffer()
  // The frame between the header and the trailer, as often as one likes.
  const start = one.indexOf(0x2c)
  const frame = one.subarray(start, -1)
  const many = Buffer.concat([
    one.subarray(0, start),
    ...Array.from({ length: 3_000 }, () => frame),
    one.subarray(-1),
  ])
  const asset = await upload(parts.media, db.database, 'a.gif', many)
  const wanted = { id: asset.id, options: { width: 32 } }
  assert.deepEqual(await shapeOf(parts.media, db.database, wanted), ['heif', 2, 2, 1])
})

test('an animated PNG stays as it is, unless a format is asked for by name', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const [still] = await frames(40, 20, 1)
  const control = Buffer.alloc(20)
  control.writeUInt32BE(8, 0)
  control.write('acTL', 4, 'latin1')
  control.writeUInt32BE(2, 8)
  control.writeUInt32BE(crc32(control.subarray(4, 16)), 16)
  const animated = Buffer.concat([still!.subarray(0, 33), control, still!.subarray(33)])
  const asset = await upload(parts.media, db.database, 'a.png', animated)
  const auto = await renditionOf(parts.media, db.database, {
    id: asset.id,
    options: { width: 32 },
  })
  assert.ok((await buffer(await auto.open())).equals(animated))
  const wanted = { id: asset.id, options: { width: 32, format: 'webp' } as const }
  assert.deepEqual(await shapeOf(parts.media, db.database, wanted), ['webp', 32, 16, 1])
})

/** An ID3 tag of so many bytes, as taggers write before any sound, with a cover inside. */
function tag(bytes: number): Buffer {
  const head = Buffer.from([0x49, 0x44, 0x33, 4, 0, 0, 0, 0, 0, 0])
  for (let index = 0; index < 4; index += 1) head[9 - index] = (bytes >> (7 * index)) & 0x7f
  return Buffer.concat([head, Buffer.alloc(bytes)])
}

const mp3 = Buffer.concat(
  Array.from({ length: 4 }, () =>
    Buffer.concat([Buffer.from('fffb9064', 'hex'), Buffer.alloc(413)]),
  ),
)
const adts = Buffer.concat(
  Array.from({ length: 4 }, () =>
    Buffer.concat([Buffer.from('fff15080043ffc', 'hex'), Buffer.alloc(26)]),
  ),
)
const flac = Buffer.concat([Buffer.from('fLaC'), Buffer.alloc(60, 1)])
const programStream = Buffer.concat([Buffer.from('000001ba44000400', 'hex'), Buffer.alloc(200, 5)])

test('sound and text are what their bytes say, and keep a name that fits', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const table: readonly (readonly [string, Buffer, string, string])[] = [
    ['x.csv', Buffer.from('\ufeffa;ü\n1;2', 'utf16le'), 'text/csv; charset=utf-16le', 'x.csv'],
    [
      'x.txt',
      Buffer.from('\ufeffhello', 'utf16le').swap16(),
      'text/plain; charset=utf-16be',
      'x.txt',
    ],
    [
      'x.svg',
      Buffer.from('\ufeff<svg width="4" height="2"/>', 'utf16le'),
      'image/svg+xml',
      'x.svg',
    ],
    ['x.bin', Buffer.from('fffe000000000041', 'hex'), 'application/octet-stream', 'x.bin'],
    ['a.mp3', mp3, 'audio/mpeg', 'a.mp3'],
    ['a.mp3', Buffer.concat([tag(100_000), mp3]), 'audio/mpeg', 'a.mp3'],
    ['a.flac', Buffer.concat([tag(100_000), flac]), 'audio/flac', 'a.flac'],
    ['a.flac', Buffer.concat([tag(500), tag(80_000), flac]), 'audio/flac', 'a.flac'],
    ['a.aac', Buffer.concat([tag(100_000), adts]), 'audio/aac', 'a.aac'],
    ['a.aac', adts, 'audio/aac', 'a.aac'],
    ['film.mpg', programStream, 'video/mpeg', 'film.mpg'],
  ]
  for (const [name, data, contentType, expected] of table) {
    const asset = await upload(parts.media, db.database, name, data)
    assert.deepEqual([asset.contentType, asset.name], [contentType, expected])
    const renamed = await parts.media.update(db.database, asset.id, { name: 'other' }, null)
    const again = await parts.media.update(db.database, asset.id, { name: expected }, null)
    assert.equal(again.name, expected)
    assert.ok(renamed.name.startsWith('other'))
    const received = await parts.media.receive(editor, { name, source: Readable.from([data]) })
    await parts.media.delete(db.database, asset.id)
    await parts.media.restore(db.database, again, received)
  }
})

test(
  'scripts and styles are delivered as text, whatever the site allows itself',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    for (const name of ['x.js', 'x.mjs', 'x.css']) {
      const { id } = await upload(parts.media, db.database, name, Buffer.from('a { color: red }'))
      const delivery = parts.media.original(await parts.media.find(db.database, id))
      assert.equal(delivery.contentType, 'text/plain; charset=utf-8')
      assert.match(delivery.disposition, /^attachment;/)
    }
  },
)
