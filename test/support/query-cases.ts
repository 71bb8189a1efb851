import fc from 'fast-check'
import type { ContentType } from '#content/content-type.ts'
import { filterOf, normalValue, querySchema } from '#content/query/normal-form.ts'
import type { ValueType } from '#content/query/normal-form.ts'
import type { QueryRow } from '#content/query/predicate.ts'
import type { Filter, Perspective, Sort, Test } from '#content/query/query.ts'
import { grantFilter } from '#content/query/validate-query.ts'
import type { Scalar } from '#lib/scalar.ts'

/**
 * Random entries and queries that meet the edges on purpose: small pools of nasty values, so that
 * equal values and ties are common.
 */
export const thing: ContentType = {
  name: 'thing',
  label: 'Thing',
  fields: [
    { name: 'title', kind: 'text', filterable: true, localized: true },
    { name: 'slug', kind: 'slug', localized: true },
    { name: 'rank', kind: 'number', filterable: true },
    { name: 'hot', kind: 'boolean', filterable: true },
    { name: 'day', kind: 'dateTime', filterable: true },
    { name: 'author', kind: 'reference', filterable: true },
    { name: 'tags', kind: 'select', options: [], many: true, filterable: true },
    { name: 'scores', kind: 'list', of: { name: 'score', kind: 'number' }, filterable: true },
    { name: 'authors', kind: 'reference', many: true, filterable: true },
    { name: 'constructor', kind: 'text', filterable: true },
  ],
  indexes: [
    ['title', '-publishedAt'],
    ['-rank', 'day'],
    ['hot', '-updatedAt'],
  ],
}
export const thingSchema = querySchema(thing)

const texts = [
  '',
  'a',
  'A',
  'b',
  'B',
  'aa',
  'ab',
  'a b',
  'á',
  'a\u0301',
  'ä',
  'z',
  'ß',
  'ss',
  'İ',
  'i',
  '_',
  '%',
  '\\',
  '"',
  "'",
  ',',
  '{}',
  'null',
  'true',
  '1',
  '10',
  '9',
  '\u0001',
  '\ud7ff',
  '\ue000',
  '\uffff',
  '\u{10000}',
  '😀',
  '😀a',
  '👩‍👩‍👧',
  '\u{10ffff}',
  '\u{10ffff}\u{10ffff}',
  'a\u{10ffff}',
]
const numbers = [
  0,
  -0,
  1,
  -1,
  2,
  3,
  0.1,
  0.2,
  0.1 + 0.2,
  0.3,
  0.5,
  2 ** 53 - 1,
  2 ** 53,
  2 ** 53 + 2,
  -(2 ** 53),
  1e21,
  1e22 + 2097152,
  1e-7,
  1e308,
  -1e308,
  Number.MAX_VALUE,
  5e-324,
  -5e-324,
  2.2250738585072014e-308,
  2.225073858507201e-308,
  123_456_789.123_456_79,
]
const instants = [
  '2026-03-29T01:59:59.999+01:00',
  '2026-03-29T00:59:59.999Z',
  '2026-03-29T00:59:59.9999Z',
  '2026-03-29',
  '2026-03-29T00:00:00.001Z',
  '2026-03-28T23:59:59-00:30',
  '0000-01-01',
  '0001-01-01',
  '1582-10-10',
  '1969-12-31T23:59:59.999Z',
  '1970-01-01',
  '9999-12-31T23:59:59.999Z',
  '2024-02-29T12:00+14:00',
]
/** Ids of authors. */
const people = ['0', '1', '9', 'a', 'f'].map(
  (digit) => `0197a000-0000-7000-8000-${digit.repeat(12)}`,
)
/** Columns of the system hold instants from the year 1 on. */
const systemInstants = instants
  .map((text) => normalValue('instant', text) as string)
  .filter((text) => !text.startsWith('0000'))
const locales = ['en', 'de', 'fr'] as const
const chains = [['en'], ['de'], ['de', 'en'], ['fr', 'de', 'en'], ['fr', 'en']]
/** Grants cover rows whose filter was made with this revision of the type, or a later one. */
const grantRevision = 2
export const release = '0197a000-0000-7000-8000-00000000cafe'

/** Where the order of UTF-16 differs from that of UTF-8. */
const highTexts = ['\ue000', '\uffff', '\u{10000}', '😀a', '\uffffa']

