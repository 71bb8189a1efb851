import type { Call } from '#content/content.ts'
import type { ReadContext } from '#content/context.ts'
import { grantOf } from '#content/entries/permission.ts'
import { readerOf, scopeOf } from '#content/entries/read.ts'
import type { Subject } from '#content/entries/read.ts'
import { inOneSnapshot } from '#content/entries/snapshot.ts'
import { shownFields, viewOfRow } from '#content/entries/view.ts'
import type { Model } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { decodeCursor, encodeCursor } from '#content/query/cursor.ts'
import { dependOnList, dependOnModel } from '#content/query/dependencies.ts'
import { QueryFieldError, QueryLimitError, QueryParameterError } from '#content/query/errors.ts'
import { querySchema } from '#content/query/normal-form.ts'
import { costlyQueryMsMax } from '#content/query/query-lane.ts'
import { visibleFields } from '#content/query/readable-type.ts'
import { brief } from '#content/query/readable-schema.ts'
import { compileByIds } from '#content/query/sql.ts'
import type { EntryRow } from '#content/query/sql.ts'
import { validateFilter } from '#content/query/validate-query.ts'
import { compileFound } from '#content/search/found-sql.ts'
import type { FacetRow, Found, FoundRow, SearchedScope } from '#content/search/found-sql.ts'
import { highlight, highlightedMax } from '#content/search/highlight.ts'
import { plainText } from '#content/search/plain-text.ts'
import {
  byRelevance,
  relevance,
  scopeSearch,
  searchableGroups,
} from '#content/search/search-scope.ts'
import { anyWordText, parseSearch } from '#content/search/search-terms.ts'
import type { SearchTerm } from '#content/search/search-terms.ts'
import { titleOf } from '#content/search/searched-fields.ts'
import type { SearchGroup } from '#content/search/searched-fields.ts'
import type {
  FacetValue,
  SearchHit,
  SearchPage,
  SearchQuery,
  Suggestion,
  SuggestionQuery,
} from '#content/search/search.ts'
import { wordsIn } from '#content/search/words.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** Types that one search looks through. */
export const searchedTypesMax = 50
export const searchLimitMax = 50
export const suggestionsMax = 20
const facetsMax = 8
/** Different words of a page that are looked up for its highlights. */
const wordsLookedUpMax = 10_000

/** A type that is searched, and the groups of its fields that the caller searches. */
type SearchedType = Subject & { readonly groups: readonly SearchGroup[] }

type Asked = SearchQuery & {
  readonly terms: readonly SearchTerm[]
  readonly groups: readonly SearchGroup[] | null
}

/** See `Search`. */
export async function findEntries(
  context: ReadContext,
  call: Call,
  query: SearchQuery,
): Promise<SearchPage> {
  const terms = parseSearch(query.text, 'q')
  checkCount('limit', query.limit, searchLimitMax)
  if (query.facets.length > facetsMax)
    throw new QueryLimitError(`A search counts at most ${facetsMax} facets.`, { limit: facetsMax })
  return find(context, call, { ...query, terms, groups: null })
}

/** See `Search`. */
export async function suggestTitles(
  context: ReadContext,
  call: Call,
  query: SuggestionQuery,
): Promise<readonly Suggestion[]> {
  checkCount('limit', query.limit, suggestionsMax)
  const terms = parseSearch(query.text, 'q')
  const last = terms.length - 1
  const { hits } = await find(context, call, {
    ...query,
    perspective: 'published',
    facets: [],
    after: null,
    filterFor: () => null,
    terms: terms.map((term, at) => (at === last ? { ...term, prefix: true } : term)),
    groups: ['A'],
    limit: query.limit * 2,
  })
  const byTitle = new Map<string, Suggestion>()
  for (const { entry, title, slug } of hits)
    if (title !== null && !byTitle.has(title))
      byTitle.set(title, { title, type: entry.type, id: entry.id, slug })
  return [...byTitle.values()].slice(0, query.limit)
}

function checkCount(parameter: string, count: number, max: number): void {
  if (Number.isInteger(count) && count >= 1 && count <= max) return
  throw new QueryLimitError(`\`${parameter}\` is a whole number from 1 to ${max}.`, { limit: max })
}

