import type { Change, Row } from '#change-feed/change.ts'
import { compareScalars, isScalar } from '#lib/scalar.ts'
import type { Scalar } from '#lib/scalar.ts'

/**
 * One condition on one field of a flat row. Logic is two-valued: a comparison with a missing value
 * is false, and `negated` negates the whole atom. Text is compared by code point, numbers as IEEE
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
 * All atoms hold. A disjunction is several dependencies. A predicate is plain data, so that it can
 * be stored in a second level.
 */
export type Predicate = readonly Atom[]

export type SortKey = { readonly field: string; readonly descending: boolean }

/**
 * The part of the sorted list that a page shows: after `after`, up to and including `upTo`; null:
 * open. Each holds one value per sort key (null: missing). The keys must end on a unique field, or
 * a tie at the border may be missed. A full page ends at its last row; a page that is not full is
 * open, because an insertion would still join it.
 */
export type PageBound = {
  readonly sort: readonly SortKey[]
  readonly after: readonly (Scalar | null)[] | null
  readonly upTo: readonly (Scalar | null)[] | null
}

export function matches(predicate: Predicate, row: Row): boolean {
  for (const atom of predicate)
    if (holds(atom, row[atom.field]) === (atom.negated === true)) return false
  return true
}

/** Returns whether the value satisfies the atom, without regard to `negated`. */
function holds(atom: Atom, value: unknown): boolean {
  if (Array.isArray(value)) {
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
      return withinRange(value, atom.min, atom.max)
    case 'contains':
      return typeof value === 'string' && value.includes(atom.value)
    case 'startsWith':
      return typeof value === 'string' && value.startsWith(atom.value)
    case 'exists':
      return true
  }
}

function withinRange(value: Scalar, min: Bound | undefined, max: Bound | undefined): boolean {
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

/** Compares the place of a row in the sorted list with a border of a page. */
function compareToBorder(
  row: Row,
  border: readonly (Scalar | null)[],
  sort: readonly SortKey[],
): number {
  for (let at = 0; at < sort.length; at += 1) {
    const key = sort[at]!
    const order = comparePlaces(row[key.field], border[at] ?? null)
    if (order !== 0) return key.descending ? -order : order
  }
  return 0
}

/** A missing value comes after all others. */
function comparePlaces(value: unknown, border: Scalar | null): number {
  if (!isScalar(value)) return border === null ? 0 : 1
  return border === null ? -1 : compareScalars(value, border)
}

export function withinPage(row: Row, page: PageBound): boolean {
  if (page.after !== null && compareToBorder(row, page.after, page.sort) <= 0) return false
  return page.upTo === null || compareToBorder(row, page.upTo, page.sort) <= 0
}

/**
 * Whether the change can have changed the list (R12). A row that the writer did not record counts
 * as a match.
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
