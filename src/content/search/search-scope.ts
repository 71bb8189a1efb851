import type { Grant } from '#content/authority.ts'
import type { TypeModel } from '#content/model/model.ts'
import type { Values } from '#content/query/expression.ts'
import type { QueryField } from '#content/query/normal-form.ts'
import type { Sort } from '#content/query/query.ts'
import { tsqueryText } from '#content/search/search-terms.ts'
import type { SearchTerm } from '#content/search/search-terms.ts'
import { searchGroups } from '#content/search/searched-fields.ts'
import type { SearchGroup } from '#content/search/searched-fields.ts'

/** The newest matches of each locale that are ranked: ranking reads the words of each of them. */
export const rankedMax = 10_000

/** A search among the rows of a type. */
export type ScopeSearch = {
  /** As `to_tsquery` reads it, in the configuration of each row's locale. */
  readonly query: string
  /** The weight of a word in the groups D, C, B and A: 0 where the reader may not look. */
  readonly weights: readonly number[]
  /** Rows whose words were made before this revision are not found. */
  readonly revision: number
  /** The best come first, by the pseudo-field `relevance`. */
  readonly ranked: boolean
}

/** No field of a type can have this name. */
export const relevance: QueryField = {
  name: '$relevance',
  type: 'number',
  many: false,
  nullable: false,
  system: true,
}
export const byRelevance: readonly Sort[] = [{ field: relevance.name, descending: true }]

const weights: Readonly<Record<SearchGroup, number>> = { A: 1, B: 0.5, C: 0.3, D: 0.1 }

/** The groups that a reader with this grant sees whole, and so may search. */
export function searchableGroups(type: TypeModel, grant: Grant): readonly SearchGroup[] {
  const { fields } = grant
  return searchGroups.filter((group) => {
    const own = type.searched.filter((one) => one.group === group)
    return own.length > 0 && own.every(({ field }) => fields?.includes(field.name) !== false)
  })
}

/** The search for these terms in the groups that the reader may search. */
export function scopeSearch(
  type: TypeModel,
  groups: readonly SearchGroup[],
  { terms, ranked }: { readonly terms: readonly SearchTerm[]; readonly ranked: boolean },
): ScopeSearch {
  const used = searchGroups.filter((group) => type.searched.some((one) => one.group === group))
  return {
    query: tsqueryText(terms, groups.length === used.length ? '' : groups.join('')),
    weights: searchGroups
      .map((group) => (groups.includes(group) ? weights[group] : 0))
      .toReversed(),
    revision: type.searchRevision,
    ranked,
  }
}

/** The conditions on the row `v`, whose locale is the parameter `locale`. */
export function searchConditions(
  search: ScopeSearch,
  values: Values,
  locale: string,
): readonly string[] {
  return [
    `v.search @@ ${tsquery(search, values, locale)}`,
    'v.search_number = v.number',
    `v.search_revision >= ${values.add(search.revision)}::int`,
  ]
}

/** How well the row `v` matches, as `relevance`. */
export function relevanceExpression(search: ScopeSearch, values: Values, locale: string): string {
  const list = values.add(search.weights)
  // 1: longer texts count less, by the logarithm of their length.
  return `ts_rank(${list}::float4[], v.search, ${tsquery(search, values, locale)}, 1)::float8`
}

/** A query of its own, which PostgreSQL runs once and not for each row. */
function tsquery({ query }: ScopeSearch, values: Values, locale: string): string {
  return `(select to_tsquery(stoa.search_config(${locale}), ${values.add(query)}))`
}
