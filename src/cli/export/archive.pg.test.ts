import assert from 'node:assert/strict'
import { cpSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, test } from 'node:test'
import sharp from 'sharp'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { exportTo, filesOf, importFrom } from '#test/support/archives.ts'
import { importing } from '#test/support/importing.ts'
import type { Importing } from '#test/support/importing.ts'

const folder = mkdtempSync(join(tmpdir(), 'stoa-archive-'))
after(() => rmSync(folder, { recursive: true }))

function exported(
  on: Importing,
  name: string,
  options: { readonly history?: boolean; readonly signal?: AbortSignal } = {},
): Promise<string> {
  return exportTo(on, join(folder, name), options)
}

/**
 * A site with something of everything: types that refer to each other, locales, drafts, history,
 * assets, a schedule, releases, roles.
 */
async function fill(on: Importing): Promise<void> {
  const { content, call, database, media, site } = on
  await content.locales.save(database, { code: 'de', fallback: null, isDefault: true })
  await content.locales.save(database, { code: 'de-CH', fallback: 'de', isDefault: false })
  await content.locales.save(database, { code: 'en', fallback: 'de', isDefault: false })
  await content.types.save(
    database,
    { name: 'author', label: 'Author', fields: [{ name: 'name', kind: 'text' }] },
    { expected: null, allowLoss: false },
  )
  await content.types.save(
    database,
    {
      name: 'article',
      label: 'Artikel',
      fields: [
        { name: 'title', kind: 'text', localized: true, required: true },
        { name: 'slug', kind: 'slug', from: 'title', localized: true },
        { name: 'price', kind: 'number', filterable: true },
        { name: 'data', kind: 'json' },
        { name: 'author', kind: 'reference', types: ['author'] },
        { name: 'picture', kind: 'asset' },
      ],
      indexes: [['-publishedAt']],
    },
    { expected: null, allowLoss: false },
  )
  await content.types.save(
    database,
    {
      name: 'author',
      label: 'Author',
      fields: [
        { name: 'name', kind: 'text' },
        { name: 'best', kind: 'reference', types: ['article'], onDelete: 'unset' },
      ],
    },
    { expected: null, allowLoss: false },
  )
  const png = await sharp({ create: { width: 9, height: 7, channels: 3, background: 'blue' } })
    .png()
    .toBuffer()
  const picture = await media.upload(database, call.authority.actor, {
    name: 'blue.png',
    source: Readable.from([png]),
    alt: { de: 'Blau' },
  })
  await media.update(database, picture.id, { focalPoint: { x: 0.25, y: 1 } }, null)
  await media.upload(database, call.authority.actor, {
    name: 'same bytes.png',
    source: Readable.from([png]),
  })
  const author = await content.entries.create(call, 'author', {
    locale: null,
    fields: { name: 'Änn \u{1F600}' },
    publish: true,
  })
  const article = await content.entries.create(call, 'article', {
    locale: null,
    fields: {
      title: 'Eins',
      price: 0.1,
      data: { z: 1, a: [null, 1e21] },
      author: author.id,
      picture: picture.id,
    },
    publish: true,
    at: { createdAt: '2001-01-01T00:00:00Z', publishedAt: '2001-02-01T00:00:00Z' },
  })
  await content.entries.save(
    call,
    { type: 'article', id: article.id },
    { locale: 'en', fields: { title: 'One' }, publish: true, merge: true },
    null,
  )
  for (const title of ['Zwei', 'Drei'])
    await content.entries.save(
      call,
      { type: 'article', id: article.id },
      { locale: null, fields: { title }, merge: true },
      null,
    )
  await content.entries.save(
    call,
    { type: 'author', id: author.id },
    { locale: null, fields: { best: article.id }, merge: true, publish: true },
    null,
  )
  const draft = await content.entries.create(call, 'article', {
    locale: 'de-CH',
    fields: { title: 'Entwurf' },
  })
  const gone = await content.entries.create(call, 'article', {
    locale: null,
    fields: { title: 'Archiviert' },
    publish: true,
  })
  await content.entries.archive(call, { type: 'article', id: gone.id }, true, null)
  await content.schedule.add(call, 'article', draft.id, {
    locale: 'de-CH',
    action: 'publish',
    version: null,
    dueAt: '2040-01-01T00:00:00.000Z',
  })
  const release = await content.releases.create(call, 'Frühling')
  await content.releases.put(call, release.id, [
    { entryId: article.id, locale: 'de', action: 'publish', version: 2 },
  ])
  const done = await content.releases.create(call, 'Done')
  await content.releases.put(call, done.id, [
    { entryId: author.id, locale: 'de', action: 'publish', version: 2 },
  ])
  await content.releases.publish(call, done.id)
  await site.access.roles.save(database, site.access.systemIdentity, {
    name: 'reviewer',
    label: 'Reviewer',
    content: [
      {
        type: 'article',
        actions: ['readDraft'],
        filter: { op: 'compare', field: 'price', test: { is: 'gt', value: 0 } },
        fields: ['title'],
      },
    ],
    system: [],
  })
}