const text = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...texts) },
  { weight: 2, arbitrary: fc.constantFrom(...highTexts) },
  {
    weight: 1,
    arbitrary: fc.string({ unit: 'binary', maxLength: 4 }).filter((value) => !value.includes('\0')),
  },
)
const number = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...numbers) },
  { weight: 1, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }) },
)
const instant = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...instants) },
  {
    weight: 1,
    arbitrary: fc
      .date({ min: new Date(0), max: new Date(1e12), noInvalidDate: true })
      .map((date) => date.toISOString()),
  },
)
const raw: Record<ValueType, fc.Arbitrary<Scalar>> = {
  text,
  number,
  boolean: fc.boolean(),
  instant,
  id: fc.constantFrom(...people),
}

const maybe = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> =>
  fc.option(arbitrary, { freq: 4 })
const fields = fc.record({
  title: maybe(text),
  slug: maybe(text),
  rank: maybe(number),
  hot: maybe(fc.boolean()),
  day: maybe(instant),
  author: maybe(raw.id),
  tags: fc.array(fc.constantFrom('a', 'b', 'A', '', '😀', '\uffff', 'null'), { maxLength: 3 }),
  scores: fc.array(number, { maxLength: 3 }),
  authors: maybe(fc.array(raw.id, { maxLength: 2 })),
  constructor: maybe(text),
})

/** One row of `stoa.version`, and what the model needs of it. */
export type VersionCase = {
  readonly entryId: string
  readonly locale: string
  readonly number: number
  readonly isLatest: boolean
  readonly isPublished: boolean
  readonly isArchived: boolean
  readonly createdAt: string
  readonly createdBy: string | null
  readonly savedAt: string
  readonly publishedAt: string | null
  readonly firstPublishedAt: string | null
  readonly filter: QueryRow['filter']
  readonly filterRevision: number
}
export type ItemCase = {
  readonly entryId: string
  readonly locale: string
  readonly action: 'publish' | 'unpublish'
  readonly number: number | null
}
export type World = {
  readonly versions: readonly VersionCase[]
  readonly items: readonly ItemCase[]
}

/**
 * Which versions of one entry and locale there are: the numbers that are published (0: none) and
 * latest.
 */
const shapes = [
  { count: 1, published: 1 },
  { count: 1, published: 0 },
  { count: 2, published: 2 },
  { count: 2, published: 1 },
  { count: 3, published: 2 },
]
const localized = fc.record({
  shape: fc.constantFrom(...shapes),
  versions: fc.array(
    fc.record({
      fields,
      savedAt: fc.constantFrom(...systemInstants),
      publishedAt: maybe(fc.constantFrom(...systemInstants)),
      /** A field whose value filters cannot see, and the revision that the filter was made with. */
      unseen: fc.option(fc.constantFrom('title', 'rank', 'tags'), { freq: 3 }),
      filterRevision: fc.constantFrom(1, 2),
    }),
    { minLength: 3, maxLength: 3 },
  ),
  item: fc.option(
    fc.record({
      action: fc.constantFrom('publish' as const, 'unpublish' as const),
      number: fc.nat(2),
    }),
    { freq: 2 },
  ),
})
const entry = fc.record({
  createdAt: fc.constantFrom(...systemInstants),
  createdBy: maybe(raw.id as fc.Arbitrary<string>),
  archived: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  locales: fc.record({
    en: maybe(localized),
    de: fc.option(localized),
    fr: fc.option(localized, { freq: 2 }),
  }),
})

export const world: fc.Arbitrary<World> = fc
  .array(entry, { maxLength: 14, size: 'max' })
  .map((entries) => {
    const versions: VersionCase[] = []
    const items: ItemCase[] = []
    entries.forEach((one, n) => {
      // Not in the order of creation, so that no test passes because rows come as they were
      // inserted.
      const [first, last] = [((n * 7) % 16).toString(16), n.toString().padStart(3, '0')]
      const entryId = `0197a000-0000-7000-9000-${first}00000000${last}`
      for (const locale of locales) {
        const found = one.locales[locale]
        if (found === null) continue
        const { count, published } = one.archived ? { ...found.shape, published: 0 } : found.shape
        for (let number = 1; number <= count; number++) {
          const version = found.versions[number - 1]!
          const isPublished = number === published
          const publishedAt = version.publishedAt ?? (isPublished ? version.savedAt : null)
          const { createdAt, createdBy, archived } = one
          versions.push({
            entryId,
            locale,
            number,
            isLatest: number === count,
            isPublished,
            isArchived: archived,
            createdAt,
            createdBy,
            savedAt: version.savedAt,
            publishedAt,
            firstPublishedAt: publishedAt,
            filter: {
              ...filterOf(thing, version.fields),
              ...(version.unseen === null ? {} : { [version.unseen]: null }),
            },
            filterRevision: version.filterRevision,
          })
        }
        if (found.item !== null)
          items.push({
            entryId,
            locale,
            action: found.item.action,
            number: found.item.action === 'publish' ? (found.item.number % count) + 1 : null,
          })
      }
    })
    return { versions, items }
  })

