import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ImportPlanError } from '#cli/import/errors.ts'
import { FrontMatterSeen, fieldValue, inferType } from '#cli/import/infer-type.ts'
import { findLayout, isLanguageTag, pageKey, placeOf } from '#cli/import/layout.ts'
import type { Layout } from '#cli/import/layout.ts'
import { pageId, slugsOf } from '#cli/import/page-slugs.ts'

type More = {
  readonly wish?: boolean
  readonly isArchive?: boolean
  readonly known?: readonly string[]
}

function layoutOf(paths: readonly string[], more: More = {}): Layout {
  return findLayout(paths, {
    isArchive: more.isArchive ?? false,
    wish: more.wish ?? null,
    known: new Set(more.known ?? []),
    defaultLocale: 'en',
    localeCodes: new Set(['en']),
    type: 'page',
  })
}

function pagesOf(paths: readonly string[], more: More = {}): string[] {
  const layout = layoutOf(paths, more)
  return paths.map((path) => {
    const place = placeOf(path, layout)
    return place === null ? `${path} outside` : pageKey(place.locale ?? 'en', place.path)
  })
}

test('folders are locales if all folders beside each other are languages', () => {
  assert.deepEqual(
    ['en', 'pt-br', 'zh-Hant-TW', 'faq', 'api', 'guides', 'EN', ''].map(isLanguageTag),
    [true, true, true, false, false, false, false, false],
  )
  assert.deepEqual(pagesOf(['en/a.md', 'ko/a.md', 'ko/b/index.md']), ['en a', 'ko a', 'ko b'])
  assert.deepEqual(pagesOf(['docs/en/a.md', 'docs/ko/a.md']), ['en docs/a', 'ko docs/a'])
  assert.deepEqual(pagesOf(['docs/en/a.md', 'docs/ko/a.md'], { isArchive: true }), ['en a', 'ko a'])
  assert.deepEqual(pagesOf(['en/x/a.md', 'en/x/b.md']), ['en x/a', 'en x/b'])
  assert.deepEqual(pagesOf(['index.md', 'a/_index.md']), ['en index', 'en a'])
})

test('names of folders that are languages by chance are no locales', () => {
  const paths = ['README.md', 'src/SUMMARY.md', 'src/one.md', 'bar/x.md', 'bin/y.md']
  assert.deepEqual(pagesOf(paths), [
    'en README',
    'en src/SUMMARY',
    'en src/one',
    'en bar/x',
    'en bin/y',
  ])
})

test('where only some folders are languages with the same pages, the import stops and asks', () => {
  const paths = ['en/a.md', 'fr/a.md', 'shared/b.md']
  assert.throws(() => layoutOf(paths), ImportPlanError)
  assert.throws(() => layoutOf(['guide/a.md', 'index.md', 'fr/guide/a.md']), ImportPlanError)
  assert.deepEqual(pagesOf(paths, { wish: true }), ['en a', 'fr a', 'en shared/b'])
  assert.deepEqual(pagesOf(paths, { wish: false }), ['en en/a', 'en fr/a', 'en shared/b'])
})

test('pages that were imported stay the same pages whatever else comes into the source', () => {
  const before = ['docs/a.md', 'docs/b.md']
  for (const isArchive of [false, true]) {
    const known = pagesOf(before, { isArchive })
    const after = pagesOf([...before, 'README.md', 'other/c.md'], { isArchive, known })
    assert.deepEqual(after.slice(0, 2), known)
  }
  const locales = ['en/a.md', 'fr/a.md']
  const known = pagesOf(locales)
  assert.deepEqual(pagesOf([...locales, 'shared/b.md', 'src/x.md', 'it/a.md'], { known }), [
    ...known,
    'en shared/b',
    'en src/x',
    'it a',
  ])
  const plain = pagesOf([...locales, 'shared/b.md'], { wish: false })
  assert.deepEqual(pagesOf(locales, { known: plain }), plain.slice(0, 2))
  assert.throws(() => layoutOf(locales, { known: plain, wish: true }), ImportPlanError)
  assert.throws(() => layoutOf(locales, { known, wish: false }), ImportPlanError)
})