for (const history of [false, true]) {
  test(
    `export, import into an empty node, export: the same ` +
      `bytes${history ? ', with the whole history' : ''}; as a folder and as an archive`,
    { skip: databaseMissing },
    async () => {
      await using db = await testDatabase()
      await using on = importing(db)
      await fill(on)
      const first = await exported(on, `a-${history}`, { history })
      const archive = await exported(on, `a-${history}.tar.gz`, { history })
      await using otherDb = await testDatabase()
      await using other = importing(otherDb)
      const dry = await importFrom(other, archive, { dryRun: true })
      assert.deepEqual(
        [dry.counts['types']?.made, (await other.content.types.list(other.database)).length],
        [2, 0],
      )
      const report = await importFrom(other, history ? first : archive)
      assert.deepEqual(report.refused, [])
      assert.deepEqual(
        Object.fromEntries(Object.entries(report.counts).map(([what, { made }]) => [what, made])),
        { types: 2, locales: 2, roles: 1, assets: 2, entries: 4, releases: 2 },
      )
      const second = await exported(other, `b-${history}`, { history })
      assert.deepEqual(filesOf(second), filesOf(first))
      assert.ok(
        readFileSync(await exported(other, `b-${history}.tar.gz`, { history })).equals(
          readFileSync(archive),
        ),
        'the archives differ',
      )
      assert.deepEqual(
        execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' }).trim().split('\n').sort(),
        Object.keys(filesOf(first)).sort(),
      )

      const again = await importFrom(other, archive)
      assert.deepEqual(
        Object.values(again.counts).map(({ made, changed, refused }) => made + changed + refused),
        Object.values(again.counts).map(() => 0),
      )
      assert.deepEqual(filesOf(await exported(other, `b-${history}`, { history })), filesOf(first))
      const versions = await other.content.entries.versions(
        other.call,
        {
          type: 'article',
          id: (
            await other.content.entries.list(other.call, {
              type: 'article',
              filter: null,
              sort: [],
              fields: null,
              include: [],
              locale: 'en',
              perspective: 'published',
              limit: 1,
              after: null,
              count: false,
            })
          ).data[0]!.id,
        },
        { locale: 'de', limit: 10, before: null },
      )
      assert.deepEqual(
        versions.map(({ version, isLatest, isPublished }) => [version, isLatest, isPublished]),
        [
          [3, true, false],
          [2, false, false],
          [1, false, true],
        ],
      )
    },
  )
}

