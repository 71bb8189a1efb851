import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Field } from '#content/content-type.ts'
import { compileType } from '#content/validation/compile.ts'
import { makeSlug, slugProblem } from '#content/validation/slug.ts'

function check(
  field: Field,
  value: unknown,
  publishing = false,
): { value: unknown; faults: string[] } {
  const { fields, faults } = compileType({ name: 't', label: 'T', fields: [field] }).validate(
    { [field.name]: value },
    { publishing },
  )
  return { value: fields[field.name], faults: faults.map((fault) => `${fault.path} ${fault.code}`) }
}
const id = '0197a000-0000-7000-8000-000000000001'
const doc = (...content: unknown[]): unknown => ({ type: 'doc', content })
const paragraph = (...content: unknown[]): unknown => ({ type: 'paragraph', content })
const link = (href: string): unknown =>
  doc(paragraph({ type: 'text', text: 'x', marks: [{ type: 'link', attrs: { href } }] }))

const text: Field = { name: 'f', kind: 'text', lengthMin: 2, lengthMax: 4 }
const fine: [string, Field, unknown, unknown?][] = [
  ['text counted in code points', text, '😀😀😀😀'],
  ['text with a pattern', { name: 'f', kind: 'text', pattern: '[a-z]+' }, 'abc'],
  ['null is no value', text, null, undefined],
  ['markdown', { name: 'f', kind: 'markdown' }, '# x'],
  ['minus zero', { name: 'f', kind: 'number' }, -0, 0],
  ['an integer', { name: 'f', kind: 'number', integer: true, min: 1, max: 3 }, 3],
  ['a boolean', { name: 'f', kind: 'boolean' }, false],
  [
    'a time in another zone',
    { name: 'f', kind: 'dateTime' },
    '2026-11-20T00:30:00.123456+01:00',
    '2026-11-19T23:30:00.123Z',
  ],
  [
    'the year 0',
    { name: 'f', kind: 'dateTime' },
    '0000-01-01T00:00:00Z',
    '0000-01-01T00:00:00.000Z',
  ],
  ['an option', { name: 'f', kind: 'select', options: ['a', 'b'] }, 'b'],
  ['options', { name: 'f', kind: 'select', options: ['a', 'b'], many: true }, ['b', 'a']],
  ['json', { name: 'f', kind: 'json' }, { a: [1, { b: null }] }],
  ['a slug in another Unicode form', { name: 'f', kind: 'slug' }, 'cafe\u0301', 'café'],
  [
    'a linked image and a marked break',
    { name: 'f', kind: 'richText' },
    doc(
      paragraph(
        {
          type: 'image',
          attrs: { src: '/a.png' },
          marks: [{ type: 'link', attrs: { href: '/' } }],
        },
        { type: 'hardBreak', marks: [{ type: 'bold' }] },
      ),
    ),
  ],
  ['a slug in Korean', { name: 'f', kind: 'slug' }, '한국어/안내'],
  ['references', { name: 'f', kind: 'reference', many: true }, [id]],
  ['a group', { name: 'f', kind: 'group', fields: [{ name: 'a', kind: 'text' }] }, { a: 'x' }],
  [
    'a list',
    { name: 'f', kind: 'list', of: { name: 'one', kind: 'dateTime' } },
    ['2026-01-01T00:00:00Z'],
    ['2026-01-01T00:00:00.000Z'],
  ],
  [
    'blocks',
    {
      name: 'f',
      kind: 'blocks',
      blocks: [{ name: 'quote', fields: [{ name: 'text', kind: 'text' }] }],
    },
    [{ block: 'quote', text: 'x' }],
  ],
  [
    'rich text',
    { name: 'f', kind: 'richText' },
    doc(paragraph({ type: 'text', text: 'x', marks: [{ type: 'bold' }] }), {
      type: 'heading',
      attrs: { level: 2, textAlign: null },
    }),
  ],
  ['a safe link', { name: 'f', kind: 'richText' }, link('https://example.org/?a=b:c')],
  ['a link on the site', { name: 'f', kind: 'richText' }, link('/a:b')],
]
for (const [what, field, value, expected = value === null ? undefined : value] of fine) {
  test(`taken: ${what}`, () =>
    assert.deepEqual(check(field, value), { value: expected, faults: [] }))
}

