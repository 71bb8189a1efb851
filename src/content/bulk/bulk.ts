import type { Call } from '#content/content.ts'

/** Entries of one type in one locale each; several items of a batch may be of the same entry. */
export type BulkItem = {
  readonly id: string
  readonly locale: string
  /** All fields of the entry in this locale; what is left out is cleared. */
  readonly fields: Readonly<Record<string, unknown>>
  readonly publish: boolean
  /** The dates that the content had at its source. They apply only to new entries. */
  readonly at?: { readonly createdAt?: string; readonly publishedAt?: string }
}

export type BulkOutcome =
  | { readonly outcome: 'made' | 'changed' | 'unchanged'; readonly version: number }
  | { readonly outcome: 'refused'; readonly reason: string }

/** The state of one entry in one locale, for importers that compare. */
export type BulkState = {
  readonly id: string
  readonly locale: string
  readonly isPublished: boolean
  readonly isArchived: boolean
  /** The filterable fields of the latest version, in normal form. */
  readonly filterJson: string
}

/**
 * Saves content by the batch, for importers. The rules are those of `Entries` (validation, normal
 * form, references, unique values, one published version, fields shared by all locales); the
 * statements are made once for a whole batch. A batch is one transaction; an item that breaks a
 * rule is refused by itself and the others are saved. Only callers who may do everything can use
 * it: the command line on the node's own machine.
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
   * Returns the latest versions of `limit` entries of a type after the id `after`, ordered by id
   * and locale.
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