test(
  'an entry that differs gets the content of the archive as a new version; once',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await fill(on)
    const path = await exported(on, 'differs.tar')
    const list = {
      type: 'author',
      filter: null,
      sort: [],
      fields: null,
      include: [],
      locale: null,
      perspective: 'draft' as const,
      limit: 1,
      after: null,
      count: false,
    }
    const author = (await on.content.entries.list(on.call, list)).data[0]!
    await on.content.entries.save(
      on.call,
      { type: 'author', id: author.id },
      { locale: null, fields: { name: 'Changed' }, merge: true, publish: true },
      null,
    )
    assert.deepEqual((await importFrom(on, path)).counts['entries'], {
      made: 0,
      changed: 1,
      unchanged: 3,
      refused: 0,
    })
    const back = (await on.content.entries.list(on.call, list)).data[0]!
    assert.deepEqual(
      [(JSON.parse(back.fieldsJson) as { name: string }).name, back.version, back.status],
      ['Änn \u{1F600}', author.version + 2, 'published'],
    )
    assert.deepEqual((await importFrom(on, path)).counts['entries'], {
      made: 0,
      changed: 0,
      unchanged: 4,
      refused: 0,
    })
  },
)

test(
  'a damaged archive is reported file by file, and nothing of it is written',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await fill(on)
    const path = await exported(on, 'damaged')
    const names = globSync('entries/article/*.json', { cwd: path }).sort()
    const change = (name: string, from: RegExp, to: string): void => {
      const text = readFileSync(join(path, name), 'utf8')
      assert.match(text, from, name)
      writeFileSync(join(path, name), text.replace(from, to))
    }
    change(names[0]!, /"price": 0.1/, '"price": "cheap"')
    change(names[1]!, /"latest": true/, '"latest": false')
    writeFileSync(join(path, names[2]!), '{')
    rmSync(join(path, globSync('blobs/*', { cwd: path })[0]!))
    writeFileSync(join(path, 'types/stranger.json'), '{"name":"other"}')
    await using otherDb = await testDatabase()
    await using other = importing(otherDb)
    const report = await importFrom(other, path)
    const reasons = report.refused.map(
      ({ where, reason }) =>
        `${where.replace(/[0-9a-f-]{36}/, 'ID')}: ${reason.replace(/[0-9a-f-]{36}/, 'ID')}`,
    )
    for (const expected of [
      /types\/stranger.json: Its name is not/,
      /assets\/ID.json: Its bytes are not in/,
      /price: Give a finite number/,
      /has not one latest version/,
      /ID.json: It is not JSON/,
      /asset, which is neither/,
    ]) {
      assert.ok(
        reasons.some((reason) => expected.test(reason)),
        `${String(expected)} in ${reasons.join('\n')}`,
      )
    }
    assert.deepEqual(
      [
        await other.content.types.list(other.database),
        (await other.content.locales.list(other.database)).length,
      ],
      [[], 1],
    )
  },
)

type Json = { [key: string]: Json } & Json[]
type Damage = readonly [what: string, files: string, change: (value: Json) => void]
const set = (target: Json, key: string, value: unknown): void =>
  void ((target as Record<string, unknown>)[key] = value)
const damages: readonly Damage[] = [
  [
    'a number beyond the database',
    'entries/author/*',
    (entry) => set(entry['locales']!['de']![0]!, 'number', 3e9),
  ],
  [
    'a year that the database has not',
    'entries/author/*',
    (entry) => set(entry, 'createdAt', '0000-01-01T00:00:00.000Z'),
  ],
  ['U+0000 in an id', 'entries/author/*', (entry) => set(entry['createdBy']!, 'id', 'a\0')],
  [
    'archived and published',
    'entries/author/*',
    (entry) => set(entry, 'archivedAt', '2020-01-01T00:00:00.000Z'),
  ],
  ['a release in no state', 'releases/*', (release) => set(release, 'state', 'weird')],
  ['a release of yesterday', 'releases/*', (release) => set(release, 'createdAt', 'yesterday')],
  ['a release without an author', 'releases/*', (release) => set(release, 'createdBy', undefined)],
  ['U+0000 in a name', 'releases/*', (release) => set(release, 'name', 'a\0')],
  ['half a version', 'releases/*', (release) => set(release['items']![0]!, 'version', 1.5)],
  ['an action that is none', 'releases/*', (release) => set(release['items']![0]!, 'action', 'x')],
  ['a locale that is none', 'releases/*', (release) => set(release['items']![0]!, 'locale', 'xx')],
  ['an item twice', 'releases/*', (release) => void release['items']!.push(release['items']![0]!)],
  ['no texts', 'assets/*', (asset) => set(asset, 'alt', null)],
  ['an asset of yesterday', 'assets/*', (asset) => set(asset, 'createdAt', 'yesterday')],
  ['a revision in words', 'assets/*', (asset) => set(asset, 'revision', 'x')],
  ['an asset without an author', 'assets/*', (asset) => set(asset, 'createdBy', undefined)],
  ['a fallback that is a number', 'locales.json', (locales) => set(locales[0]!, 'fallback', 5)],
]

