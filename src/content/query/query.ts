import type { Scalar } from '#lib/scalar.ts'

/**
 * The one query model. REST, GraphQL, the in-process API and the cache's predicates are all written
 * in it, and two evaluators (sql.ts, predicate.ts) agree on it exactly; query.pg.test.ts holds
 * that.
 *
 * Logic is two-valued: a comparison with a missing value is false, and `not` turns it round. So
 * `ne` and `nin` are true for a missing value.
 */
export type Filter =
  | { readonly op: 'and' | 'or'; readonly filters: readonly Filter[] }
  | { readonly op: 'not'; readonly filter: Filter }
  | { readonly op: 'compare'; readonly field: string; readonly test: Test }
  /**
   * One of the entries that the reference points to is of one of these types and matches its
   * filter, among those that the reader may see of that type. `validateFilter` makes it of a
   * comparison whose field leads across a reference: `category.slug`.
   */
  | { readonly op: 'through'; readonly field: string; readonly targets: readonly FilterTarget[] }
  /**
   * The row is known to be as the type says: its filterable values were made at or after this
   * revision, and none of these fields has a value that filters cannot see. Only grants have it
   * (see `grantFilter`): what is not known matches no grant. Queries cannot ask for it.
   */
  | { readonly op: 'known'; readonly revision: number; readonly fields: readonly string[] }

export type FilterTarget = {
  readonly type: string
  readonly filter: Filter
  /** From the reader's grant on that type. */
  readonly grantFilter: Filter | null
}

export type Test =
  /**
   * Equal in normal form (see normal-form.ts); on a field with many values: one of them is equal.
   */
  | { readonly is: 'eq' | 'ne'; readonly value: Scalar }
  | { readonly is: 'in' | 'nin'; readonly values: readonly Scalar[] }
  /**
   * Text by code point, numbers as IEEE doubles, dates by instant. Never on fields with many
   * values.
   */
  | { readonly is: 'lt' | 'lte' | 'gt' | 'gte'; readonly value: Scalar }
  /** By code point, case-sensitive, on text. */
  | { readonly is: 'contains' | 'startsWith'; readonly value: string }
  /** Has a value; on a field with many values: at least one. */
  | { readonly is: 'exists'; readonly value: boolean }

/**
 * A missing value sorts after every other one ascending and before them descending. Ties end on
 * `id`, in the last direction.
 */
export type Sort = { readonly field: string; readonly descending: boolean }

export type Perspective = 'published' | 'draft' | { readonly release: string }

export type ListQuery = {
  readonly type: string
  readonly filter: Filter | null
  /** The text that a reader searches for (see `parseSearch`). Absent: all that match the filter. */
  readonly search?: string
  /** Empty where there is a search: the best matches first. */
  readonly sort: readonly Sort[]
  /** Names of fields to return; null: all that the reader may see. */
  readonly fields: readonly string[] | null
  /**
   * Paths along reference fields, `category` or `author.employer`; at most `includeDepthMax` deep.
   */
  readonly include: readonly string[]
  /** Null: the default locale. Entries without it come in their first fallback that exists. */
  readonly locale: string | null
  readonly perspective: Perspective
  readonly limit: number
  /** Opaque, from `meta.after` of the page before; bound to sort, so another sort refuses it. */
  readonly after: string | null
  /** Also count all that match: one more statement. */
  readonly count: boolean
}

/**
 * Fields that every entry has. No field of a type may take these names. `createdBy` is the id of
 * the user or API token that created the entry (missing when the system or the anonymous role did):
 * filterable, not part of an entry's JSON.
 */
export const systemFields = [
  'id',
  'type',
  'locale',
  'version',
  'status',
  'createdAt',
  'updatedAt',
  'publishedAt',
  'firstPublishedAt',
  'createdBy',
] as const

/** Words of the query language: no field of a type may take these names either. */
export const reservedWords = ['and', 'or', 'not'] as const
