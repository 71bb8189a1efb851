import type { Filter } from '#content/query/query.ts'
import type { Queryable } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'

export const contentActions = [
  'read',
  'readDraft',
  'create',
  'update',
  'publish',
  'archive',
  'delete',
] as const
/**
 * `read` is of what is published; `readDraft` of drafts, versions and archived entries; `publish`
 * covers unpublish, schedule and releases.
 */
export type ContentAction = (typeof contentActions)[number]

/** A permission for one action on one type. */
export type Grant = {
  /** Only entries that match; null: all. Checked against the entry before a write and after it. */
  readonly filter: Filter | null
  /** Only these fields are returned, sorted, filtered or written; null: all. */
  readonly fields: readonly string[] | null
}

/**
 * The rights of a caller, as content asks for them. `access/` implements it; everything outside a
 * request uses the system's.
 */
export interface Authority {
  readonly actor: Actor
  /** Null: not allowed. */
  grant(action: ContentAction, type: string): Grant | null
  /** Equal keys see equal content: part of every cache key. */
  readonly key: string
}

/** The rights that an actor has now; null: the user or token is gone, disabled or expired. */
export type AuthorityOf = (db: Queryable, actor: Actor) => Promise<Authority | null>