test(
  'values that the database would refuse are found before anything is written',
  { skip: databaseMissing },
  async (t) => {
    await using db = await testDatabase()
    await using on = importing(db)
    await fill(on)
    const whole = await exported(on, 'whole')
    await using otherDb = await testDatabase()
    await using other = importing(otherDb)
    for (const [what, files, change] of damages) {
      await t.test(what, async () => {
        const path = join(folder, 'values')
        rmSync(path, { recursive: true, force: true })
        cpSync(whole, path, { recursive: true })
        const file = join(path, globSync(files, { cwd: path })[0]!)
        const value = JSON.parse(readFileSync(file, 'utf8')) as Json
        change(value)
        writeFileSync(file, JSON.stringify(value))
        assert.notEqual((await importFrom(other, path)).refused.length, 0)
        assert.deepEqual(
          [
            await other.content.types.list(other.database),
            (await other.content.locales.list(other.database)).length,
          ],
          [[], 1],
        )
      })
    }
  },
)

test(
  'what is no export is refused; an interrupted archive leaves no file; strangers in a folder stay',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await assert.rejects(importFrom(on, join(folder, 'gone')), /cannot be read/)
    await assert.rejects(importFrom(on, tmpdir()), /has no stoa-export.json/)
    writeFileSync(join(folder, 'no.tar'), 'not a tar'.repeat(100))
    await assert.rejects(importFrom(on, join(folder, 'no.tar')), /no tar archive/)
    await fill(on)
    await assert.rejects(exported(on, 'none/x.tar'), /no folder/)
    await exported(on, 'stopped.tar.gz', { signal: AbortSignal.abort() })
    assert.deepEqual(globSync('stopped*', { cwd: folder }), [])
    const path = await exported(on, 'kept')
    writeFileSync(join(path, 'README'), 'mine')
    writeFileSync(join(path, 'entries/article/old.json'), 'of an earlier export')
    await exported(on, 'kept')
    assert.deepEqual(
      [readFileSync(join(path, 'README'), 'utf8'), globSync('**/old.json', { cwd: path })],
      ['mine', []],
    )
    const stranger = mkdtempSync(join(folder, 'stranger-'))
    writeFileSync(join(stranger, 'package.json'), '{}')
    await assert.rejects(
      exported(on, stranger.slice(folder.length + 1)),
      /no export; choose an empty folder/,
    )
  },
)

test(
  'an export into a folder that did not end is none, until the next one completes it',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await fill(on)
    const path = await exported(on, 'halfway')
    const whole = filesOf(path)
    for (const before of ['empty', 'complete']) {
      if (before === 'empty') rmSync(path, { recursive: true })
      let asked = 0
      const signal = {
        get aborted() {
          return (asked += 1) > 4
        },
      } as AbortSignal
      await exported(on, 'halfway', { signal })
      assert.ok(globSync('types/*.json', { cwd: path }).length > 0, 'it had begun')
      await assert.rejects(importFrom(on, path), /did not end/)
      await exported(on, 'halfway')
      assert.deepEqual(filesOf(path), whole)
    }
  },
)