const deep = (depth: number): unknown => (depth === 0 ? 1 : [deep(depth - 1)])
const wrong: [string, Field, unknown, string[]][] = [
  ['a number for text', text, 1, ['/f kind']],
  ['short text', text, '😀', ['/f tooShort']],
  ['long text', text, 'abcde', ['/f tooLong']],
  ['half a surrogate pair', text, 'a\ud800', ['/f text']],
  ['U+0000', { name: 'f', kind: 'markdown' }, 'a\u0000', ['/f text']],
  ['another pattern', { name: 'f', kind: 'text', pattern: 'a+' }, 'aab', ['/f pattern']],
  [
    'a filterable text too long for its index',
    { name: 'f', kind: 'text', filterable: true },
    'x'.repeat(1_001),
    ['/f tooLong'],
  ],
  ['text for a number', { name: 'f', kind: 'number' }, '1', ['/f kind']],
  ['infinity', { name: 'f', kind: 'number' }, Number.POSITIVE_INFINITY, ['/f kind']],
  ['half of an integer', { name: 'f', kind: 'number', integer: true }, 1.5, ['/f format']],
  ['an integer past 2^53', { name: 'f', kind: 'number', integer: true }, 2 ** 53, ['/f format']],
  ['too small', { name: 'f', kind: 'number', min: 1 }, 0, ['/f tooSmall']],
  ['a number for a boolean', { name: 'f', kind: 'boolean' }, 1, ['/f kind']],
  ['a time without zone', { name: 'f', kind: 'dateTime' }, '2026-11-20T00:00:00', ['/f format']],
  [
    'a day that does not exist',
    { name: 'f', kind: 'dateTime' },
    '2026-02-30T00:00:00Z',
    ['/f format'],
  ],
  [
    'a time before year 0',
    { name: 'f', kind: 'dateTime' },
    '0000-01-01T00:00:00+01:00',
    ['/f format'],
  ],
  ['no option', { name: 'f', kind: 'select', options: ['a'] }, 'toString', ['/f option']],
  [
    'an option twice',
    { name: 'f', kind: 'select', options: ['a'], many: true },
    ['a', 'a'],
    ['/f/1 duplicate'],
  ],
  ['deep json', { name: 'f', kind: 'json' }, deep(30), [`/f${'/0'.repeat(20)} tooDeep`]],
  ['a bad key in json', { name: 'f', kind: 'json' }, { 'a/\u0000': 1 }, ['/f text']],
  ['capital letters in a slug', { name: 'f', kind: 'slug' }, 'About', ['/f format']],
  ['dots for a slug', { name: 'f', kind: 'slug' }, 'a/../b', ['/f format']],
  ['an id for a slug', { name: 'f', kind: 'slug' }, id, ['/f format']],
  ['no id', { name: 'f', kind: 'reference' }, 'x', ['/f format']],
  [
    'the same reference twice',
    { name: 'f', kind: 'reference', many: true },
    [id, id],
    ['/f/1 duplicate'],
  ],
  ['one for many', { name: 'f', kind: 'reference', many: true }, id, ['/f kind']],
  [
    'an unknown field in a group',
    { name: 'f', kind: 'group', fields: [{ name: 'a', kind: 'text' }] },
    { b: 1 },
    ['/f/b unknown'],
  ],
  [
    'a list that is none',
    { name: 'f', kind: 'list', of: { name: 'one', kind: 'text' } },
    {},
    ['/f kind'],
  ],
  [
    'null in a list',
    { name: 'f', kind: 'list', of: { name: 'one', kind: 'text' } },
    [null],
    ['/f/0 kind'],
  ],
  [
    'too many items',
    { name: 'f', kind: 'list', itemsMax: 1, of: { name: 'one', kind: 'text' } },
    ['a', 'b'],
    ['/f tooMany'],
  ],
  [
    'an unknown block',
    {
      name: 'f',
      kind: 'blocks',
      blocks: [{ name: 'quote', fields: [{ name: 'text', kind: 'text' }] }],
    },
    [{ block: 'constructor' }],
    ['/f/0/block option'],
  ],
  [
    'an unknown node',
    { name: 'f', kind: 'richText' },
    doc({ type: 'script' }),
    ['/f/content/0/type option'],
  ],
  [
    'a node in the wrong place',
    { name: 'f', kind: 'richText' },
    doc({ type: 'text', text: 'x' }),
    ['/f/content/0/type option'],
  ],
  [
    'an unknown mark',
    { name: 'f', kind: 'richText' },
    doc(paragraph({ type: 'text', text: 'x', marks: [{ type: 'onclick' }] })),
    ['/f/content/0/content/0/marks/0 option'],
  ],
  [
    'an unknown attribute',
    { name: 'f', kind: 'richText' },
    doc({ type: 'paragraph', attrs: { onclick: 'x' } }),
    ['/f/content/0/attrs/onclick unknown'],
  ],
  [
    'empty text',
    { name: 'f', kind: 'richText' },
    doc(paragraph({ type: 'text', text: '' })),
    ['/f/content/0/content/0/text kind'],
  ],
  ...['image', 'hardBreak', 'text'].map((type): [string, Field, unknown, string[]] => [
    `a script in a mark of ${type}`,
    { name: 'f', kind: 'richText' },
    doc(
      paragraph({
        type,
        ...(type === 'text' ? { text: 'x' } : {}),
        marks: [
          { type: 'link', attrs: { href: 'javascript:alert(1)' } },
          { type: 'bold', onclick: 'x\u0000' },
          'bold',
        ],
      }),
    ),
    [
      '/f/content/0/content/0/marks/0/attrs/href link',
      '/f/content/0/content/0/marks/1/onclick unknown',
      '/f/content/0/content/0/marks/2 kind',
    ],
  ]),
  [
    'text, marks and unknown attributes where they do not belong',
    { name: 'f', kind: 'richText' },
    doc({
      type: 'paragraph',
      text: '\u0000',
      marks: [{ type: 'link', attrs: { href: 'javascript:alert(1)' } }],
      attrs: { textAlign: 'left; color: red', on: null },
    }),
    [
      '/f/content/0/attrs/textAlign format',
      '/f/content/0/attrs/on unknown',
      '/f/content/0/text unknown',
      '/f/content/0/marks unknown',
    ],
  ],
  ...[
    'javascript:alert(1)',
    'java\tscript:alert(1)',
    ' javascript:x',
    'data:text/html,x',
    'vbscript:x',
    '\u0001javascript:x',
    'JaVaScRiPt:x',
    '\\\\evil',
  ].map((href): [string, Field, unknown, string[]] => [
    `the link ${JSON.stringify(href)}`,
    { name: 'f', kind: 'richText' },
    link(href),
    ['/f/content/0/content/0/marks/0/attrs/href link'],
  ]),
]
for (const [what, field, value, faults] of wrong)
  test(`refused: ${what}`, () => assert.deepEqual(check(field, value).faults, faults))

