import assert from 'node:assert/strict'
import type { Actor } from '#lib/actor.ts'
import { ValidationError } from '#content/errors.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import { encodePublication, latestOf, publishedOf } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import { filterOfFields, upgradedFilter } from '#content/versions/upgraded-filter.ts'
import type { TypeModel } from '#content/model/model.ts'
import { entryBytesMax } from '#content/validation/compile.ts'

/**
 * The JSON text of fields, in the order of the type, and their filter. Throws `ValidationError`
 * where it is too large.
 */
export function encodeFields(
  type: TypeModel,
  fields: Readonly<Record<string, unknown>>,
): { data: string; filter: string } {
  const ordered: Record<string, unknown> = {}
  for (const { name } of type.definition.fields)
    if (fields[name] !== undefined) ordered[name] = fields[name]
  const data = JSON.stringify(ordered)
  // A UTF-16 unit takes one to three bytes, so small entries need not be measured.
  if (data.length * 3 > entryBytesMax && Buffer.byteLength(data) > entryBytesMax) {
    throw new ValidationError([
      {
        path: '',
        code: 'tooLarge',
        message: `An entry has at most ${entryBytesMax} bytes in one locale.`,
      },
    ])
  }
  return { data, filter: JSON.stringify(filterOfFields(type, ordered)) }
}

/** The changes of an edit, in the order of writing. */
export type EntryChanges = {
  readonly changed: boolean
  /** Rows that there are and that lose a flag, or only change a date. */
  readonly lost: readonly Version[]
  readonly added: readonly Version[]
  /** Rows that come back from the history. */
  readonly revived: readonly Version[]
  readonly gained: readonly Version[]
  /** Null: as many as before. */
  readonly localeCount: number | null
  /** There were locales before, and now there are more. */
  readonly grew: boolean
  readonly archivedChanged: boolean
}

type Stamp = { readonly by: Actor; readonly at: string }

/**
 * Changes to one entry, made in memory and written by `writeEdits`. The entry is locked from before
 * its state was read until the transaction ends, so no other write comes between.
 */
export class EntryEdit {
  readonly #type: TypeModel
  readonly #state: EntryState
  readonly #stamp: Stamp
  readonly #before: ReadonlyMap<string, Version>
  readonly #rows: Map<string, Version>
  readonly #numbers: Map<string, number>
  #archivedAt: string | null

  constructor(type: TypeModel, state: EntryState, stamp: Stamp) {
    this.#type = type
    this.#state = state
    this.#stamp = stamp
    this.#before = new Map(state.held.map((row) => [keyOf(row), row]))
    this.#rows = new Map(this.#before)
    this.#numbers = new Map(state.numbers)
    this.#archivedAt = state.archivedAt
  }

  /** The revision of the model that the edit was made with. */
  get revision(): string {
    return this.#state.model
  }

  get archivedAt(): string | null {
    return this.#archivedAt
  }

  get id(): string {
    return this.#state.id
  }