test('ids are UUIDs of version 8 and stay; slugs are unique whatever the order', () => {
  assert.equal(pageId('page', 'guides/images'), pageId('page', 'guides/images'))
  assert.notEqual(pageId('page', 'guides/images'), pageId('post', 'guides/images'))
  assert.match(
    pageId('page', 'x'),
    /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
  )
  const ids = new Map(
    ['a/b-c', 'a-b/c', 'x', 'Ünï', '日本'].map((path) => [path, pageId('page', path)]),
  )
  const slugs = slugsOf(ids, new Map())
  assert.equal(new Set(slugs.values()).size, 5)
  assert.deepEqual(slugsOf(new Map([...ids].reverse()), new Map()), slugs)
  const kept = slugsOf(ids, new Map([[ids.get('a/b-c')!, 'a-b-c']]))
  assert.deepEqual(
    [kept.get('a/b-c'), kept.get('a-b/c')],
    ['a-b-c', `a-b-c-${ids.get('a-b/c')!.slice(0, 8)}`],
  )
  assert.deepEqual([slugs.get('x'), slugs.get('Ünï'), slugs.get('日本')], ['x', 'uni', '日本'])
})

test('a type is inferred from kinds, locales and names; one that exists is only extended', () => {
  const seen = new FrontMatterSeen()
  seen.add('a', {
    title: 'A',
    type: 'guide',
    order: 1,
    draft: true,
    date: '2024-02-29',
    tags: ['x'],
    sidebar: { label: 'A' },
    mixed: 1,
    'my-key': 'x'.repeat(600),
  })
  seen.add('a', {
    title: 'Ä',
    type: 'guide',
    order: 1,
    date: '2024-02-29T10:00',
    tags: ['x'],
    mixed: false,
    nothing: null,
  })
  const { definition, fieldOf, notes } = inferType('page', seen, null)
  const byName = new Map(definition.fields.map((field) => [field.name, field]))
  assert.deepEqual(byName.get('title'), {
    name: 'title',
    kind: 'text',
    localized: true,
    filterable: true,
  })
  assert.deepEqual(byName.get('pageType'), { name: 'pageType', kind: 'text', filterable: true })
  assert.deepEqual(byName.get('order'), { name: 'order', kind: 'number', filterable: true })
  assert.deepEqual(byName.get('draft'), {
    name: 'draft',
    localized: true,
    kind: 'boolean',
    filterable: true,
  })
  assert.deepEqual(byName.get('date'), {
    name: 'date',
    localized: true,
    kind: 'dateTime',
    filterable: true,
  })
  assert.equal(byName.get('tags')?.kind, 'list')
  assert.deepEqual(
    [byName.get('sidebar')?.kind, byName.get('mixed')?.kind, byName.get('nothing')],
    ['json', 'json', undefined],
  )
  assert.deepEqual(byName.get('myKey'), { name: 'myKey', localized: true, kind: 'text' })
  assert.deepEqual([fieldOf.get('type')?.name, fieldOf.get('my-key')?.name], ['pageType', 'myKey'])
  assert.equal(notes.length, 2)
  assert.deepEqual(inferType('page', seen, definition).definition, definition)
  const other = inferType('page', seen, {
    name: 'page',
    label: 'Seite',
    fields: [{ name: 'order', kind: 'text' }],
  })
  assert.deepEqual(
    [other.definition.label, other.definition.fields[0]],
    ['Seite', { name: 'order', kind: 'text' }],
  )
  assert.equal(fieldValue({ name: 'order', kind: 'text' }, 1), '1')
  assert.equal(
    fieldValue({ name: 'date', kind: 'dateTime' }, '2024-02-29 10:00'),
    '2024-02-29T10:00:00.000Z',
  )
})

test('keys that differ by case are two fields, and numbers are exact or stay text', () => {
  const seen = new FrontMatterSeen()
  seen.add('a', { Title: 'Upper', title: 'lower', Tags: ['x'], tags: ['y'], version: 2 })
  seen.add('b', { version: '1.10' })
  const { fieldOf } = inferType('page', seen, null)
  assert.notEqual(fieldOf.get('Title')?.name, fieldOf.get('title')?.name)
  assert.equal(fieldOf.get('tags')?.name, 'tags')
  assert.notEqual(fieldOf.get('Tags')?.name, 'tags')
  assert.equal(fieldOf.get('version')?.kind, 'text')
  const number = { name: 'order', kind: 'number' } as const
  assert.equal(fieldValue(number, '01'), 1)
  assert.equal(fieldValue(number, '750727362669608961'), '750727362669608961')
})
