import type { OnDelete } from '#content/content-type.ts'

/** Something that a value points to. */
export type Target = {
  /** Names of the fields down to it, joined by dots, without positions: `gallery.image`. */
  readonly path: string
  /** Where the value is, as a JSON pointer. */
  readonly pointer: string
  readonly kind: 'entry' | 'asset'
  readonly id: string
  /** Names of the types it may be of; null: any. */
  readonly types: readonly string[] | null
  readonly onDelete: OnDelete
}
