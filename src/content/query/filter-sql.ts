import { expressionOf, literal, parameterOf, parameterType } from '#content/query/expression.ts'
import type { Sight, Values } from '#content/query/expression.ts'
import type { QueryField, QuerySchema } from '#content/query/normal-form.ts'
import type { Filter, FilterTarget, Sort, Test } from '#content/query/query.ts'
import type { Scalar } from '#lib/scalar.ts'
import { completeSort } from '#content/query/sort.ts'
import type { Position } from '#content/query/cursor.ts'

/**
 * What the parts of a statement need to know. `nullable` says of a field whether it can be missing
 * in this perspective.
 */
export type SqlContext = {
  readonly schema: QuerySchema
  readonly values: Values
  /** The row that conditions are on. */
  readonly row: 'v.' | 'w.'
  readonly sight: Sight
  readonly nullable: (field: QueryField) => boolean
  /** A select of the ids, as text, of the entries that a filter across a reference finds. */
  readonly idsOf: (target: FilterTarget) => string
}

/**
 * The condition of a filter on the row of the context. Where the filter is false it is FALSE or
 * NULL, and `where`, `and` and `or` take those for the same; only `not` must distinguish them, and
 * does so with `is not true`. So comparisons stay bare, as indexes need them, and the logic is
 * two-valued all the same.
 */
export function conditionOf(filter: Filter, context: SqlContext): string {
  switch (filter.op) {
    case 'and':
    case 'or': {
      if (filter.filters.length === 0) return filter.op === 'and' ? 'true' : 'false'
      const parts = filter.filters.map((part) => conditionOf(part, context))
      return parts.length === 1 ? parts[0]! : `(${parts.join(` ${filter.op} `)})`
    }
    case 'not':
      return `(${conditionOf(filter.filter, context)} is not true)`
    case 'through': {
      const field = fieldOf(filter.field, context.schema)
      const x = expressionOf(field, context.row, context.sight)
      const ids = filter.targets.map((target) => context.idsOf(target)).join(' union all ')
      return field.many
        ? `exists (select from (${ids}) as target (id) where ${x} @> jsonb_build_array(target.id))`
        : `${x} in (${ids})`
    }
    case 'known': {
      const unseen = filter.fields.map(
        (name) => `(${context.row}filter -> ${literal(name)}) is distinct from 'null'::jsonb`,
      )
      const wanted = `${context.values.add(filter.revision)}::int`
      const revision = `${context.row}filter_revision >= ${wanted}`
      return `(${[revision, ...unseen].join(' and ')})`
    }
    case 'compare': {
      const field = fieldOf(filter.field, context.schema)
      return field.many
        ? testMany(field, filter.test, context)
        : testOne(field, filter.test, context)
    }
  }
}

/**
 * The entries after a position in a sort (keyset paging), as conditions that no two of which hold
 * for one row: each is one range of an index. It is a row comparison where it can be, and otherwise
 * begins with a bound on the first key.
 */
export function afterConditions(
  sort: readonly Sort[],
  position: Position,
  context: SqlContext,
): string[] {
  const keys = completeSort(sort).map((key, i) => {
    const field = fieldOf(key.field, context.schema)
    return {
      x: expressionOf(field, context.row, context.sight),
      field,
      descending: key.descending,
      value: position[i] ?? null,
      nullable: context.nullable(field),
    }
  })
  const [first, ...rest] = keys as [Key, ...Key[]]
  if (first.value === null) return [afterKey(keys, 0, context)]
  // Ascending, the missing values of the first key come after all others: a range of their own, so
  // that the first ends before it.
  const missing = !first.descending && first.nullable ? [`${first.x} is null`] : []
  const present = keys.every((key) => key.value !== null)
  // Descending, a missing value comes before all others, so it is never after one: there NULL,
  // which counts as false, is right.
  if (present && keys.every((key) => key.descending)) return [rowComparison('<', keys, context)]
  if (present && !first.descending && rest.every((key) => !key.descending && !key.nullable))
    return [rowComparison('>', keys, context), ...missing]
  const bound =
    `${first.x} ${first.descending ? '<=' : '>='} ` + parameter(first.field, first.value, context)
  return [
    `(${bound} and ${afterKey([{ ...first, nullable: false }, ...rest], 0, context)})`,
    ...missing,
  ]
}

/**
 * `order by` of a sort, on the expressions that indexes hold. PostgreSQL's own place for NULL is
 * that of missing values.
 */
export function orderOf(sort: readonly Sort[], context: SqlContext): string {
  return completeSort(sort)
    .map(
      (key) =>
        expressionOf(fieldOf(key.field, context.schema), context.row, context.sight) +
        directionOf(key),
    )
    .join(', ')
}

