import { Values } from '#content/query/expression.ts'
import type { Filter } from '#content/query/query.ts'
import { compileScope } from '#content/query/sql.ts'
import type { Compiled, Scope } from '#content/query/sql.ts'
import { rankedMax } from '#content/search/search-scope.ts'
import { sql } from '#database/database.ts'

/** Values of one facet that are counted: the most frequent ones. */
const facetValuesMax = 50

export type SearchedScope = {
  /** With a ranked search. */
  readonly scope: Scope
  readonly filter: Filter | null
  /** The fields of the facets that this type has and the reader may see. */
  readonly facets: readonly string[]
}

export type FoundRow = {
  readonly id: string
  readonly type: string
  readonly locale: string
  readonly relevance: number
}
export type FacetRow = { readonly facet: string; readonly value: string; readonly count: number }

/** `hits` and `facets` are JSON: arrays of `FoundRow` and `FacetRow`. */
export type Found = {
  readonly hits: string
  readonly facets: string
  readonly count: number
  readonly capped: boolean
  /** `stoa.model.revision` in the same snapshot. */
  readonly model: string
}

export type FoundPage = {
  readonly limit: number
  readonly after: { readonly relevance: number; readonly id: string } | null
  readonly facets: readonly string[]
}

/**
 * The page, the counts and the facets of one search in all scopes, in one statement: each match is
 * found once.
 */
export function compileFound(
  scopes: readonly SearchedScope[],
  { limit, after, facets }: FoundPage,
): Compiled<Found> {
  const values = new Values()
  const found = scopes
    .flatMap((one) => selectsOf(one, values))
    .map((select) => `(${select})`)
    .join(' union all ')
  const place =
    after === null
      ? ''
      : `where (relevance, id) < (${values.add(after.relevance)}::float8, ` +
        `${values.add(after.id)}::uuid)`
  const counts = [
    countBy('type', 'type', 'found'),
    countBy('locale', 'locale', 'found'),
    ...facets.map((name) => {
      const value = `(facets -> ${values.add(name)}::text)`
      return countBy(
        name,
        'value',
        `found cross join lateral jsonb_array_elements_text(case jsonb_typeof${value} ` +
          `when 'array' then ${value} when 'string' then jsonb_build_array${value} ` +
          `else '[]' end) as value`,
      )
    }),
  ]
  const text = `
  with found as materialized (${found})
  select
    (select coalesce(json_agg(hit), '[]') from (
      select id, type, locale, relevance from found ${place}
      order by relevance desc, id desc limit ${values.add(limit)}::int) hit) as hits,
    (select coalesce(json_agg(counted), '[]')
      from (${counts.join(' union all ')}) counted) as facets,
    (select count(*)::float8 from found) as count,
    exists (select from found group by type, locale having count(*) >= ${rankedMax}) as capped,
    (select revision from stoa.model) as model`
  return { statement: sql(text, 'repeated'), values: values.list }

  function countBy(facet: string, value: string, from: string): string {
    return (
      `(select ${values.add(facet)}::text as facet, ${value} as value, count(*)::int as count ` +
      `from ${from} group by ${value} order by count desc, value limit ${facetValuesMax})`
    )
  }
}

function selectsOf({ scope, filter, facets }: SearchedScope, values: Values): string[] {
  const shown = facets
    .map((name) => `${values.add(name)}::text, v.filter -> ${values.add(name)}::text`)
    .join(', ')
  return compileScope(scope, filter, undefined, values).branches.map(
    ({ from, where }) =>
      `select v.entry_id as id, ${values.add(scope.type)}::text as type, v.locale, ` +
      `v.relevance, ${shown === '' ? 'null::jsonb' : `jsonb_build_object(${shown})`} as facets ` +
      `from ${from} where ${where.join(' and ')}`,
  )
}
