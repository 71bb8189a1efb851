import type { Change, Row } from '#change-feed/change.ts'

export type Scalar = string | number | boolean

/**
 * One condition on one field of a flat row. Two-valued: a comparison with a missing value is false,
 * and `negated` turns the whole atom round. Text is compared by code point, numbers as IEEE
 * doubles. A field that holds an array satisfies `eq` and `in` if one of its values does.
 */
export type Atom = { readonly field: string; readonly negated?: boolean } & (
  | { readonly is: 'eq'; readonly value: Scalar }
  | { readonly is: 'in'; readonly values: readonly Scalar[] }
  | { readonly is: 'range'; readonly min?: Bound; readonly max?: Bound }
  | { readonly is: 'contains' | 'startsWith'; readonly value: string }
  | { readonly is: 'exists' }
)

export type Bound = { readonly value: Scalar; readonly inclusive: boolean }

/**
 * All atoms hold. A disjunction is several dependencies. Plain data, so that it can travel to a
 * second level.
 */
export type Predicate = readonly Atom[]

export type SortKey = { readonly field: string; readonly descending: boolean }

/**
 * The stretch of the sorted list that a page shows: behind `after`, up to and with `upTo`; null:
 * open. Each holds one value per sort key (null: missing). The keys must end on a unique field, or
 * a tie at the border may be missed. A page that came back full ends at its last row; one that did
 * not is open, because an insertion would still join it.
 */
export type PageBound = {
  readonly sort: readonly SortKey[]
  readonly after: readonly (Scalar | null)[] | null
  readonly upTo: readonly (Scalar | null)[] | null
}

/**
 * By code point, as PostgreSQL's collation "C" does it on UTF-8. JavaScript's `<` goes by UTF-16
 * unit, which differs above U+FFFF.
 */
export function compareText(one: string, other: string): number {
  const length = Math.min(one.length, other.length)
  for (let at = 0; at < length; at += 1) {
    const a = one.charCodeAt(at)
    const b = other.charCodeAt(at)
    if (a === b) continue
    const aSurrogate = a >= 0xd800 && a <= 0xdfff
    const bSurrogate = b >= 0xd800 && b <= 0xdfff
    // Surrogates stand for code points above every other unit; two of them are in the order of
    // their units.
    if (aSurrogate === bSurrogate) return a - b
    return aSurrogate ? 1 : -1
  }
  return one.length - other.length
}

const kinds = { boolean: 0, number: 1, string: 2 } as const

/**
 * A total order: by type first, so that a row of the wrong type is at least always on the same
 * side.
 */
export function compareScalars(one: Scalar, other: Scalar): number {
  if (typeof one === 'number' && typeof other === 'number') return one - other
  if (typeof one === 'string' && typeof other === 'string') return compareText(one, other)
  const kind = kinds[typeof one as keyof typeof kinds] - kinds[typeof other as keyof typeof kinds]
  return kind === 0 ? Number(one) - Number(other) : kind
}

export function isScalar(value: unknown): value is Scalar {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
}

export function matches(predicate: Predicate, row: Row): boolean {
  for (const atom of predicate)
    if (holds(atom, row[atom.field]) === (atom.negated === true)) return false
  return true
}

/** Whether the value satisfies the atom, `negated` left aside. */
export function holds(atom: Atom, value: unknown): boolean {
  if (typeof value === 'object' && Array.isArray(value)) {
    if (atom.is === 'exists') return value.length > 0
    return (atom.is === 'eq' || atom.is === 'in') && value.some((one) => holds(atom, one))
  }
  if (!isScalar(value)) return false
  switch (atom.is) {
    case 'eq':
      return value === atom.value
    case 'in':
      return atom.values.includes(value)
    case 'range':
      return within(value, atom.min, atom.max)
    case 'contains':
      return typeof value === 'string' && value.includes(atom.value)
    case 'startsWith':
      return typeof value === 'string' && value.startsWith(atom.value)
    case 'exists':
      return true
  }
}

function within(value: Scalar, min: Bound | undefined, max: Bound | undefined): boolean {
  if (min !== undefined) {
    const order = typeof min.value === typeof value ? compareScalars(value, min.value) : -1
    if (order < 0 || (order === 0 && !min.inclusive)) return false
  }
  if (max !== undefined) {
    const order = typeof max.value === typeof value ? compareScalars(value, max.value) : 1
    if (order > 0 || (order === 0 && !max.inclusive)) return false
  }
  return true
}

/** The place of a row in the sorted list, against a page's border. */
function compareToBorder(
  row: Row,
  border: readonly (Scalar | null)[],
  sort: readonly SortKey[],
): number {
  for (let at = 0; at < sort.length; at += 1) {
    const key = sort[at]!
    const value = row[key.field]
    const mine = isScalar(value) ? value : null
    const theirs = border[at] ?? null
    if (mine === null && theirs === null) continue
    const order = mine === null ? 1 : theirs === null ? -1 : compareScalars(mine, theirs)
    if (order !== 0) return key.descending ? -order : order
  }
  return 0
}

export function withinPage(row: Row, page: PageBound): boolean {
  if (page.after !== null && compareToBorder(row, page.after, page.sort) <= 0) return false
  return page.upTo === null || compareToBorder(row, page.upTo, page.sort) <= 0
}

/**
 * Whether the change can have changed the list (R12). A row that the writer did not tell counts as
 * a match.
 */
export function touches(
  change: Change,
  predicate: Predicate,
  page: PageBound | null,
  options: { readonly ignoreBefore: boolean } = { ignoreBefore: false },
): boolean {
  if (change.operation === 'flush') return true
  const concerns = (row: Row): boolean =>
    matches(predicate, row) && (page === null || withinPage(row, page))
  if (
    change.operation !== 'insert' &&
    !options.ignoreBefore &&
    (change.before === null || concerns(change.before))
  )
    return true
  return change.operation !== 'delete' && (change.after === null || concerns(change.after))
}
