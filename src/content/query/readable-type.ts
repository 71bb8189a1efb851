import type { Grant } from '#content/authority.ts'
import type { ContentType, Field } from '#content/content-type.ts'

/** A type as one reader sees it. */
export type ReadableType = { readonly type: ContentType; readonly grant: Grant }

export type QueryReader = ReadableType & {
  /** The codes of all locales. */
  readonly locales: readonly string[]
  /**
   * The types of these names that the reader may read; null: all of them. Asked along the paths of
   * `include` and of filters across a reference.
   */
  readonly targets: (names: readonly string[] | null) => readonly ReadableType[]
}

export function visibleFields({ type, grant }: ReadableType): readonly Field[] {
  const { fields } = grant
  return fields === null ? type.fields : type.fields.filter((field) => fields.includes(field.name))
}
