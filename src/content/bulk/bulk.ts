import type { Call } from '#content/content.ts'

/** Entries of one type in one locale each; several items of a batch may be of the same entry. */
export type BulkItem = {
  readonly id: string
  readonly locale: string
  /** All fields of the entry in this locale; what is left out is cleared. */
  readonly fields: Readonly<Record<string, unknown>>
  readonly publish: boolean
  /** Dates of where it comes from. They count only for what is made anew. */
  readonly at?: { readonly createdAt?: string; readonly publishedAt?: string }
}

export type BulkOutcome =
  | { readonly outcome: 'made' | 'changed' | 'unchanged'; readonly version: number }
  | { readonly outcome: 'refused'; readonly reason: string }

/** What there is of one entry in one locale, for importers that compare. */
export type BulkState = {
  readonly id: string
  readonly locale: string
  readonly isPublished: boolean
  readonly isArchived: boolean
  /** Of the latest version: its filterable fields in normal form. */
  readonly filterJson: string
}

/**
 * Content by the batch, for importers: the rules of `Entries` (validation, normal form, references,
 * unique values, one published version, fields shared by all locales), with the statements of a
 * whole batch made together. A batch is one transaction; an item that breaks a rule is refused by
 * itself and the others are saved. Only for callers who may do everything: the command line on the
 * node's own machine.
 */
export interface Bulk {
  /**
   * Makes entries without versions, so that others can refer to them before their content comes.
   * Ids that exist already are left alone; one of another type is not. Returns the ids that were
   * made.
   */
  reserve(call: Call, type: string, ids: readonly string[]): Promise<string[]>
  /** One outcome for each item, in their order. Equal content makes no version. */
  save(call: Call, type: string, items: readonly BulkItem[]): Promise<BulkOutcome[]>
  /**
   * Latest versions of all entries of a type, by id and locale, `limit` entries at a time, after
   * the id `after`.
   */
  states(
    call: Call,
    type: string,
    page: { readonly after: string | null; readonly limit: number },
  ): Promise<BulkState[]>
  /**
   * Deletes those of these entries that have no version and that nothing refers to. Returns the ids
   * that were deleted.
   */
  release(call: Call, type: string, ids: readonly string[]): Promise<string[]>
}