test('what is required is demanded at any depth, but only to publish', () => {
  const field: Field = {
    name: 'f',
    kind: 'list',
    required: true,
    of: { name: 'one', kind: 'group', fields: [{ name: 'a', kind: 'text', required: true }] },
  }
  assert.deepEqual(check(field, [{}]).faults, [])
  assert.deepEqual(check(field, [{}], true).faults, ['/f/0/a required'])
  assert.deepEqual(check(field, [], true).faults, ['/f required'])
  assert.deepEqual(check(field, null, true).faults, ['/f required'])
})

test('rich text has targets', () => {
  const type = compileType({ name: 't', label: 'T', fields: [{ name: 'f', kind: 'richText' }] })
  const value = doc(
    { type: 'image', attrs: { src: '/x.png', asset: id } },
    paragraph({
      type: 'text',
      text: 'x',
      marks: [{ type: 'link', attrs: { href: '/x', entry: id } }],
    }),
  )
  assert.deepEqual(
    type.targets({ f: value }).map((target) => `${target.path} ${target.kind}`),
    ['f asset', 'f entry'],
  )
})

test('what an older definition left is narrowed to what fits', () => {
  const type = compileType({
    name: 't',
    label: 'T',
    fields: [
      { name: 'a', kind: 'number' },
      { name: 'b', kind: 'text', lengthMax: 2 },
    ],
  })
  assert.deepEqual(type.project({ a: 'x', b: 'long', gone: 1 }), { b: 'long' })
})

