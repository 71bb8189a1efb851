import type { Call, EntryView } from '#content/content.ts'
import type { Filter } from '#content/query/query.ts'
import type { Queryable } from '#database/database.ts'
import type { QueryReader } from '#content/query/readable-type.ts'

/** Searches across types: over all that the caller may read, or over the types that they name. */
export interface Search {
  /**
   * The best matches first. Throws `QueryFieldError`, `QueryParameterError`, `QueryLimitError` and
   * `QueryCursorError` for what the query says, and what costly queries throw.
   */
  find(call: Call, query: SearchQuery): Promise<SearchPage>
  /** Titles that have all words of the text and a word that begins with the last one. */
  suggest(call: Call, query: SuggestionQuery): Promise<readonly Suggestion[]>
  /**
   * Compares the words of every held version with its content. `repair`: makes them anew where they
   * differ. Goes on beside reads and writes; ends early when the signal aborts.
   */
  verify(db: Queryable, options: VerifyOptions): Promise<WordsReport>
}

export type VerifyOptions = {
  readonly repair: boolean
  readonly signal: AbortSignal
  readonly onProgress: (checked: number) => void
}

export type WordsReport = {
  readonly checked: number
  /** Versions whose words differed, or waited to be made anew. */
  readonly wrong: number
  readonly wrongByType: Readonly<Record<string, number>>
}

type SearchPlace = {
  readonly text: string
  /** Null: every type that the caller may search. */
  readonly types: readonly string[] | null
  readonly locale: string | null
  readonly limit: number
}

export type SearchQuery = SearchPlace & {
  readonly perspective: 'published' | 'draft'
  /** Names of filterable select fields whose values are counted. */
  readonly facets: readonly string[]
  /** `meta.after` of the page before. */
  readonly after: string | null
  /** The filter as it reads for one type: each type that is searched must have its fields. */
  readonly filterFor: (reader: QueryReader) => Filter | null
}

export type SuggestionQuery = SearchPlace

export type SearchHit = {
  readonly entry: EntryView
  /** Null: there is none, or the caller may not see it. */
  readonly title: string | null
  readonly slug: string | null
  /** Comparable within one search only. */
  readonly score: number
  /** Excerpts by field as HTML: everything is escaped but `<mark>` around what was found. */
  readonly highlights: Readonly<Record<string, string>>
}

export type FacetValue = { readonly value: string; readonly count: number }

export type SearchPage = {
  readonly hits: readonly SearchHit[]
  /** By type, by locale, and by each field that was asked for: the most frequent values first. */
  readonly facets: Readonly<Record<string, readonly FacetValue[]>>
  readonly after: string | null
  readonly count: number
  /** False: there are more matches than are ranked, and `count` and facets are of those. */
  readonly countIsExact: boolean
}

export type Suggestion = {
  readonly title: string
  readonly type: string
  readonly id: string
  readonly slug: string | null
}
