import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TypeInvalidError } from '#content/errors.ts'
import { checkContentType } from '#content/model/type-check.ts'

function faultsOf(input: unknown): string[] {
  try {
    checkContentType(input, ['page'])
    return []
  } catch (error) {
    assert.ok(error instanceof TypeInvalidError, String(error))
    return error.faults.map((fault) => `${fault.path} ${fault.code}`)
  }
}
const text = { name: 'a', kind: 'text' }
const type = (...fields: unknown[]): Record<string, unknown> => ({ name: 't', label: 'T', fields })
const nested = (depth: number): unknown =>
  depth === 1 ? text : { name: 'a', kind: 'group', fields: [nested(depth - 1)] }

const refused: [string, unknown, string[]][] = [
  ['no object', null, [' kind']],
  ['a name with capitals', { ...type(text), name: 'Article' }, ['/name format']],
  ['an unknown key', { ...type(text), color: 'red' }, ['/color unknown']],
  ['no fields', type(), ['/fields kind']],
  ['a field twice', type(text, text), ['/fields/1/name duplicate']],
  ['a system name', type({ name: 'publishedAt', kind: 'text' }), ['/fields/0/name definition']],
  ['a word of queries', type({ name: 'and', kind: 'text' }), ['/fields/0/name definition']],
  [
    'a property of Object',
    type({ name: 'constructor', kind: 'text' }),
    ['/fields/0/name definition'],
  ],
  ['a bad name', type({ name: '__proto__', kind: 'text' }), ['/fields/0/name format']],
  ['an unknown kind', type({ name: 'a', kind: 'toString' }), ['/fields/0/kind option']],
  [
    'an option of another kind',
    type({ name: 'a', kind: 'boolean', lengthMax: 3 }),
    ['/fields/0/lengthMax unknown'],
  ],
  [
    'a wrong value',
    type({ name: 'a', kind: 'text', required: 'yes' }),
    ['/fields/0/required kind'],
  ],
  [
    'a bad pattern',
    type({ name: 'a', kind: 'text', pattern: '(?=a)' }),
    ['/fields/0/pattern pattern'],
  ],
  [
    'a pattern on long text',
    type({ name: 'a', kind: 'text', pattern: 'a', lengthMax: 100_000 }),
    ['/fields/0/lengthMax tooLarge'],
  ],
  ['no options', type({ name: 'a', kind: 'select', options: [] }), ['/fields/0/options kind']],
  [
    'an option twice',
    type({ name: 'a', kind: 'select', options: ['x', 'x'] }),
    ['/fields/0/options duplicate'],
  ],
  [
    'an unknown target',
    type({ name: 'a', kind: 'reference', types: ['page', 'nope'] }),
    ['/fields/0/types/1 target'],
  ],
  [
    'a list of lists',
    type({ name: 'a', kind: 'list', of: { name: 'b', kind: 'list', of: text } }),
    ['/fields/0/of definition'],
  ],
  [
    'a filterable part of a group',
    type({ name: 'a', kind: 'group', fields: [{ ...text, filterable: true }] }),
    ['/fields/0/fields/0/filterable definition'],
  ],
  [
    'a slug in a group',
    type({ name: 'a', kind: 'group', fields: [{ name: 's', kind: 'slug' }] }),
    ['/fields/0/fields/0/kind definition'],
  ],
  [
    'a field named block in a block',
    type({
      name: 'a',
      kind: 'blocks',
      blocks: [{ name: 'b', fields: [{ name: 'block', kind: 'text' }] }],
    }),
    ['/fields/0/blocks/0/fields/0/name definition'],
  ],
  ['six levels', type(nested(6)), [`/fields/0${'/fields/0'.repeat(4)}/fields tooDeep`]],
  [
    'two slugs',
    type({ name: 'a', kind: 'slug' }, { name: 'b', kind: 'slug' }),
    ['/fields definition'],
  ],
  [
    'a slug from nowhere',
    type({ name: 'a', kind: 'slug', from: 'title' }),
    ['/fields/0/from target'],
  ],
  [
    'a shared slug from a localized title',
    type({ ...text, localized: true }, { name: 's', kind: 'slug', from: 'a' }),
    ['/fields/1/from definition'],
  ],
  [
    'a unique boolean',
    type({ name: 'a', kind: 'boolean', unique: true }),
    ['/fields/0/unique definition'],
  ],
  [
    'an index on what is not filterable',
    { ...type(text), indexes: [['a']] },
    ['/indexes/0/0 target'],
  ],
  [
    'a title that is no text',
    { ...type({ name: 'a', kind: 'number' }), titleField: 'a' },
    ['/titleField target'],
  ],
  [
    '201 fields',
    type(...Array.from({ length: 201 }, (_, i) => ({ name: `f${i}`, kind: 'text' }))),
    ['/fields tooMany'],
  ],
]
for (const [what, input, faults] of refused)
  test(`refused: ${what}`, () => assert.deepEqual(faultsOf(input), faults))

test('taken: five levels, itself as a target, an index with a system field', () => {
  assert.deepEqual(faultsOf(type(nested(5))), [])
  assert.deepEqual(
    faultsOf({
      ...type({ name: 'a', kind: 'reference', types: ['t'], filterable: true }),
      indexes: [['a', '-publishedAt']],
    }),
    [],
  )
})

test('any input gives a list of faults and no crash', () => {
  const odd = [
    1,
    'x',
    [],
    {},
    { fields: {} },
    {
      name: 't',
      label: 'T',
      fields: [
        null,
        1,
        [],
        {},
        { name: 'a', kind: 'group' },
        { name: 'b', kind: 'list' },
        { name: 'c', kind: 'blocks', blocks: [1, {}] },
        { name: 'd', kind: 'select', options: 'x' },
        { name: 'e', kind: 'slug', from: 3 },
        { name: 'f', kind: 'reference', types: 'x' },
        { name: 'g', kind: 'list', of: 3 },
      ],
    },
    { ...type(text), indexes: {} },
    { ...type(text), indexes: [1, [2]] },
  ]
  for (const input of odd) assert.notDeepEqual(faultsOf(input), [], JSON.stringify(input))
})
