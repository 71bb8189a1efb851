import { Type } from 'typebox'
import { localeCode } from '#api/schemas/content.ts'
import { nullable, strict, timestamp } from '#api/schemas/shared.ts'

const text = (description: string, examples: readonly string[]) =>
  Type.String({ minLength: 1, maxLength: 200, description, examples: [...examples] })
const types = () =>
  Type.Optional(
    Type.String({
      minLength: 1,
      description: 'Names of types, separated by commas. Absent: all that you may search.',
    }),
  )

export const searchParameters = {
  q: text(
    'Words that must all be there; "words in a row" in quotation marks, -without one, ' +
      'beginnings as publi*.',
    ['"long stoa" athens'],
  ),
  types: types(),
  locale: Type.Optional(localeCode()),
  perspective: Type.Optional(
    Type.Union([Type.Literal('published'), Type.Literal('draft')], { default: 'published' }),
  ),
  facets: Type.Optional(
    Type.String({
      description:
        'Names of filterable select fields, separated by commas, at most 8: their values are ' +
        'counted beside types and locales.',
    }),
  ),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 50, default: 20 })),
  after: Type.Optional(
    Type.String({ minLength: 1, description: '`meta.after` of the page before.' }),
  ),
}

export const suggestionParameters = {
  q: text('The beginning of a title, as a reader types it.', ['long st']),
  types: types(),
  locale: Type.Optional(localeCode()),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 20, default: 10 })),
}

const id = () => Type.String({ format: 'uuid' })

const searchHit = strict(
  {
    id: id(),
    type: Type.String(),
    locale: Type.String(),
    version: Type.Integer({ minimum: 1 }),
    status: Type.Union(
      ['draft', 'published', 'changed', 'archived'].map((one) => Type.Literal(one)),
    ),
    updatedAt: timestamp(),
    publishedAt: nullable(timestamp()),
    title: nullable(Type.String()),
    slug: nullable(Type.String()),
    score: Type.Number({ description: 'Comparable within one search only.' }),
    highlights: Type.Record(Type.String(), Type.String(), {
      description:
        'Excerpts by field, as HTML: everything is escaped but `<mark>` around what was found.',
    }),
  },
  { $id: 'SearchHit' },
)
const facetValue = strict({ value: Type.String(), count: Type.Integer({ minimum: 1 }) })

export const searchResponse = strict({
  data: Type.Array(searchHit),
  facets: Type.Record(Type.String(), Type.Array(facetValue), {
    description: 'How many matches there are by `type`, by `locale`, and by each facet.',
  }),
  meta: strict({
    after: nullable(Type.String()),
    count: Type.Integer({ minimum: 0 }),
    countIsExact: Type.Boolean({
      description:
        'False: there are more matches than are ranked, and counts and facets are of those.',
    }),
  }),
})

export const suggestionsResponse = strict({
  data: Type.Array(
    strict(
      { title: Type.String(), type: Type.String(), id: id(), slug: nullable(Type.String()) },
      { $id: 'Suggestion' },
    ),
  ),
})
