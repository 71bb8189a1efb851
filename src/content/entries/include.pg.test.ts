import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import type { Depends } from '#content/query/dependencies.ts'
import { sql } from '#database/database.ts'
import { newId } from '#lib/id.ts'
import { listing, reading, testContent } from '#test/support/content.ts'
import type { TestContent } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

const person: ContentType = {
  name: 'person',
  label: 'Person',
  fields: [
    { name: 'name', kind: 'text', filterable: true },
    { name: 'portrait', kind: 'asset' },
  ],
}
const page: ContentType = {
  name: 'page',
  label: 'Page',
  fields: [
    { name: 'title', kind: 'text', filterable: true },
    { name: 'cover', kind: 'asset' },
    { name: 'authors', kind: 'reference', types: ['person'], many: true },
    {
      name: 'meta',
      kind: 'group',
      fields: [
        { name: 'editor', kind: 'reference', types: ['person'] },
        { name: 'image', kind: 'asset' },
      ],
    },
    {
      name: 'links',
      kind: 'list',
      of: {
        name: 'link',
        kind: 'group',
        fields: [{ name: 'target', kind: 'reference', types: ['person'] }],
      },
    },
    {
      name: 'sections',
      kind: 'blocks',
      blocks: [
        {
          name: 'hero',
          fields: [
            { name: 'image', kind: 'asset' },
            { name: 'person', kind: 'reference', types: ['person'] },
          ],
        },
      ],
    },
  ],
}
const insertAsset = sql<object>(
  `insert into stoa.asset (id, name, content_type, bytes, blob, width, height, alt, search,
    created_at, created_by)
   values ($1, $2, 'image/png', 3, repeat('a', 64), 30, 20, '{"en":"A roof"}', '', now(), '{}')`,
)

async function asset({ database }: TestContent, name: string): Promise<string> {
  const id = newId()
  await database.run(insertAsset, [id, name])
  return id
}

async function made(site: TestContent, type: string, fields: Record<string, unknown>) {
  const input = { locale: null, fields, publish: true }
  return (await site.content.entries.create(site.admin, type, input)).id
}

test('include follows assets, and references in groups, lists and blocks', { skip }, async () => {
  await using site = await testContent({ types: [person, page] })
  const [cover, image, portrait, hero] = await Promise.all(
    ['cover.png', 'image.png', 'portrait.png', 'hero.png'].map((name) => asset(site, name)),
  )
  const people: string[] = []
  for (const name of ['author', 'editor', 'linked', 'shown'])
    people.push(await made(site, 'person', { name, portrait }))
  const [author, editor, linked, shown] = people
  const id = await made(site, 'page', {
    title: 'T',
    cover,
    authors: [author],
    meta: { editor, image },
    links: [{ target: linked }],
    sections: [{ block: 'hero', image: hero, person: shown }],
  })
  const reader = site.call({ page: { read: true }, person: { read: true } })
  const { entries } = site.content
  const reached = async (include: string[], perspective: 'published' | 'draft' = 'published') => {
    const call = perspective === 'draft' ? site.admin : reader
    const found = await entries.get(call, 'page', id, reading({ include, perspective }))
    const one = { entries: [...found.included.keys()].toSorted(), assets: [...found.assets.keys()] }
    const list = await entries.list(call, listing('page', { include, perspective }))
    assert.deepEqual([...list.included.keys()].toSorted(), one.entries, 'as a list does')
    assert.deepEqual([...list.assets.keys()], one.assets)
    return one
  }
  for (const perspective of ['published', 'draft'] as const) {
    const both = (include: string[]) => reached(include, perspective)
    assert.deepEqual(await both(['cover']), { entries: [], assets: [cover] })
    assert.deepEqual(await both(['meta.editor']), { entries: [editor], assets: [] })
    assert.deepEqual(await both(['meta.image']), { entries: [], assets: [image] })
    assert.deepEqual(await both(['links.target']), { entries: [linked], assets: [] })
    assert.deepEqual(await both(['sections.hero.image']), { entries: [], assets: [hero] })
    assert.deepEqual(await both(['sections.hero.person', 'sections.hero.person.portrait']), {
      entries: [shown],
      assets: [portrait],
    })
    assert.deepEqual(await both(['meta.editor.portrait', 'authors']), {
      entries: [author!, editor!].sort(),
      assets: [portrait],
    })
  }
  const { assets } = await entries.get(reader, 'page', id, reading({ include: ['cover'] }))
  assert.deepEqual(assets.get(cover!), {
    id: cover,
    name: 'cover.png',
    contentType: 'image/png',
    bytes: 3,
    width: 30,
    height: 20,
    altJson: '{"en":"A roof"}',
    focalPoint: null,
  })
  for (const path of ['title', 'meta', 'meta.nope', 'sections.image', 'cover.x', 'links.x', ''])
    await assert.rejects(
      entries.get(reader, 'page', id, reading({ include: [path] })),
      (error: Error & { code?: string; facts?: { allowed?: string[] } }) =>
        error.code === 'E_QUERY_FIELD' &&
        error.message.includes('there are: ') &&
        (path === 'cover.x' || error.facts?.allowed?.includes('sections.hero.image') === true),
      path,
    )
})

