import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { deflateSync } from 'node:zlib'
import sharp from 'sharp'
import { createAccess } from '#access/create-access.ts'
import { createContent } from '#content/create-content.ts'
import { FileStoreUnavailableError } from '#file-store/errors.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import {
  AssetChangedError,
  AssetInputError,
  AssetInUseError,
  AssetNotFoundError,
  UploadRefusedError,
  UploadTooLargeError,
} from '#media/errors.ts'
import type { Asset, Media } from '#media/media.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { digest, editor, from, renditionOf, testMedia } from '#test/support/media.ts'

const skip = databaseMissing

function crc32(data: Buffer): number {
  let crc = 0xffffffff
  for (const byte of data) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1))
  }
  return (crc ^ 0xffffffff) >>> 0
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type), data])
  const result = Buffer.alloc(body.length + 8)
  result.writeUInt32BE(data.length, 0)
  body.copy(result, 4)
  result.writeUInt32BE(crc32(body), body.length + 4)
  return result
}

/** A true PNG of any size in a few kilobytes: one bit per pixel, all the same. */
function bomb(width: number, height: number): Buffer {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([1, 0, 0, 0, 0], 8)
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.alloc(100_000))),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

async function photo(width = 40, height = 20): Promise<Buffer> {
  return sharp({ create: { width, height, channels: 3, background: '#3366cc' } })
    .jpeg()
    .toBuffer()
}

async function refusal(media: Media, name: string, data: Buffer | string): Promise<string> {
  const error: unknown = await media.receive(editor, { name, source: from(data) }).then(
    () => null,
    (error: unknown) => error,
  )
  assert.ok(error instanceof UploadRefusedError, `${name}: ${String(error)}`)
  return error.reason
}

test('an upload becomes an asset that says what it is', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const data = await photo()
  const asset = await parts.media.upload(db.database, editor, {
    name: '../holiday/beach.png',
    source: from(data),
    alt: { en: 'A beach', 'pt-BR': '' },
  })
  assert.deepEqual(
    { ...asset, id: '', createdAt: '' },
    {
      id: '',
      name: 'beach.jpg',
      contentType: 'image/jpeg',
      bytes: data.length,
      blob: digest(data),
      width: 40,
      height: 20,
      alt: { en: 'A beach', 'pt-BR': '' },
      focalPoint: null,
      createdAt: '',
      createdBy: editor,
      revision: 1,
    },
  )
  assert.deepEqual(await parts.media.get(asset.id), asset)
  const delivery = parts.media.original(await parts.media.find(db.database, asset.id))
  assert.ok((await buffer(await delivery.open())).equals(data))
  assert.deepEqual(await buffer(await delivery.open({ start: 2, end: 4 })), data.subarray(2, 5))
  assert.deepEqual(
    [delivery.contentType, delivery.bytes, delivery.etag, delivery.revision],
    ['image/jpeg', data.length, `"${asset.blob}"`, null],
  )
  assert.match(delivery.disposition, /^inline; filename="beach.jpg"/)
})

test('equal bytes are two assets and one file', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const [one, two] = await Promise.all(
    ['a.txt', 'b.txt'].map((name) =>
      parts.media.upload(db.database, editor, { name, source: from('same') }),
    ),
  )
  assert.notEqual(one!.id, two!.id)
  assert.equal(one!.blob, two!.blob)
  assert.deepEqual(await parts.files(), [digest('same')])
})