  /** The latest and published versions as they are after the changes so far. */
  get held(): readonly Version[] {
    return [...this.#rows.values()].filter((row) => row.isLatest || row.isPublished)
  }

  latest(locale: string): Version | null {
    return latestOf(this, locale)
  }

  published(locale: string): Version | null {
    return publishedOf(this, locale)
  }

  /**
   * Adds a version, the latest of its locale unless `beside` it (for a new published one that is
   * not what editors go on from).
   */
  add(
    locale: string,
    fields: Readonly<Record<string, unknown>>,
    options: { readonly createdAt?: string; readonly beside?: Version } = {},
  ): Version {
    const before = options.beside ?? this.latest(locale)
    const number = (this.#numbers.get(locale) ?? 0) + 1
    this.#numbers.set(locale, number)
    if (before !== null && options.beside === undefined)
      this.#set({ ...before, isLatest: false, isArchived: false })
    const row: Version = {
      ...encodeFields(this.#type, fields),
      locale,
      number,
      typeRevision: this.#type.revision,
      filterRevision: this.#type.revision,
      isLatest: options.beside === undefined,
      isPublished: false,
      isArchived: options.beside === undefined && this.isArchived,
      createdAt: before?.createdAt ?? options.createdAt ?? this.#stamp.at,
      createdById: this.#state.createdById,
      savedAt: this.#stamp.at,
      savedBy: JSON.stringify(this.#stamp.by),
      publishedAt: before?.publishedAt ?? null,
      publishedBy: null,
      firstPublishedAt: before?.firstPublishedAt ?? null,
    }
    this.#set(row)
    return row
  }

  /**
   * Publishes a version of this entry, which may be an old one. Does nothing if it is published.
   * Returns it as it is then.
   */
  publish(row: Version, publishedAt: string = this.#stamp.at): Version {
    const before = this.published(row.locale)
    if (before?.number === row.number) return before
    const latest = this.latest(row.locale)
    const firstPublishedAt =
      before?.firstPublishedAt ?? latest?.firstPublishedAt ?? row.firstPublishedAt ?? publishedAt
    if (before !== null) this.#set({ ...before, isPublished: false })
    const result: Version = {
      ...(this.#rows.get(keyOf(row)) ?? this.#renewed(row)),
      isPublished: true,
      publishedAt,
      publishedBy: encodePublication(this.#stamp.by, publishedAt),
      firstPublishedAt,
    }
    const draft = this.latest(row.locale)
    if (draft !== null && draft.number !== row.number)
      this.#set({ ...draft, publishedAt, firstPublishedAt })
    this.#set(result)
    return result
  }

  /** Takes the published version of a locale back; null if there is none. */
  unpublish(locale: string): Version | null {
    const before = this.published(locale)
    if (before === null) return null
    this.#set({ ...before, isPublished: false })
    const latest = this.latest(locale)
    if (latest !== null) this.#set({ ...latest, publishedAt: null })
    return before
  }

  archive(archived: boolean): void {
    this.#archivedAt = archived ? (this.#archivedAt ?? this.#stamp.at) : null
    for (const row of this.held) if (row.isLatest) this.#set({ ...row, isArchived: archived })
  }

  get isArchived(): boolean {
    return this.#archivedAt !== null
  }

  /**
   * What there is to write. Rows that lose a flag go first, because the database lets each flag be
   * there once.
   */
  changes(): EntryChanges {
    const changed = [...this.#rows.values()].filter((row) => this.#before.get(keyOf(row)) !== row)
    const added = changed.filter((row) => this.#isNew(row))
    const revived = changed.filter((row) => !this.#isNew(row) && !this.#before.has(keyOf(row)))
    const kept = changed.filter((row) => this.#before.has(keyOf(row)))
    const gains = (row: Version): boolean => {
      const before = this.#before.get(keyOf(row))
      return (
        before === undefined ||
        (row.isLatest && !before.isLatest) ||
        (row.isPublished && !before.isPublished)
      )
    }
    const count = (rows: readonly Version[]): number =>
      new Set(rows.filter((row) => row.isLatest).map((row) => row.locale)).size
    const locales = count(this.held)
    return {
      changed: changed.length > 0,
      lost: kept.filter((row) => !gains(row)),
      added,
      revived,
      gained: kept.filter(gains),
      localeCount: locales === count(this.#state.held) ? null : locales,
      grew: this.#before.size > 0 && locales !== count(this.#state.held),
      archivedChanged: this.#archivedAt !== this.#state.archivedAt,
    }
  }

  /**
   * A version out of the history, where filters stay as they were made: what is held again is found
   * by the fields of today.
   */
  #renewed(row: Version): Version {
    if (row.filterRevision >= this.#type.filterRevision) return row
    return {
      ...row,
      filter: JSON.stringify(upgradedFilter(this.#type, row)),
      filterRevision: this.#type.revision,
    }
  }

  #isNew(row: Version): boolean {
    return row.number > (this.#state.numbers.get(row.locale) ?? 0)
  }

  #set(row: Version): void {
    assert.ok(!(row.isArchived && row.isPublished), 'an archived version is never published')
    this.#rows.set(keyOf(row), row)
  }
}

function keyOf(row: Pick<Version, 'locale' | 'number'>): string {
  return `${row.locale}/${row.number}`
}