test('slugs of any text are slugs, or nothing', () => {
  for (const title of [
    'Über uns!',
    "Don't  panic",
    'ÅÄÖ / æ',
    'ΑΒΓ Δέλτα',
    '한국어 안내',
    '日本語のページ',
    'İstanbul',
    '!!!',
    '   ',
    'a'.repeat(500),
    '٣ أيام',
    'ﬁne',
    'x\u0000y',
    '💥',
  ]) {
    const slug = makeSlug(title)
    if (slug !== '') assert.equal(slugProblem(slug), null, `${title} → ${slug}`)
  }
  assert.equal(makeSlug('Über uns!'), 'uber-uns')
  assert.equal(makeSlug("Don't  panic"), 'dont-panic')
  assert.equal(makeSlug('한국어 안내'), '한국어-안내')
  assert.equal(makeSlug('!!!'), '')
})

test('what is left of old data is kept part by part', () => {
  const part = (name: string): Field => ({ name, kind: 'text' })
  const type = compileType({
    name: 't',
    label: 'T',
    fields: [
      {
        name: 'group',
        kind: 'group',
        fields: [part('a'), { name: 'inner', kind: 'group', fields: [part('b')] }],
      },
      { name: 'blocks', kind: 'blocks', blocks: [{ name: 'quote', fields: [part('text')] }] },
      { name: 'list', kind: 'list', of: { name: 'one', kind: 'number' } },
      { name: 'options', kind: 'select', options: ['x', 'y'], many: true },
      { name: 'option', kind: 'select', options: ['x'] },
      { name: 'refs', kind: 'reference', many: true },
    ],
  })
  const old = {
    group: { a: 'A', gone: 1, inner: { b: 'B', gone: 2 } },
    blocks: [
      { block: 'quote', text: 'Q', gone: 3 },
      { block: 'gone', text: 'G' },
    ],
    list: [1, 'two', 3, null],
    options: ['gone', 'y'],
    option: 'gone',
    refs: [id, 'no id'],
  }
  const kept = {
    group: { a: 'A', inner: { b: 'B' } },
    blocks: [{ block: 'quote', text: 'Q' }],
    list: [1, 3],
    options: ['y'],
    refs: [id],
  }
  assert.deepEqual(type.project(old), kept)
  assert.deepEqual(
    type.project({ group: ['x'], blocks: {}, list: 'x', options: 'x', refs: id }),
    {},
  )
})

test('a list that is longer than its type allows now is refused, and keeps its targets', () => {
  const refs = [1, 2, 3].map((n) => `0197a000-0000-7000-8000-00000000000${n}`)
  const type = compileType({
    name: 't',
    label: 'T',
    fields: [{ name: 'list', kind: 'list', of: { name: 'one', kind: 'reference' }, itemsMax: 2 }],
  })
  const { fields, faults } = type.validate({ list: refs }, { publishing: false })
  assert.deepEqual([fields, faults.map((fault) => fault.code)], [{ list: refs }, ['tooMany']])
  assert.deepEqual(
    type.targets({ list: refs }).map((target) => target.id),
    refs,
  )
})