async function find(context: ReadContext, call: Call, asked: Asked): Promise<SearchPage> {
  return context.models.use(call.db, async (model) => {
    if (call.depends !== undefined) dependOnModel(call.depends)
    // A locale that is not there is refused, also where there is nothing to search.
    model.chain(asked.locale)
    const types = searchedTypes(call, model, asked)
    const facets = facetsOf(types, asked)
    const scopes = types.map((type) => searchedScope(type, asked, facets))
    const read = async (db: Queryable): Promise<SearchPage> => {
      const found = await readFound({ ...call, db }, model, scopes, { ...asked, facets })
      for (const { scope, filter } of scopes)
        if (call.depends !== undefined) dependOnList(call.depends, scope, filter, null)
      return pageOf(db, { types, scopes, asked }, found)
    }
    if (call.caller === undefined) return inOneSnapshot(call.db, read)
    const options = { statementMsMax: costlyQueryMsMax }
    return context.lane.run(call.caller, () => inOneSnapshot(call.db, read, options))
  })
}

/** The types that the caller may search, or those of them that the query names. */
function searchedTypes(call: Call, model: Model, asked: Asked): readonly SearchedType[] {
  const action = asked.perspective === 'published' ? 'read' : 'readDraft'
  const all = [...model.types.values()].flatMap((type): SearchedType[] => {
    const grant = grantOf(call, action, type)
    if (grant === null) return []
    const groups = searchableGroups(type, grant).filter(
      (group) => asked.groups?.includes(group) !== false,
    )
    return groups.length === 0 ? [] : [{ call, model, type, grant, groups }]
  })
  const { types: names } = asked
  const byName = new Map(all.map((one) => [one.type.definition.name, one]))
  for (const name of names ?? [])
    if (!byName.has(name))
      throw new QueryParameterError(
        `There is no type "${brief(name)}" that you can search; there are: ` +
          `${[...byName.keys()].slice(0, searchedTypesMax).join(', ') || 'none'}.`,
        { parameter: 'types' },
      )
  const chosen = names === null ? all : [...new Set(names)].map((name) => byName.get(name)!)
  if (chosen.length > searchedTypesMax)
    throw new QueryLimitError(
      `A search looks through at most ${searchedTypesMax} types, and you can search ` +
        `${chosen.length}: name some in \`types\`.`,
      { limit: searchedTypesMax },
    )
  return chosen
}

/** The facets that were asked for, if one of the types has each. */
function facetsOf(types: readonly SearchedType[], { facets }: Asked): readonly string[] {
  const allowed = new Set(types.flatMap(facetFields))
  for (const name of facets)
    if (!allowed.has(name))
      throw new QueryFieldError(
        `No type that is searched has a filterable select "${brief(name)}" that you can use; ` +
          `there are: ${[...allowed].join(', ') || 'none'}.`,
        { field: brief(name), allowed: [...allowed] },
      )
  return [...new Set(facets)]
}

function facetFields({ type, grant }: SearchedType): readonly string[] {
  return visibleFields({ type: type.definition, grant })
    .filter((field) => field.kind === 'select' && field.filterable === true)
    .map((field) => field.name)
}

function searchedScope(
  searched: SearchedType,
  asked: Asked,
  facets: readonly string[],
): SearchedScope {
  const reader = readerOf(searched, asked.perspective)
  const filter = asked.filterFor(reader)
  const own = facetFields(searched)
  return {
    scope: {
      ...scopeOf(searched, asked),
      search: scopeSearch(searched.type, searched.groups, { terms: asked.terms, ranked: true }),
    },
    filter: filter === null ? null : validateFilter(filter, reader),
    facets: facets.filter((name) => own.includes(name)),
  }
}

const nothingFound: Found = { hits: '[]', facets: '[]', count: 0, capped: false, model: '' }
const cursorSchema = new Map([
  [relevance.name, relevance],
  ['id', querySchema({ name: 'any', label: '', fields: [] }).get('id')!],
])
/** Stands for the type in the cursors of searches across types. */
const acrossTypes = '*'

async function readFound(
  call: Call,
  model: Model,
  scopes: readonly SearchedScope[],
  { limit, after, facets }: Asked,
): Promise<Found> {
  const [score, id] =
    after === null ? [] : decodeCursor(after, acrossTypes, byRelevance, cursorSchema)
  const place = after === null ? null : { relevance: Number(score), id: String(id) }
  if (scopes.length === 0) return nothingFound
  const compiled = compileFound(scopes, { limit: limit + 1, after: place, facets })
  const [found] = await call.db.run(compiled.statement, compiled.values)
  if (found?.model !== model.revision) throw new StaleModel()
  return found
}

type Searched = {
  readonly types: readonly SearchedType[]
  readonly scopes: readonly SearchedScope[]
  readonly asked: Asked
}

