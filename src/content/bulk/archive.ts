import type { Call } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import type { Actor } from '#lib/actor.ts'

/** A version as an export keeps it. */
export type ArchivedVersion = {
  readonly number: number
  readonly latest: boolean
  readonly published: boolean
  readonly createdAt: string
  readonly savedAt: string
  readonly savedBy: Actor
  readonly publishedAt: string | null
  readonly publishedBy: Actor | null
  readonly firstPublishedAt: string | null
  readonly fields: Readonly<Record<string, unknown>>
}

/**
 * An entry as an export keeps it, with the versions of each locale in their order and the actions
 * that wait.
 */
export type ArchivedEntry = {
  readonly id: string
  readonly type: string
  readonly createdAt: string
  readonly createdBy: Actor
  readonly archivedAt: string | null
  readonly locales: Readonly<Record<string, readonly ArchivedVersion[]>>
  readonly schedule: readonly ArchivedAction[]
}

export type ArchivedAction = {
  readonly id: string
  readonly locale: string
  readonly action: 'publish' | 'unpublish'
  readonly version: number | null
  readonly dueAt: string
  readonly createdAt: string
  readonly createdBy: Actor
}

export type ArchivedRelease = {
  readonly id: string
  readonly name: string
  readonly state: 'open' | 'published' | 'undone'
  readonly createdAt: string
  readonly createdBy: Actor
  readonly publishedAt: string | null
  readonly publishedBy: Actor | null
  readonly items: readonly {
    readonly entryId: string
    readonly locale: string
    readonly action: 'publish' | 'unpublish'
    readonly version: number | null
    readonly versionBefore: number | null
    readonly publishedBefore: string | null
  }[]
}

export type ArchiveOutcome =
  | { readonly outcome: 'made' | 'changed' | 'unchanged' }
  | { readonly outcome: 'refused'; readonly reason: string }

/** The faults and the targets of an archived entry, checked before anything is written. */
export type ArchiveCheck = {
  readonly faults: readonly string[]
  readonly entries: readonly string[]
  readonly assets: readonly string[]
}

/**
 * Takes content out of one database and into another exactly as it is, for callers who may do
 * everything. Reading is consistent when `call.db` is a transaction that sees one snapshot.
 */
export interface Archive {
  /**
   * Returns entries ordered by id. `history` adds all versions to the latest, the published, and
   * those that releases and schedules name.
   */
  entries(
    call: Call,
    type: string,
    page: { readonly after: string | null; readonly limit: number; readonly history: boolean },
  ): Promise<ArchivedEntry[]>
  releases(
    call: Call,
    page: { readonly after: string | null; readonly limit: number },
  ): Promise<ArchivedRelease[]>
  /**
   * Returns what keeps an entry from being restored under this definition. It needs no database,
   * and takes any JSON.
   */
  check(definition: ContentType, entry: ArchivedEntry): ArchiveCheck
  /**
   * Restores entries of one type; all that they refer to must exist (see `Bulk.reserve`). An entry
   * that does not exist or has no version becomes exactly what the archive has; one with the same
   * content is left alone; one with other content gets new versions with that of the archive.
   */
  restore(call: Call, type: string, entries: readonly ArchivedEntry[]): Promise<ArchiveOutcome[]>
  /** Restores a release. One that exists is left as it is, and refused if it differs. */
  restoreRelease(call: Call, release: ArchivedRelease): Promise<ArchiveOutcome>
}