test(
  'hostile files are refused or made harmless, and what is refused leaves nothing',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database, { uploadBytesMax: 5_000_000 })
    const { media } = parts
    const jpeg = await photo()
    assert.equal(await refusal(media, 'x.png', bomb(50_000, 50_000)), 'tooManyPixels')
    assert.equal(await refusal(media, 'x.png', bomb(1_000_000, 200)), 'tooManyPixels')
    assert.equal(
      await refusal(media, 'x.jpg', '<!doctype html><script>alert(1)</script>'),
      'typeMismatch',
    )
    assert.equal(await refusal(media, 'x.png', '<svg onload="alert(1)"/>'), 'typeMismatch')
    assert.equal(await refusal(media, 'x.pdf', 'MZ\u0000\u0001'), 'typeMismatch')
    assert.equal(await refusal(media, 'empty.txt', ''), 'empty')
    assert.equal(await refusal(media, 'cut.jpg', jpeg.subarray(0, 20)), 'unreadableImage')
    assert.equal(
      await refusal(
        media,
        'x.png',
        Buffer.concat([bomb(10, 10).subarray(0, 8), Buffer.alloc(500, 1)]),
      ),
      'typeMismatch',
    )
    await assert.rejects(
      media.receive(editor, { name: 'big', source: from(Buffer.alloc(5_000_001), 65_536) }),
      UploadTooLargeError,
    )
    const abort = new AbortController()
    const slow = new Readable({ read: () => undefined })
    slow.push(Buffer.alloc(200_000))
    setTimeout(() => abort.abort(), 30)
    await assert.rejects(
      media.receive(editor, { name: 'slow', source: slow, signal: abort.signal }),
      {
        name: 'AbortError',
      },
    )
    assert.ok(slow.destroyed)
    assert.deepEqual(await parts.files(), [])

    const svg = await media.upload(db.database, editor, {
      name: 'logo.svg',
      source: from('<svg width="30" height="10"><script>alert(1)</script></svg>'),
    })
    const html = await media.upload(db.database, editor, {
      name: 'page.html',
      source: from('<html><script>alert(1)</script>'),
    })
    const polyglot = await media.upload(db.database, editor, {
      name: 'both.js',
      source: from(
        Buffer.concat([await sharp(jpeg).gif().toBuffer(), Buffer.from('*/=1;alert(1)')]),
      ),
    })
    assert.deepEqual([svg.contentType, svg.width, svg.height], ['image/svg+xml', 30, 10])
    for (const asset of [svg, html])
      assert.match(
        media.original(await media.find(db.database, asset.id)).disposition,
        /^attachment;/,
      )
    assert.match(
      (await renditionOf(media, db.database, { id: svg.id, options: { width: 64 } }, 'image/avif'))
        .disposition,
      /^attachment;/,
    )
    assert.deepEqual(
      [polyglot.name, media.original(await media.find(db.database, polyglot.id)).contentType],
      ['both.gif', 'image/gif'],
    )
  },
)

test('a store that is down refuses uploads and changes nothing', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  parts.store.isDown = true
  await assert.rejects(
    parts.media.upload(db.database, editor, { name: 'a.txt', source: from('x') }),
    FileStoreUnavailableError,
  )
  await assert.rejects(
    parts.media.collect({ olderThanMs: 0, dryRun: false }),
    FileStoreUnavailableError,
  )
  parts.store.isDown = false
  assert.deepEqual((await parts.media.list({ limit: 10, after: null, search: null })).data, [])
  assert.deepEqual(await parts.files(), [])
})

test('an asset is changed under its revision', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const { media } = parts
  const asset = await media.upload(db.database, editor, {
    name: 'a.jpg',
    source: from(await photo()),
  })
  const changed = await media.update(
    db.database,
    asset.id,
    { name: 'b.png', alt: { en: 'x' }, focalPoint: { x: 0.25, y: 1 } },
    [1],
  )
  assert.deepEqual(changed, {
    ...asset,
    name: 'b.jpg',
    alt: { en: 'x' },
    focalPoint: { x: 0.25, y: 1 },
    revision: 2,
  })
  assert.deepEqual(
    await media.update(db.database, asset.id, { name: 'b.jpg' }, [2]),
    changed,
    'no change, no revision',
  )
  await assert.rejects(
    media.update(db.database, asset.id, { alt: {} }, [1]),
    (error) => error instanceof AssetChangedError && error.facts['current'] === 2,
  )
  const results = await Promise.allSettled(
    ['c', 'd', 'e'].map((name) => media.update(db.database, asset.id, { name }, [2])),
  )
  assert.equal(results.filter((result) => result.status === 'fulfilled').length, 1)
  assert.equal(
    (await media.update(db.database, asset.id, { focalPoint: null }, null)).focalPoint,
    null,
  )
  for (const input of [
    { name: '' },
    { name: '../' },
    { alt: { english: 'x' } },
    { alt: { en: 'x'.repeat(2_001) } },
    { alt: { en: '\0' } },
    { focalPoint: { x: 2, y: 0 } },
    { focalPoint: { x: NaN, y: 0 } },
  ]) {
    await assert.rejects(
      media.update(db.database, asset.id, input, null),
      AssetInputError,
      JSON.stringify(input),
    )
  }
  for (const id of ['nonsense', '01890000-0000-7000-8000-00000000ffff']) {
    await assert.rejects(media.update(db.database, id, {}, null), AssetNotFoundError)
    await assert.rejects(media.get(id), AssetNotFoundError)
    await assert.rejects(media.delete(db.database, id), AssetNotFoundError)
  }
  await assert.rejects(media.delete(db.database, asset.id, [1]), AssetChangedError)
})