test(
  'a release includes what its versions point to, in groups and blocks too',
  { skip },
  async () => {
    await using site = await testContent({ types: [person, page] })
    const { content, admin } = site
    const before = await made(site, 'person', { name: 'before' })
    const after = await made(site, 'person', { name: 'after' })
    const image = await asset(site, 'a.png')
    const id = await made(site, 'page', { title: 'T', meta: { editor: before } })
    const input = { locale: null, fields: { meta: { editor: after, image } }, merge: true }
    const saved = await content.entries.save(admin, { type: 'page', id }, input, null)
    const release = await content.releases.create(admin, 'R')
    await content.releases.put(admin, release.id, [
      { entryId: id, locale: 'en', action: 'publish', version: saved.version },
    ])
    const include = ['meta.editor', 'meta.image']
    const perspective = { release: release.id }
    const found = await content.entries.get(admin, 'page', id, reading({ include, perspective }))
    assert.deepEqual([[...found.included.keys()], [...found.assets.keys()]], [[after], [image]])
    const now = await content.entries.get(admin, 'page', id, reading({ include }))
    assert.deepEqual([[...now.included.keys()], [...now.assets.keys()]], [[before], []])
  },
)

test('fields keep the field that an include joins by', { skip }, async () => {
  await using site = await testContent({ types: [person, page] })
  const author = await made(site, 'person', { name: 'A' })
  const id = await made(site, 'page', { title: 'T', authors: [author], meta: { editor: author } })
  const options = { fields: ['title'], include: ['authors'] }
  const { entry } = await site.content.entries.get(site.admin, 'page', id, reading(options))
  assert.deepEqual(JSON.parse(entry.fieldsJson), { title: 'T', authors: [author] })
  const list = await site.content.entries.list(site.admin, listing('page', options))
  assert.deepEqual(JSON.parse(list.data[0]!.fieldsJson), { title: 'T', authors: [author] })
})

test(
  'a reader without a grant on it sees neither a target nor what it shows',
  { skip },
  async () => {
    await using site = await testContent({ types: [person, page] })
    const portrait = await asset(site, 'p.png')
    const open = await made(site, 'person', { name: 'open', portrait })
    const closed = await made(site, 'person', {
      name: 'closed',
      portrait: await asset(site, 'q.png'),
    })
    const id = await made(site, 'page', { title: 'T', authors: [open, closed] })
    const filter = { op: 'compare', field: 'name', test: { is: 'eq', value: 'open' } } as const
    const call = site.call({ page: { read: true }, person: { read: { filter, fields: null } } })
    const options = reading({ include: ['authors.portrait'] })
    const found = await site.content.entries.get(call, 'page', id, options)
    assert.deepEqual([[...found.included.keys()], [...found.assets.keys()]], [[open], [portrait]])
  },
)

test('a response that includes an asset depends on it', { skip }, async () => {
  await using site = await testContent({ types: [person, page] })
  const cover = await asset(site, 'c.png')
  const id = await made(site, 'page', { title: 'T', cover })
  const rows: string[] = []
  const depends: Depends = {
    row: (collection, key) => rows.push(`${collection} ${key}`),
    list: () => undefined,
  }
  const call = { ...site.admin, depends }
  await site.content.entries.get(call, 'page', id, reading({ include: ['cover'] }))
  assert.ok(rows.includes(`asset ${cover}`))
})

test(
  'a page ends early where its texts or what it includes are too many bytes, and after goes on',
  { skip, timeout: 240_000 },
  async () => {
    await using site = await testContent({ types: [person, page] })
    const { content, admin } = site
    const long = 'x'.repeat(900_000)
    const people: string[] = []
    for (let at = 0; at < 7; at += 1) people.push(await made(site, 'person', { name: null }))
    // Texts beyond the limit of the API, as imports may have them.
    await site.database.run(
      sql(
        `update stoa.version set data = json_build_object('name', $1::text) where type = 'person'`,
      ),
      [long],
    )
    for (const author of people) await made(site, 'page', { title: 'T', authors: [author] })
    const walk = async (type: string, include: string[]): Promise<number[]> => {
      const lengths: number[] = []
      const ids = new Set<string>()
      for (let after: string | null = null; ;) {
        const query = listing(type, { after, include, limit: 200, count: true })
        const list = await content.entries.list(admin, query)
        assert.equal(list.count, people.length)
        lengths.push(list.data.length)
        for (const { id } of list.data) ids.add(id)
        if (include.length > 0) assert.equal(list.included.size, list.data.length)
        after = list.after
        if (after === null) break
      }
      assert.equal(ids.size, people.length, 'each entry once')
      return lengths
    }
    assert.deepEqual(await walk('person', []), [2, 2, 2, 1])
    assert.deepEqual(await walk('page', ['authors']), [2, 2, 2, 1])
    assert.deepEqual(await walk('page', []), [7])
    const many = await made(site, 'page', { title: 'all', authors: people })
    await assert.rejects(
      content.entries.get(admin, 'page', many, reading({ include: ['authors'] })),
      { code: 'E_QUERY_LIMIT' },
    )
    assert.ok((await content.entries.get(admin, 'page', many, reading())).entry)
  },
)
