import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parsePage } from '#lib/front-matter.ts'
import { scanLinks } from '#cli/import/links.ts'
import { resolveLinks } from '#cli/import/resolve-links.ts'

const targets = (text: string): string[] =>
  scanLinks(text)
    .filter((link) => link.kind === 'link')
    .map((link) => link.target)

test('inline links, with titles, angle brackets, parentheses, escapes and entities', () => {
  assert.deepEqual(
    targets('[a](/a/) [b](/b "title") [c](</c d>) [d](/d_(e)) [e](/e\\)f) [f](/f?x=1&amp;y=2)'),
    ['/a/', '/b', '/c d', '/d_(e)', '/e)f', '/f?x=1&y=2'],
  )
  assert.deepEqual(targets('[a] (/a) [b](/b c) [](/d) \\[e](/e)'), ['/d'])
  assert.deepEqual(targets('[a [b] c](/nested)'), ['/nested'])
})

test('an image is no link, but an image in a link leaves the link', () => {
  assert.deepEqual(targets('![alt](/x.png) [![alt](/y.png)](/page/)'), ['/page/'])
})

test('references: full, collapsed, shortcut; definitions in any case, anywhere, also none', () => {
  const text =
    '[full][The  Ref] [the ref][] [the ref] [nothing][gone]\n\n> [THE REF]: /target/ ' +
    '"title"\n\n[other]: </a b>\n[^note]: /not-a-link'
  assert.deepEqual(targets(text), ['/target/', '/target/', '/target/'])
})

test('code is passed over: fences in lists, quotes and JSX, unclosed fences, inline code', () => {
  assert.deepEqual(targets('```md\n[a](/a)\n```\n[b](/b)'), ['/b'])
  assert.deepEqual(targets('<Tabs>\n  ```sh\n  [a](/a)\n  ```\n</Tabs>\n[b](/b)'), ['/b'])
  assert.deepEqual(targets('- ~~~~\n  [a](/a)\n  ~~~\n  ~~~~\n> ```\n> [c](/c)\n> ```\n[b](/b)'), [
    '/b',
  ])
  assert.deepEqual(targets('[b](/b)\n````\n```\n[a](/a)'), ['/b'])
  assert.deepEqual(targets('`[a](/a)` ``[b]`(/b)`` [c](/c) `open\n\n[d](/d)'), ['/c', '/d'])
})

test('href of HTML and JSX is found in quotes, braces and templates, not in comments', () => {
  assert.deepEqual(
    targets(
      '<a href="/a">x</a> <A class="b" href=\'/b\'> <C href={"/c"} d={{ e: "}" }} href2="/no">',
    ),
    ['/a', '/b', '/c'],
  )
  assert.deepEqual(
    targets(
      '<A href={`/d`} /> <A href={`/${e}`} /> <A href={e} /> <A title=" href=\'/f\'" href=/g />',
    ),
    ['/d', '/g'],
  )
  assert.deepEqual(
    targets('<!-- <a href="/a"> --> {/* [b](/b) */} <https://example.org/c> a < b [d](/d)'),
    ['https://example.org/c', '/d'],
  )
  assert.deepEqual(targets('<Card>[in JSX](/e)</Card>\n<Card\n  title="x"\n  href="/f"\n/>'), [
    '/e',
    '/f',
  ])
})

test('lines are counted', () => {
  assert.deepEqual(
    scanLinks('a\n\n[b](/b) [c](/c)\n[d](/d)').map((link) => link.line),
    [3, 3, 4],
  )
})

test('no text makes it throw, and none takes it for ever', () => {
  const piece = fc.constantFrom(
    '[',
    ']',
    '(',
    ')',
    '<',
    '>',
    '`',
    '```\n',
    '\n',
    '\\',
    '"',
    "'",
    '{',
    '}',
    'href=',
    '<a ',
    '<!--',
    '{/*',
    '[a]:',
    ' ',
    '!',
    'é',
    '\u{1F600}',
    '---\n',
    ':',
    '- ',
    '&',
  )
  fc.assert(
    fc.property(fc.array(fc.oneof(piece, fc.string()), { maxLength: 200 }), (pieces) => {
      const text = pieces.join('')
      for (const link of scanLinks(text)) assert.equal(typeof link.target, 'string')
      assert.equal(typeof parsePage(text).ok, 'boolean')
      assert.equal(typeof parsePage(`---\n${text}\n---\nbody`).ok, 'boolean')
    }),
    { numRuns: 500 },
  )
  for (const bad of ['[', '`a', '<a ', '<a {', '<a "', '[a](', '](', '{/*', '[a]:', '[[]', '> '])
    scanLinks(bad.repeat(100_000))
})