function directionOf({ descending }: Sort): string {
  return descending ? ' desc' : ''
}

export function fieldOf(name: string, schema: QuerySchema): QueryField {
  const field = schema.get(name)
  if (field === undefined)
    throw new Error(
      `the field ${name} is not in the schema: queries are validated before they are compiled`,
    )
  return field
}

type Key = {
  readonly x: string
  readonly field: QueryField
  readonly descending: boolean
  readonly value: Scalar | null
  readonly nullable: boolean
}

function rowComparison(operator: '<' | '>', keys: readonly Key[], context: SqlContext): string {
  const left = keys.map((key) => key.x).join(', ')
  const right = keys.map((key) => parameter(key.field, key.value!, context)).join(', ')
  return keys.length === 1 ? `${left} ${operator} ${right}` : `(${left}) ${operator} (${right})`
}

function afterKey(keys: readonly Key[], i: number, context: SqlContext): string {
  const key = keys[i]!
  const strictly = strictlyAfter(key, context)
  if (i === keys.length - 1) return strictly ?? 'false'
  const same =
    key.value === null
      ? `${key.x} is null`
      : `${key.x} = ${parameter(key.field, key.value, context)}`
  const tied = `(${same} and ${afterKey(keys, i + 1, context)})`
  return strictly === null ? tied : `(${strictly} or ${tied})`
}

/** Null: nothing comes after it. */
function strictlyAfter(key: Key, context: SqlContext): string | null {
  if (key.value === null) return key.descending ? `${key.x} is not null` : null
  const place = parameter(key.field, key.value, context)
  if (key.descending) return `${key.x} < ${place}`
  return key.nullable ? `(${key.x} > ${place} or ${key.x} is null)` : `${key.x} > ${place}`
}

function parameter(field: QueryField, value: Scalar, { values }: SqlContext): string {
  return `${values.add(parameterOf(field, value))}::${parameterType(field)}`
}

const orderOperators = { lt: '<', lte: '<=', gt: '>', gte: '>=' } as const

function testOne(field: QueryField, test: Test, context: SqlContext): string {
  const x = expressionOf(field, context.row, context.sight)
  switch (test.is) {
    case 'eq':
      return `${x} = ${parameter(field, test.value, context)}`
    case 'ne':
      return `((${x} = ${parameter(field, test.value, context)}) is not true)`
    case 'in':
    case 'nin': {
      const list = context.values.add(test.values.map((value) => parameterOf(field, value)))
      const condition = `${x} = any(${list}::${parameterType(field)}[])`
      return test.is === 'in' ? condition : `((${condition}) is not true)`
    }
    case 'lt':
    case 'lte':
    case 'gt':
    case 'gte':
      return `${x} ${orderOperators[test.is]} ${parameter(field, test.value, context)}`
    case 'contains':
      return `strpos(${x}, ${parameter(field, test.value, context)}) > 0`
    case 'startsWith': {
      const from = `${x} >= ${parameter(field, test.value, context)}`
      const end = endOfPrefix(test.value)
      return end === null ? from : `(${from} and ${x} < ${parameter(field, end, context)})`
    }
    case 'exists':
      return `(${x} is ${test.value ? 'not null' : 'null'})`
  }
}

function testMany(field: QueryField, test: Test, context: SqlContext): string {
  const x = expressionOf(field, context.row, context.sight)
  switch (test.is) {
    case 'eq':
    case 'ne': {
      const condition = `${x} @> ${context.values.add(JSON.stringify([test.value]))}::jsonb`
      return test.is === 'eq' ? condition : `((${condition}) is not true)`
    }
    case 'in':
    case 'nin': {
      const list = context.values.add(test.values.map((value) => JSON.stringify([value])))
      const condition = `${x} @> any(${list}::jsonb[])`
      return test.is === 'in' ? condition : `((${condition}) is not true)`
    }
    case 'exists':
      // An empty list is kept as a missing value.
      return `((jsonb_typeof(${x}) = 'array') is ${test.value ? 'true' : 'not true'})`
    default:
      throw new Error(
        `${test.is} does not exist for fields with many values: queries are validated before ` +
          `they are compiled`,
      )
  }
}

const codePointMax = 0x10ffff

/**
 * The least text above every text that begins with the prefix, in the order of code points; null:
 * there is none.
 */
export function endOfPrefix(prefix: string): string | null {
  const points = Array.from(prefix, (character) => character.codePointAt(0)!)
  while (points.at(-1) === codePointMax) points.pop()
  const last = points.pop()
  if (last === undefined) return null
  // The surrogates U+D800 to U+DFFF are no characters.
  return String.fromCodePoint(...points, last === 0xd7ff ? 0xe000 : last + 1)
}
