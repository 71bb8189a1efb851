import type { Row } from '#change-feed/change.ts'
import type { Authority, AuthorityOf } from '#content/authority.ts'
import type { Archive } from '#content/bulk/archive.ts'
import type { Bulk } from '#content/bulk/bulk.ts'
import type { ContentType } from '#content/content-type.ts'
import type { Depends } from '#content/query/dependencies.ts'
import type { Filter, ListQuery, Perspective } from '#content/query/query.ts'
import type { RowTexts } from '#content/query/row-texts.ts'
import type { QueryReader } from '#content/query/readable-type.ts'
import type { Search } from '#content/search/search.ts'
import type { Database, Queryable } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'

/**
 * One entry in one locale as one reader sees it. `fieldsJson` is the JSON text of its fields,
 * already narrowed to what the reader may see, so that delivery can splice it into a response
 * without parsing it.
 */
export type EntryView = {
  readonly id: string
  readonly type: string
  /** The locale that it is in: the requested one or a fallback. */
  readonly locale: string
  readonly version: number
  /**
   * `changed`: published, and a newer draft exists. Readers without `readDraft` only ever see
   * `published`.
   */
  readonly status: 'draft' | 'published' | 'changed' | 'archived'
  readonly createdAt: string
  readonly updatedAt: string
  readonly publishedAt: string | null
  readonly firstPublishedAt: string | null
  readonly fieldsJson: string
}

/** An asset that an entry shows, as everyone may see it who may read the entry. */
export type IncludedAsset = {
  readonly id: string
  readonly name: string
  readonly contentType: string
  readonly bytes: number
  readonly width: number | null
  readonly height: number | null
  /** The alternative texts by locale, as JSON text. */
  readonly altJson: string
  readonly focalPoint: { readonly x: number; readonly y: number } | null
}

export type Page = {
  readonly data: readonly EntryView[]
  /** Entries reached by `include`, by id, each once. Empty without `include`. */
  readonly included: ReadonlyMap<string, EntryView>
  /** Assets reached by `include`, by id, each once. */
  readonly assets: ReadonlyMap<string, IncludedAsset>
  /** For the next page; null on the last. */
  readonly after: string | null
  readonly count: number | null
}

export type ReadOptions = {
  readonly locale: string | null
  readonly perspective: Perspective
  readonly fields: readonly string[] | null
  readonly include: readonly string[]
}

export type SaveInput = {
  /** Null: the default locale. */
  readonly locale: string | null
  /** Raw values by field name, as they came; validated by the type. */
  readonly fields: Readonly<Record<string, unknown>>
  /** Publish what was saved, in the same transaction. Needs `publish` too. */
  readonly publish?: boolean
  /** Set only by importers: keep history's dates. */
  readonly at?: { readonly createdAt?: string; readonly publishedAt?: string }
}

/** A version that the caller has read; `locale` is null where the caller names none. */
export type SeenVersion = { readonly locale: string | null; readonly number: number }

/**
 * The optimistic lock: the caller goes on from one of these versions of each locale that it
 * changes. A number names that version in any locale, `absent` means that the locale must not exist
 * yet, and null is no lock.
 */
export type Expected = { readonly seen: readonly SeenVersion[] } | number | 'absent' | null

/**
 * Checks a condition on the current value, or null if there is none, under the lock of the write.
 * It throws where the condition does not hold.
 */
export type Precondition<Value> = (current: Value | null) => void

/**
 * The caller and the database of an operation: `db` is the pool, or the transaction of a caller
 * that does more (idempotency, import batches). `depends` is given where the response will be kept:
 * reading records there what the response is made of. The perspective of a release never has it.
 */
export type Call = {
  readonly db: Queryable
  readonly authority: Authority
  /**
   * The actor or address whose share of costly queries a read counts against. Absent for callers
   * within the node, which have no share.
   */
  readonly caller?: string
  readonly depends?: Depends
  /**
   * Texts of rows that this node keeps. `life` names the epoch of the database that the last reply
   * came from, or null if it is not known.
   */
  readonly known?: { readonly texts: RowTexts; readonly life: () => string | null }
  /**
   * Receives the `xmin` of what a single statement has written outside any transaction.
   */
  readonly wrote?: (writer: string) => void
}

export type VersionSummary = {
  readonly locale: string
  readonly version: number
  readonly savedAt: string
  readonly savedBy: Actor
  /** When, and by whom, this version itself was last published; null: it never was. */
  readonly publishedAt: string | null
  readonly publishedBy: Actor | null
  readonly isLatest: boolean
  readonly isPublished: boolean
}

export type DeleteOutcome = {
  readonly deleted: readonly string[]
  readonly unset: readonly string[]
}

/**
 * Content, whole. Every method checks permissions through `call.authority`. What the caller may not
 * read does not exist for them: `EntryNotFoundError`, with the same text as for a wrong id. What
 * they may read but not do: `ForbiddenError`.
 */