async function pageOf(db: Queryable, searched: Searched, found: Found): Promise<SearchPage> {
  const { asked } = searched
  const rows = JSON.parse(found.hits) as FoundRow[]
  const shown = rows.slice(0, asked.limit)
  const last = shown.at(-1)
  const hits = await hitsOf(db, searched, shown)
  const words = await foundWords(db, hits, asked.terms)
  return {
    hits: hits.map((hit) => withHighlights(hit, words)),
    facets: facetsByName(JSON.parse(found.facets) as FacetRow[], asked.facets),
    after:
      rows.length > asked.limit && last !== undefined
        ? encodeCursor(acrossTypes, byRelevance, [last.relevance, last.id])
        : null,
    count: found.count,
    countIsExact: !found.capped,
  }
}

function facetsByName(
  rows: readonly FacetRow[],
  names: readonly string[],
): Record<string, readonly FacetValue[]> {
  const facets = ['type', 'locale', ...names].map((name) => [
    name,
    rows.filter((row) => row.facet === name).map(({ value, count }) => ({ value, count })),
  ])
  return Object.fromEntries(facets) as Record<string, readonly FacetValue[]>
}

/** A hit with the texts that its highlights are made of. */
type Hit = {
  readonly hit: Omit<SearchHit, 'highlights'>
  readonly texts: readonly (readonly [name: string, text: string])[]
}

/** The entries of one page: one statement for each type that is on it. */
async function hitsOf(
  db: Queryable,
  { types, scopes }: Searched,
  shown: readonly FoundRow[],
): Promise<readonly Hit[]> {
  const rows = new Map<string, EntryRow>()
  for (const { scope } of scopes) {
    const ids = shown.filter(({ type }) => type === scope.type).map(({ id }) => id)
    if (ids.length === 0) continue
    const { search: _, ...all } = scope
    const { statement, values } = compileByIds(all, ids)
    for (const row of await db.run(statement, values)) rows.set(row.id, row)
  }
  const byName = new Map(types.map((one) => [one.type.definition.name, one]))
  return shown.flatMap(({ id, type, relevance: score }) => {
    const [row, searched] = [rows.get(id), byName.get(type)]
    return row === undefined || searched === undefined ? [] : [hitOf(searched, row, score)]
  })
}

function hitOf({ type, grant, groups }: SearchedType, row: EntryRow, score: number): Hit {
  const entry = viewOfRow(type, row, shownFields(grant, null))
  const fields = JSON.parse(entry.fieldsJson) as Readonly<Record<string, unknown>>
  const text = (name: string | undefined): string | null => {
    const value = name === undefined ? undefined : fields[name]
    return typeof value === 'string' ? value : null
  }
  const texts = type.searched
    .filter(({ group }) => groups.includes(group))
    .map(({ field }) => [field.name, plainText(field, fields[field.name])] as const)
  const title = text(titleOf(type.definition))
  return { hit: { entry, title, slug: text(type.slug?.name), score }, texts }
}

/** `offset 0` keeps the query from being made again for each word. */
const wordsFound = sql<{ word: string }>(`
  select word
  from (select stoa.search_config($1) as config) c
    cross join lateral (select to_tsquery(c.config, $3) as query offset 0) q
    cross join unnest($2::text[]) as word
  where to_tsvector(c.config, word) @@ q.query`)

/** By locale, the words of these texts that the search looks for, in whatever form. */
async function foundWords(
  db: Queryable,
  hits: readonly Hit[],
  terms: readonly SearchTerm[],
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const found = new Map<string, ReadonlySet<string>>()
  for (const [locale, own] of Map.groupBy(hits, ({ hit }) => hit.entry.locale)) {
    const words = new Set<string>()
    for (const [, text] of own.flatMap(({ texts }) => texts))
      for (const { word } of wordsIn(text.slice(0, highlightedMax)))
        if (words.size < wordsLookedUpMax) words.add(word)
    const rows = await db.run(wordsFound, [locale, [...words], anyWordText(terms)])
    found.set(locale, new Set(rows.map(({ word }) => word)))
  }
  return found
}

function withHighlights(
  { hit, texts }: Hit,
  words: ReadonlyMap<string, ReadonlySet<string>>,
): SearchHit {
  const found = words.get(hit.entry.locale) ?? new Set()
  const marked = texts.flatMap(([name, text]) => {
    const excerpt = highlight(text, found)
    return excerpt === null ? [] : [[name, excerpt] as const]
  })
  return { ...hit, highlights: Object.fromEntries(marked) }
}
