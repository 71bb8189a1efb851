import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PageReader, parsePage } from '#lib/front-matter.ts'
import { FrontMatterSeen, fieldValue, inferType } from '#cli/import/infer-type.ts'
import { findLayout, isLanguageTag, pageId, placeOf, slugsOf } from '#cli/import/page-table.ts'

test('front matter and body; none at all; a byte order mark; CRLF; a rule further down', () => {
  assert.deepEqual(parsePage('---\ntitle: A\n---\n\n# Body\n---\n'), {
    ok: true,
    page: { frontMatter: { title: 'A' }, body: '# Body\n---\n' },
  })
  assert.deepEqual(parsePage('\uFEFF---\r\ntitle: A\r\n---\r\nBody'), {
    ok: true,
    page: { frontMatter: { title: 'A' }, body: 'Body' },
  })
  assert.deepEqual(parsePage('Body\n---\nx\n---'), {
    ok: true,
    page: { frontMatter: {}, body: 'Body\n---\nx\n---' },
  })
  assert.deepEqual(parsePage('---\n---\n'), { ok: true, page: { frontMatter: {}, body: '' } })
  assert.deepEqual(parsePage(''), { ok: true, page: { frontMatter: {}, body: '' } })
})

test('what is no front matter is a reason, never an exception', () => {
  const reasons = [
    '---\ntitle: [\n---\n',
    '---\na: 1\na: 2\n---\n',
    '---\n- a\n---\n',
    '---\ntext\n---\n',
    '---\ntitle: x\n',
    '---\na: *b\n---\n',
  ].map((text) => parsePage(text))
  for (const parsed of reasons)
    assert.ok(!parsed.ok && parsed.reason.length > 10, JSON.stringify(parsed))
  const bomb = `---\na: &a [x, x, x, x, x, x, x, x, x]\n${['b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'].map((name, at) => `${name}: &${name} [${Array(9).fill(`*${'abcdefghij'[at]}`).join(', ')}]`).join('\n')}\n---\n`
  assert.equal(parsePage(bomb).ok, false)
})

test('values that JSON does not know become what it knows', () => {
  const parsed = parsePage(
    '---\nnan: .nan\nbig: 123456789012345678901234567890\nbinary: !!binary aGk=\n1: one\nnothing: ~\n---\n',
  )
  assert.ok(parsed.ok)
  assert.deepEqual(JSON.parse(JSON.stringify(parsed.page.frontMatter)), {
    1: 'one',
    nan: 'NaN',
    big: 123456789012345680000000000000,
    binary: 'aGk=',
    nothing: null,
  })
})

test('locale folders are found by being languages, all of them; asking beats finding', () => {
  assert.deepEqual(
    ['en', 'pt-br', 'zh-Hant-TW', 'faq', 'api', 'guides', 'EN', ''].map(isLanguageTag),
    [true, true, true, false, false, false, false, false],
  )
  const paths = ['docs/en/a.md', 'docs/ko/a.md', 'docs/ko/b/index.md']
  assert.deepEqual(findLayout(paths, null), { prefix: 'docs/', localeFolders: true })
  assert.deepEqual(findLayout([...paths, 'docs/faq/x.md'], null), {
    prefix: 'docs/',
    localeFolders: false,
  })
  assert.deepEqual(findLayout(paths, false), { prefix: 'docs/', localeFolders: false })
  assert.deepEqual(findLayout(['docs/en/x/a.md', 'docs/en/x/b.md'], null), {
    prefix: 'docs/',
    localeFolders: true,
  })
  assert.deepEqual(findLayout(['a.md'], null), { prefix: '', localeFolders: false })
  const layout = findLayout(paths, null)
  assert.deepEqual(placeOf('docs/ko/b/index.md', layout), {
    path: 'b',
    locale: 'ko',
    isIndex: true,
  })
  assert.deepEqual(placeOf('docs/en/index.mdx', layout), {
    path: 'index',
    locale: 'en',
    isIndex: true,
  })
  assert.deepEqual(placeOf('docs/README.md', layout), {
    path: 'README',
    locale: null,
    isIndex: false,
  })
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
  const slugs = slugsOf(ids)
  assert.equal(new Set(slugs.values()).size, 5)
  assert.deepEqual(slugsOf(new Map([...ids].reverse())), slugs)
  assert.deepEqual([slugs.get('x'), slugs.get('Ünï'), slugs.get('日本')], ['x', 'uni', '日本'])
})

test('the type is inferred: kinds, what differs between locales, reserved and odd names; an existing type is only extended', () => {
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
    'my-key': 'x'.repeat(300),
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

test('a page that is read again is the same page, unless it begins otherwise', () => {
  const reader = new PageReader()
  for (const text of [
    '---\na: 1\n---\nbody',
    '---\na: 1\n---\n\n\n  indented',
    'no front matter',
    '---\na: 1\n---',
    '---\na: 2\n---\nbody',
    '---\na: 1\n---\n\nbody',
    '---\na: 1\n---\nother body',
    '',
  ]) {
    assert.deepEqual(reader.read('page', text), parsePage(text), text)
    assert.deepEqual(reader.read('page', text), parsePage(text), `${text} again`)
  }
})