export interface Content {
  readonly types: ContentTypes
  readonly entries: Entries
  readonly locales: Locales
  readonly releases: Releases
  readonly schedule: Schedule
  readonly bulk: Bulk
  readonly archive: Archive
  readonly search: Search
  readonly watches: Watches
  /** Ends background work after the step at hand. */
  stop(): Promise<void>
}

/**
 * A query that can only be read with its type at hand. `read` gets the type as this reader sees it;
 * again if it changed meanwhile.
 */
export type UnreadQuery = {
  readonly type: string
  readonly perspective: Perspective
  read(reader: QueryReader): ListQuery
}

/** The address of an entry. */
export type EntryRef = { readonly type: string; readonly id: string }

/**
 * The changes of entries that a reader follows: of one type or of all, in one locale or in
 * all. `read` makes a filter once the type is at hand; null: there is none.
 */
export type UnreadWatch = {
  readonly type: string | null
  readonly perspective: 'published' | 'draft'
  readonly locale: string | null
  readonly read: ((reader: QueryReader) => Filter | null) | null
}

/**
 * What one transaction did to an entry in one locale and perspective: the row that was shown before
 * it and the one after it, as the change feed recorded them; null: none.
 */
export type EntryChange = {
  readonly type: string
  readonly id: string
  readonly locale: string
  readonly perspective: 'published' | 'draft'
  readonly before: Row | null
  readonly after: Row | null
}

/** The rows are those that the reader may see, with the fields that they may see. */
export type VisibleChange = Pick<EntryChange, 'before' | 'after'> & {
  readonly action: 'entered' | 'changed' | 'left'
}

export interface EntryWatch {
  /** Null: neither row is for this reader, so it concerns them in nothing. */
  evaluate(change: EntryChange): VisibleChange | null
}

export interface Watches {
  /**
   * Holds the grants and the model of now: after a change of either the caller opens another one.
   * Errors: those of a list with the same filter.
   */
  open(call: Call, watch: UnreadWatch): Promise<EntryWatch>
}

export interface Entries {
  /** By id, or by slug in the locale asked for (and its fallbacks). */
  get(
    call: Call,
    type: string,
    idOrSlug: string,
    options: ReadOptions,
  ): Promise<Pick<Page, 'included' | 'assets'> & { readonly entry: EntryView }>
  list(call: Call, query: ListQuery | UnreadQuery): Promise<Page>
  create(call: Call, type: string, input: SaveInput & { readonly id?: string }): Promise<EntryView>
  /**
   * `merge` keeps the fields that the input leaves out (PATCH); otherwise they are cleared (PUT).
   * Equal content saves nothing and returns the version there is.
   */
  save(
    call: Call,
    entry: EntryRef,
    input: SaveInput & { readonly merge: boolean },
    expected: Expected,
  ): Promise<EntryView>
  /** Publishes `version` (null: the latest) of each locale (null: all that the entry has). */
  publish(
    call: Call,
    entry: EntryRef,
    what: { readonly locales: readonly string[] | null; readonly version: number | null },
    expected: Expected,
  ): Promise<EntryView[]>
  unpublish(
    call: Call,
    entry: EntryRef,
    locales: readonly string[] | null,
    expected: Expected,
  ): Promise<EntryView[]>
  archive(call: Call, entry: EntryRef, archived: boolean, expected: Expected): Promise<EntryView[]>
  /** Makes a new latest version with the content of an old one. */
  restore(
    call: Call,
    entry: EntryRef,
    from: { readonly locale: string | null; readonly version: number },
    expected: Expected,
  ): Promise<EntryView>
  versions(
    call: Call,
    entry: EntryRef,
    page: {
      readonly locale: string | null
      readonly limit: number
      readonly before: number | null
    },
  ): Promise<VersionSummary[]>
  version(
    call: Call,
    entry: EntryRef,
    which: { readonly locale: string | null; readonly version: number },
  ): Promise<EntryView>
  delete(call: Call, entry: EntryRef, expected: Expected): Promise<DeleteOutcome>
  /**
   * Takes an asset that is about to be deleted out of the fields that say `unset`, as the system.
   * Returns the entries that got new versions by it and that the caller may read. Where a field
   * restricts, nothing changes, and deleting the asset in the same transaction finds it in use.
   */
  takeOutAsset(call: Call, assetId: string): Promise<readonly string[]>
  /**
   * Returns the referrers to a target that the caller may read. One query per referrer: use for
   * short lists.
   */
  readableAmong<
    Referrer extends { readonly type: string; readonly entry: string; readonly locale: string },
  >(
    call: Call,
    targetId: string,
    referrers: readonly Referrer[],
  ): Promise<Referrer[]>
  /**
   * All locales of an entry in one perspective, default locale first. For editors, exports,
   * importers.
   */
  locales(call: Call, entry: EntryRef, perspective: 'published' | 'draft'): Promise<EntryView[]>
}

/**
 * Definitions are read from memory and reloaded when the database's differ, so that a change holds
 * on every node at once.
 */
