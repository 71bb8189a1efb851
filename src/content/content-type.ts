/**
 * The definition of a content type, as editors shape it, the database keeps it and `stoa types
 * pull` writes it.
 */
export type ContentType = {
  /** `^[a-z][a-z0-9-]{0,62}$`; part of every URL. */
  readonly name: string
  readonly label: string
  readonly description?: string
  /** The field that people recognise an entry by. Absent: the first text field. */
  readonly titleField?: string
  readonly fields: readonly Field[]
  /**
   * Composite indexes for lists: field names, `-` before a descending one; system names such as
   * `publishedAt` too.
   */
  readonly indexes?: readonly (readonly string[])[]
}

type FieldBase = {
  /** `^[a-z][A-Za-z0-9]{0,62}$` and none of `systemFields` in query/query.ts. */
  readonly name: string
  readonly label?: string
  readonly help?: string
  readonly required?: boolean
  /**
   * Each locale has a value of its own. Otherwise a save in one locale is carried to the drafts of
   * all.
   */
  readonly localized?: boolean
}

/**
 * `filterable` and `unique` exist only on fields of the type itself, not inside groups, lists and
 * blocks.
 */
type Filterable = { readonly filterable?: boolean; readonly unique?: boolean }

/** The field's text is found by search. Only on fields of the type itself. */
type Searchable = { readonly searchable?: boolean }

export type OnDelete = 'restrict' | 'unset' | 'cascade'

export type Field = FieldBase &
  /**
   * Lengths in code points. The whole value has to match `pattern` (see validation/pattern.ts for
   * its syntax).
   */
  (
    | ({
        readonly kind: 'text'
        readonly lengthMax?: number
        readonly lengthMin?: number
        readonly pattern?: string
      } & Filterable &
        Searchable)
    | ({ readonly kind: 'richText' } & Searchable)
    | ({ readonly kind: 'markdown'; readonly lengthMax?: number } & Searchable)
    | ({
        readonly kind: 'number'
        readonly min?: number
        readonly max?: number
        readonly integer?: boolean
      } & Filterable)
    | ({ readonly kind: 'boolean' } & Filterable)
    | ({ readonly kind: 'dateTime' } & Filterable)
    | ({
        readonly kind: 'select'
        readonly options: readonly string[]
        readonly many?: boolean
      } & Filterable &
        Searchable)
    | { readonly kind: 'json' }
    /**
     * Made from the field `from` when left out; always unique within type and locale, and
     * filterable.
     */
    | ({ readonly kind: 'slug'; readonly from?: string } & Searchable)
    | ({
        readonly kind: 'asset'
        readonly many?: boolean
        readonly onDelete?: OnDelete
      } & Filterable)
    | ({
        readonly kind: 'reference'
        readonly many?: boolean
        /** Names of the types it may point to. Absent: any. */
        readonly types?: readonly string[]
        readonly onDelete?: OnDelete
      } & Filterable)
    | ({ readonly kind: 'group'; readonly fields: readonly Field[] } & Searchable)
    | ({
        readonly kind: 'list'
        readonly of: Field
        readonly itemsMax?: number
        readonly filterable?: boolean
      } & Searchable)
    /**
     * Each item is an object with the block's name in `block` and its fields beside it: `{ block:
     * 'quote', text: '…' }`.
     */
    | ({
        readonly kind: 'blocks'
        readonly blocks: readonly { readonly name: string; readonly fields: readonly Field[] }[]
        readonly itemsMax?: number
      } & Searchable)
  )

export type FieldKind = Field['kind']