test('what data points to is found behind any number of faults', () => {
  const blocks: Field = {
    name: 'blocks',
    kind: 'blocks',
    blocks: [
      {
        name: 'b',
        fields: [
          { name: 'text', kind: 'text', lengthMax: 1 },
          { name: 'rich', kind: 'richText' },
        ],
      },
    ],
  }
  const rich = doc(
    paragraph({
      type: 'text',
      text: 'x',
      marks: [{ type: 'link', attrs: { href: '/', entry: id } }],
    }),
  )
  const items = Array.from({ length: 120 }, (_, at) => ({
    block: 'b',
    text: 'long',
    ...(at === 119 ? { rich } : {}),
  }))
  assert.deepEqual(
    compileType({ name: 't', label: 'T', fields: [blocks] })
      .targets({ blocks: items })
      .map((target) => target.id),
    [id],
  )
})

test('what is required is not empty, at any depth', () => {
  const required = { required: true } as const
  const cases: readonly (readonly [Field, readonly unknown[], readonly unknown[]])[] = [
    [{ name: 'f', kind: 'text', ...required }, ['', ' ', '\u200b\t'], ['x']],
    [{ name: 'f', kind: 'markdown', ...required }, ['\n \n'], ['# x']],
    [
      { name: 'f', kind: 'richText', ...required },
      [doc(), doc(paragraph()), doc(paragraph({ type: 'hardBreak' }, { type: 'text', text: ' ' }))],
      [
        link('/'),
        doc({ type: 'image', attrs: { src: '/a.png' } }),
        doc({ type: 'horizontalRule' }),
      ],
    ],
    [{ name: 'f', kind: 'json', ...required }, [{}, [], ' '], [0, false, { a: null }]],
    [{ name: 'f', kind: 'reference', many: true, ...required }, [[]], [[id]]],
    [{ name: 'f', kind: 'number', ...required }, [], [0]],
    [{ name: 'f', kind: 'boolean', ...required }, [], [false]],
    [
      { name: 'f', kind: 'list', of: { name: 'one', kind: 'text' }, ...required },
      [[], ['', ' ']],
      [['', 'x']],
    ],
    [
      { name: 'f', kind: 'group', fields: [{ name: 'a', kind: 'text' }], ...required },
      [{}, { a: ' ' }],
      [{ a: 'x' }],
    ],
  ]
  for (const [field, empty, full] of cases) {
    for (const value of [null, ...empty])
      assert.deepEqual(check(field, value, true).faults, ['/f required'], JSON.stringify(value))
    for (const value of full)
      assert.deepEqual(check(field, value, true).faults, [], JSON.stringify(value))
    const nested: Field = { name: 'g', kind: 'group', fields: [field] }
    const blocks: Field = { name: 'b', kind: 'blocks', blocks: [{ name: 'one', fields: [field] }] }
    for (const value of [null, ...empty]) {
      assert.deepEqual(check(nested, { f: value }, true).faults, ['/g/f required'])
      assert.deepEqual(check(blocks, [{ block: 'one', f: value }], true).faults, [
        '/b/0/f required',
      ])
      assert.deepEqual(check(nested, { f: value }).faults, [], 'a draft may lack it')
    }
  }
})

test('a mark that makes another letter stays in a slug', () => {
  assert.equal(makeSlug('Український край'), 'український-край')
  assert.equal(makeSlug('Über Ελλάδα café'), 'uber-ελλαδα-cafe')
})

test('patterns over a long list cost a bounded time', () => {
  const field: Field = {
    name: 'f',
    kind: 'list',
    of: { name: 'one', kind: 'text', pattern: '(.{1,20}){10}' },
  }
  const start = performance.now()
  const { faults } = check(
    field,
    Array.from({ length: 1_000 }, () => 'x'.repeat(1_000)),
  )
  assert.ok(performance.now() - start < 5_000)
  assert.ok(faults.some((fault) => fault.endsWith('tooLarge')))
})