export type SavedType = { readonly definition: ContentType; readonly revision: number }

export type SaveTypeOptions = {
  /** The revision that the caller has read; null: no lock. */
  readonly expected: number | null
  readonly allowLoss: boolean
  readonly precondition?: Precondition<SavedType>
}

export interface ContentTypes {
  get(db: Queryable, name: string): Promise<{ definition: ContentType; revision: number }>
  list(db: Queryable): Promise<{ definition: ContentType; revision: number }[]>
  /**
   * What saving would do to existing entries and indexes; refuses changes that would lose data
   * unless `allowLoss`.
   */
  plan(db: Queryable, definition: ContentType): Promise<TypePlan>
  save(db: Queryable, definition: ContentType, options: SaveTypeOptions): Promise<SavedType>
  delete(db: Queryable, name: string, precondition?: Precondition<SavedType>): Promise<void>
  /**
   * Carries out what changes of types leave to do: filters in the new normal form, indexes. `save`
   * and `delete` begin it in the background when `db` is the database itself; a node also calls it
   * when it starts and once a minute, for what a crash or a caller's transaction left. Cheap when
   * there is nothing to do.
   */
  settle(db: Database): Promise<void>
  /**
   * How far that is. Until a type is settled, lists that filter by its newly filterable fields lack
   * older entries.
   */
  states(db: Queryable): Promise<TypeState[]>
}

export type TypeState = {
  readonly name: string
  readonly revision: number
  readonly settled: boolean
  readonly versionsWaiting: number
}

export type TypePlan = {
  readonly change: 'create' | 'update' | 'none'
  readonly steps: readonly {
    readonly what: 'addField' | 'changeField' | 'removeField' | 'addIndex' | 'removeIndex'
    readonly name: string
    readonly losesData: boolean
    /** The change is refused until entries were changed; `note` says which. */
    readonly blocked: boolean
    readonly note: string
  }[]
}

export type Locale = {
  readonly code: string
  readonly fallback: string | null
  readonly isDefault: boolean
}

export interface Locales {
  list(db: Queryable): Promise<Locale[]>
  save(db: Queryable, locale: Locale, precondition?: Precondition<Locale>): Promise<void>
  delete(db: Queryable, code: string, precondition?: Precondition<Locale>): Promise<void>
}

export type ReleaseItem = {
  readonly entryId: string
  readonly type: string
  readonly locale: string
  readonly action: 'publish' | 'unpublish'
  readonly version: number | null
}
export type Release = {
  readonly id: string
  readonly name: string
  readonly state: 'open' | 'published' | 'undone'
  readonly createdAt: string
  readonly publishedAt: string | null
  readonly items: readonly ReleaseItem[]
}

export interface Releases {
  list(
    call: Call,
    page: { readonly limit: number; readonly after: string | null },
  ): Promise<{ data: Release[]; after: string | null }>
  get(call: Call, id: string): Promise<Release>
  create(call: Call, name: string): Promise<Release>
  /**
   * Pins a version (null for an unpublish); adding the same entry and locale again replaces the
   * item.
   */
  put(call: Call, id: string, items: readonly Omit<ReleaseItem, 'type'>[]): Promise<Release>
  remove(
    call: Call,
    id: string,
    item: { readonly entryId: string; readonly locale: string },
  ): Promise<Release>
  /** All items or none. */
  publish(call: Call, id: string): Promise<Release>
  /**
   * Puts back what each item replaced; refused where something newer was published since, and says
   * what.
   */
  undo(call: Call, id: string): Promise<Release>
  delete(call: Call, id: string): Promise<void>
}

export type ScheduledAction = {
  readonly id: string
  readonly entryId: string
  readonly locale: string
  readonly action: 'publish' | 'unpublish'
  readonly version: number | null
  readonly dueAt: string
  readonly state: 'waiting' | 'done' | 'cancelled' | 'failed'
  /** Why it failed, as far as the caller may know; null: it did not. */
  readonly failure: { readonly code: string; readonly message: string } | null
}

export interface Schedule {
  add(
    call: Call,
    type: string,
    id: string,
    what: {
      readonly locale: string | null
      readonly action: 'publish' | 'unpublish'
      readonly version: number | null
      readonly dueAt: string
    },
  ): Promise<ScheduledAction>
  list(call: Call, type: string, id: string): Promise<ScheduledAction[]>
  cancel(call: Call, type: string, id: string, scheduleId: string): Promise<ScheduledAction>
  /**
   * Carries out one action that is due, in a transaction that also marks it: once, whichever nodes
   * call it, and with the rights that its maker has then (`authorityOf`). `nothing`: it does not
   * wait, or is not due.
   */
  carryOut(
    db: Queryable,
    scheduleId: string,
    authorityOf: AuthorityOf,
  ): Promise<'done' | 'failed' | 'nothing'>
  /** An earlier action on the same entry waits, though it is due as well. */
  isBehind(db: Queryable, scheduleId: string): Promise<boolean>
}
