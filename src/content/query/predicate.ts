import type { QueryField, QuerySchema, FilterData } from '#content/query/normal-form.ts'
import type { Filter, Sort, Test } from '#content/query/query.ts'
import type { Scalar } from '#lib/scalar.ts'
import { fieldOf } from '#content/query/filter-sql.ts'
import { completeSort } from '#content/query/sort.ts'
import { compareScalars } from '#lib/scalar.ts'

/**
 * One version of an entry as filters and sorts see it: system fields as in `EntryView`, `filter` as
 * the database keeps it. Two evaluators, this one and sql.ts, agree on every row; query.pg.test.ts
 * holds that.
 */
export type QueryRow = {
  readonly id: string
  readonly locale: string
  readonly version: number
  readonly status: string
  readonly createdAt: string
  readonly updatedAt: string
  readonly publishedAt: string | null
  readonly firstPublishedAt: string | null
  readonly createdBy: string | null
  readonly filter: FilterData
  /** The revision of the type that `filter` was made with. */
  readonly filterRevision: number
}

export type Predicate = (row: QueryRow) => boolean
export type Comparator = (a: QueryRow, b: QueryRow) => number

const jsTypes = {
  text: 'string',
  id: 'string',
  instant: 'string',
  number: 'number',
  boolean: 'boolean',
} as const

/**
 * The predicate of a filter whose values are in normal form and whose fields are in the schema: an
 * assertion otherwise.
 */
export function compilePredicate(filter: Filter | null, schema: QuerySchema): Predicate {
  if (filter === null) return () => true
  switch (filter.op) {
    case 'and': {
      const all = filter.filters.map((part) => compilePredicate(part, schema))
      return all.length === 1 ? all[0]! : (row) => all.every((part) => part(row))
    }
    case 'or': {
      const any = filter.filters.map((part) => compilePredicate(part, schema))
      return any.length === 1 ? any[0]! : (row) => any.some((part) => part(row))
    }
    case 'not': {
      const inner = compilePredicate(filter.filter, schema)
      return (row) => !inner(row)
    }
    case 'through':
      throw new Error('only the database evaluates a filter across a reference; no grant has one')
    case 'known':
      return (row) =>
        row.filterRevision >= filter.revision &&
        filter.fields.every((name) => row.filter[name] !== null)
    case 'compare': {
      const field = fieldOf(filter.field, schema)
      return field.many ? compileMany(field, filter.test) : compileOne(field, filter.test)
    }
  }
}

/** The order of a sort, ended by `id`: 0 only for rows with equal ids. */
export function compileComparator(sort: readonly Sort[], schema: QuerySchema): Comparator {
  const keys = completeSort(sort).map((key) => {
    const field = fieldOf(key.field, schema)
    const compare = key.descending
      ? (a: Scalar, b: Scalar) => -compareScalars(a, b)
      : compareScalars
    return { read: readerOf(field), compare, whenMissing: key.descending ? -1 : 1 }
  })
  return (a, b) => {
    for (const { read, compare, whenMissing } of keys) {
      const left = read(a)
      const right = read(b)
      if (left === right) continue
      if (left === undefined) return whenMissing
      if (right === undefined) return -whenMissing
      const order = compare(left, right)
      if (order !== 0) return order
    }
    return 0
  }
}

type Read = (row: QueryRow) => Scalar | undefined

/**
 * What is not of the field's type counts as missing: it can be there only while a change of the
 * type is being carried out.
 */
function readerOf(field: QueryField): Read {
  const { name } = field
  const expected = jsTypes[field.type]
  if (field.system) {
    const key = name as Exclude<keyof QueryRow, 'filter'>
    return (row) => row[key] ?? undefined
  }
  return (row) => {
    const value = row.filter[name]
    return typeof value === expected ? (value as Scalar) : undefined
  }
}

function compileOne(field: QueryField, test: Test): Predicate {
  const read = readerOf(field)
  switch (test.is) {
    case 'eq':
      return (row) => read(row) === test.value
    case 'ne':
      return (row) => read(row) !== test.value
    case 'in': {
      const values = new Set<Scalar | undefined>(test.values)
      return (row) => values.has(read(row))
    }
    case 'nin': {
      const values = new Set<Scalar | undefined>(test.values)
      return (row) => !values.has(read(row))
    }
    case 'lt':
      return ordered(read, test.value, (order) => order < 0)
    case 'lte':
      return ordered(read, test.value, (order) => order <= 0)
    case 'gt':
      return ordered(read, test.value, (order) => order > 0)
    case 'gte':
      return ordered(read, test.value, (order) => order >= 0)
    case 'contains':
      return (row) => (read(row) as string | undefined)?.includes(test.value) ?? false
    case 'startsWith':
      return (row) => (read(row) as string | undefined)?.startsWith(test.value) ?? false
    case 'exists':
      return (row) => (read(row) !== undefined) === test.value
  }
}

function ordered(read: Read, value: Scalar, holds: (order: number) => boolean): Predicate {
  return (row) => {
    const found = read(row)
    return found !== undefined && holds(compareScalars(found, value))
  }
}

function compileMany(field: QueryField, test: Test): Predicate {
  const read = (row: QueryRow): readonly Scalar[] => {
    const value = row.filter[field.name]
    return Array.isArray(value) ? (value as readonly Scalar[]) : []
  }
  switch (test.is) {
    case 'eq':
      return (row) => read(row).includes(test.value)
    case 'ne':
      return (row) => !read(row).includes(test.value)
    case 'in': {
      const values = new Set(test.values)
      return (row) => read(row).some((value) => values.has(value))
    }
    case 'nin': {
      const values = new Set(test.values)
      return (row) => !read(row).some((value) => values.has(value))
    }
    case 'exists':
      return (row) => read(row).length > 0 === test.value
    default:
      throw new Error(
        `${test.is} does not exist for fields with many values: queries are validated before ` +
          `they are compiled`,
      )
  }
}