const sortable = [...thingSchema.values()]
  .filter((field) => !field.many && field.name !== 'createdBy')
  .map((field) => field.name)
const sort: fc.Arbitrary<Sort[]> = fc.oneof(
  fc.uniqueArray(fc.record({ field: fc.constantFrom(...sortable), descending: fc.boolean() }), {
    maxLength: 3,
    selector: (key) => key.field,
  }),
  // All in one direction: the order that one row comparison can page through.
  fc
    .tuple(fc.uniqueArray(fc.constantFrom(...sortable), { maxLength: 3 }), fc.boolean())
    .map(([names, descending]) => names.map((field) => ({ field, descending }))),
  fc
    .constantFrom('publishedAt', 'updatedAt', 'title', 'rank')
    .map((field) => [{ field, descending: true }]),
)

function scalarsOf(name: string, type: ValueType): fc.Arbitrary<Scalar> {
  if (name === 'locale') return fc.constantFrom(...locales)
  if (name === 'status') return fc.constantFrom('draft', 'published', 'changed', 'archived')
  if (name === 'version') return fc.constantFrom(1, 2, 3, 1.5)
  return raw[type].map((value) => normalValue(type, value)).filter((value) => value !== null)
}

const compare: fc.Arbitrary<Filter> = fc.constantFrom(...thingSchema.values()).chain((field) => {
  const value = scalarsOf(field.name, field.type)
  const tests: fc.Arbitrary<Test>[] = [
    fc.record({ is: fc.constantFrom('eq' as const, 'ne' as const), value }),
    fc.record({
      is: fc.constantFrom('in' as const, 'nin' as const),
      values: fc.array(value, { maxLength: 3 }),
    }),
    fc.record({ is: fc.constant('exists' as const), value: fc.boolean() }),
  ]
  if (!field.many)
    tests.push(
      fc.record({
        is: fc.constantFrom('lt' as const, 'lte' as const, 'gt' as const, 'gte' as const),
        value,
      }),
    )
  if (!field.many && field.type === 'text')
    tests.push(
      fc.record({ is: fc.constantFrom('contains' as const, 'startsWith' as const), value: text }),
    )
  return fc.oneof(...tests).map((test) => ({ op: 'compare' as const, field: field.name, test }))
})

export const filter: fc.Arbitrary<Filter> = fc.letrec<{ filter: Filter }>((tie) => ({
  filter: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    compare,
    fc.record({ op: fc.constant('not' as const), filter: tie('filter') }),
    fc.record({
      op: fc.constantFrom('and' as const, 'or' as const),
      filters: fc.array(tie('filter'), { maxLength: 3 }),
    }),
  ),
})).filter

export type QueryCase = {
  readonly filter: Filter | null
  readonly grantFilter: Filter | null
  readonly sort: readonly Sort[]
  readonly locales: readonly string[]
  readonly perspective: Perspective
  readonly draftsSeen: boolean
  readonly limit: number
}

export const query: fc.Arbitrary<QueryCase> = fc
  .record({
    filter: fc.option(filter, { freq: 3 }),
    grantFilter: fc.option(
      filter.map((one) =>
        grantFilter({ type: thing, grant: { filter: one, fields: null } }, grantRevision),
      ),
      { freq: 2 },
    ),
    sort,
    locales: fc.constantFrom(...chains),
    perspective: fc.constantFrom<Perspective>('published', 'published', 'draft', 'draft', {
      release,
    }),
    draftsSeen: fc.boolean(),
    limit: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 5, max: 20 })),
  })
  .map((one) => ({ ...one, draftsSeen: one.draftsSeen || one.perspective !== 'published' }))