const table = {
  ids: new Map([
    ['index', 'I'],
    ['guides', 'G'],
    ['guides/images', 'GI'],
    ['guides/fonts', 'GF'],
    ['en', 'EN'],
  ]),
  names: new Map<string, string | null>([
    ['images', 'GI'],
    ['index', null],
  ]),
  locales: new Set(['en', 'ko', 'pt-br']),
  siteUrl: 'https://docs.example.org',
}
const resolve = (
  from: string,
  ...links: string[]
): { ids: readonly string[]; unresolved: string[] } => {
  const { ids, unresolved } = resolveLinks(
    links.map((target) => ({ target, kind: 'link', line: 1 })),
    { path: from, isIndex: from === 'guides' || from === 'index' },
    table,
  )
  return { ids, unresolved: unresolved.map((link) => link.target) }
}

test('absolute links work with and without locale, fragment, query, slash and extension', () => {
  assert.deepEqual(
    resolve(
      'index',
      '/en/guides/images/#a',
      '/KO/guides/images',
      '/guides/images.md?x',
      '/pt-br/guides/',
      'https://docs.example.org/en/guides/fonts/',
    ),
    { ids: ['GI', 'G', 'GF'], unresolved: [] },
  )
  assert.deepEqual(resolve('guides', '/', '/en/', '/guides/index.html', '/guides/%69mages'), {
    ids: ['I', 'GI'],
    unresolved: [],
  })
})

test('relative links mean the URL without an extension and the file with one, or the other', () => {
  assert.deepEqual(resolve('guides/images', '../fonts/', './fonts.md', 'fonts'), {
    ids: ['GF'],
    unresolved: [],
  })
  assert.deepEqual(resolve('guides', './images.mdx', '../guides/fonts.md', 'fonts/'), {
    ids: ['GI', 'GF'],
    unresolved: [],
  })
})

test('other sites, schemes and fragments are nothing; what leads nowhere is reported', () => {
  assert.deepEqual(
    resolve(
      'index',
      'https://example.org/en/guides/',
      'mailto:a@b.c',
      '//cdn/x',
      '#top',
      '?a',
      'javascript:x',
    ),
    { ids: [], unresolved: [] },
  )
  assert.deepEqual(resolve('index', '/en/gone/', '../../up', '', '/100%/', '/en/guides/imagesx'), {
    ids: [],
    unresolved: ['/en/gone/', '../../up', '', '/100%/', '/en/guides/imagesx'],
  })
})

test('images, files and wikilinks are found apart from links to pages', () => {
  const text =
    '![a](img/a.png) ![[pic.png]] [[Images|all]] [[Gone#x]] [pdf](./x.pdf) <img src="/b.jpg"> ' +
    '[[1]](https://e.example) ![r]\n\n[r]: r.gif\n'
  assert.deepEqual(
    scanLinks(text).map(({ kind, target }) => `${kind} ${target}`),
    [
      'image img/a.png',
      'embed pic.png',
      'wiki Images',
      'wiki Gone#x',
      'link ./x.pdf',
      'image /b.jpg',
      'link https://e.example',
      'image r.gif',
    ],
  )
  const { ids, unresolved, files } = resolveLinks(
    scanLinks(text),
    { path: 'index', isIndex: true },
    table,
  )
  assert.deepEqual(ids, ['GI'])
  assert.deepEqual(
    unresolved.map((link) => link.target),
    ['Gone#x'],
  )
  assert.deepEqual(
    files.map((link) => link.target),
    ['img/a.png', 'pic.png', './x.pdf', '/b.jpg', 'r.gif'],
  )
})