test(
  'the list is in pages, newest first, and searches names and alternative texts',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const { media } = parts
    const names = ['Größe.txt', '100%.txt', 'a_b.txt', 'plain.txt', 'last.txt']
    for (const [index, name] of names.entries()) {
      parts.clock.aheadMs = index * 10
      await media.upload(db.database, editor, {
        name,
        source: from(name),
        alt: { de: name === 'plain.txt' ? 'Ein ÄPFEL-Baum' : '' },
      })
    }
    const seen: string[] = []
    for (let after: string | null = null, first = true; first || after !== null; first = false) {
      const page: { data: Asset[]; after: string | null } = await media.list({
        limit: 2,
        after,
        search: null,
      })
      seen.push(...page.data.map((asset) => asset.name))
      after = page.after
    }
    assert.deepEqual(seen, [...names].reverse())
    const found = async (search: string): Promise<string[]> =>
      (await media.list({ limit: 10, after: null, search })).data.map((asset) => asset.name)
    assert.deepEqual(await found('GRÖSSE'), [])
    assert.deepEqual(await found('GRÖ'), ['Größe.txt'])
    assert.deepEqual(await found('äpfel'), ['plain.txt'])
    assert.deepEqual(await found('%'), ['100%.txt'])
    assert.deepEqual(await found('_'), ['a_b.txt'])
    assert.deepEqual(await found('\\'), [])
    assert.deepEqual(await found("'; drop table stoa.asset --"), [])
    await assert.rejects(media.list({ limit: 2, after: 'nonsense', search: null }), AssetInputError)
  },
)

test('an asset that entries refer to stays, and the refusal names them', { skip }, async () => {
  await using db = await testDatabase()
  await using parts = await testMedia(db.database)
  const asset = await parts.media.upload(db.database, editor, { name: 'a.txt', source: from('x') })
  const entry = '01890000-0000-7000-8000-0000000000aa'
  await db.database.run({
    prepare: 'never',
    text: `insert into stoa.content_type (name, definition) values ('page', '{}')`,
  })
  await db.database.run({
    prepare: 'never',
    text: `insert into stoa.entry (id, type, created_by) values ('${entry}', 'page', '{}')`,
  })
  for (const onDelete of ['restrict', 'unset', 'cascade']) {
    await db.database.run({
      prepare: 'never',
      text: `insert into stoa.reference
        (entry_id, locale, perspective, path, target_kind, target_id)
        values ('${entry}', 'en', 'draft', '${onDelete}', 'asset', '${asset.id}')`,
    })
    await assert.rejects(parts.media.delete(db.database, asset.id), (error) => {
      assert.ok(error instanceof AssetInUseError)
      assert.deepEqual(error.facts, {
        asset: asset.id,
        count: 1,
        referrers: [{ type: 'page', entry, locale: 'en' }],
      })
      return true
    })
    await db.database.run({ prepare: 'never', text: 'delete from stoa.reference' })
  }
  await parts.media.delete(db.database, asset.id)
  await assert.rejects(parts.media.find(db.database, asset.id), AssetNotFoundError)
})

test(
  'saves that refer to an asset beside its deletion: no entry keeps an asset that is gone',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    await using parts = await testMedia(db.database)
    const { database } = db
    const content = createContent({ clock: systemClock, logger: silentLogger })
    await content.types.save(
      database,
      { name: 'page', label: 'Page', fields: [{ name: 'picture', kind: 'asset' }] },
      { expected: null, allowLoss: false },
    )
    const call = {
      db: database,
      authority: createAccess({
        database,
        clock: systemClock,
        logger: silentLogger,
        secret: 'x'.repeat(64),
      }).systemIdentity.authority,
    }
    for (let round = 0; round < 12; round += 1) {
      const { id } = await parts.media.upload(database, editor, {
        name: 'a.txt',
        source: from(`round ${round}`),
      })
      const save = () =>
        content.entries.create(call, 'page', { locale: null, fields: { picture: id } })
      const [gone, ...saves] = await Promise.allSettled([
        parts.media.delete(database, id),
        save(),
        save(),
        save(),
      ])
      const saved = saves.filter((result) => result.status === 'fulfilled').length
      const there = await parts.media.get(id).then(
        () => true,
        () => false,
      )
      assert.equal(there, gone.status === 'rejected')
      if (gone.status === 'rejected') assert.ok(gone.reason instanceof AssetInUseError && saved > 0)
      else assert.equal(saved, 0)
    }
    await content.stop()
  },
)

test(
  'an asset may be named `file`, and comes back from an export under that name',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using parts = await testMedia(db.database)
    const { media } = parts
    const source = () => from('text')
    const asset = await media.upload(db.database, editor, { name: 'a.txt', source: source() })
    const renamed = await media.update(db.database, asset.id, { name: 'file' }, null)
    assert.equal(renamed.name, 'file')
    await assert.rejects(
      media.update(db.database, asset.id, { name: '...' }, null),
      AssetInputError,
    )
    const received = await media.receive(editor, { name: 'file', source: source() })
    await media.delete(db.database, asset.id)
    await media.restore(db.database, renamed, received)
    assert.equal((await media.get(asset.id)).name, 'file')
  },
)
