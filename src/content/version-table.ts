import { createHash } from 'node:crypto'
import { sql } from '#database/database.ts'
import type { Statement } from '#database/database.ts'
import { compileNamed } from '#database/named.ts'

/** Longer names are cut and get a hash, since identifiers have at most 63 bytes. */
const nameLengthMax = 39
const cutLength = 31
const hashLength = 8

/** The name, in the schema `stoa`, of the partition of `stoa.version` for a type. */
export function versionTableName(type: string): string {
  if (type.length <= nameLengthMax) return `version:${type}`
  const hash = createHash('md5').update(type).digest('hex').slice(0, hashLength)
  return `version:${type.slice(0, cutLength)}-${hash}`
}

/** The ending of the name of every such table's primary key. */
export const versionKey = ':key'

/** The same as it stands in a statement. */
export function versionTable(type: string): string {
  return `stoa."${versionTableName(type).replaceAll('"', '""')}"`
}

const historyColumns = `entry_id, locale, number, type, data, filter,
  type_revision, filter_revision, created_at, created_by_id, saved_at, saved_by,
  published_at, published_by, first_published_at`

/** Every version of a type, held or not, in the place of a table: for statements that go by key. */
export function anyVersionOf(table: string): string {
  return `(select ${historyColumns}, is_latest, is_published, is_archived from ${table}
    union all select ${historyColumns}, false, false, false from stoa.version_history)`
}

/** The text of a statement about the versions of one type, given its table. */
export type TypeStatement<Row> = {
  readonly textFor: (table: string) => string
  /** Never set: it only carries the type. */
  readonly row?: Row
}

/**
 * A statement about the versions of one type. It names the table of the type, so that PostgreSQL
 * plans it once, and without looking at the tables and indexes of other types.
 */
export function typeSql<Row extends object>(
  textFor: (table: string) => string,
): TypeStatement<Row> {
  return { textFor }
}

export type NamedTypeStatement<Values, Row> = TypeStatement<Row> & {
  /** The values in the order of the statement. */
  readonly values: (values: Values) => unknown[]
}

/** The same where values have names: `:locale` stands for the value `locale`. */
export function namedTypeSql<Values extends object, Row extends object>(
  textFor: (table: string) => string,
): NamedTypeStatement<Values, Row> {
  const { names } = compileNamed(textFor('stoa.version'))
  return {
    textFor: (table) => compileNamed(textFor(table)).text,
    values: (values) => names.map((name) => values[name as keyof Values]),
  }
}

/** The statements of one type, each made once. */
export class TypeStatements {
  readonly #table: string
  readonly #made = new Map<TypeStatement<object>, Statement<object>>()

  constructor(type: string) {
    this.#table = versionTable(type)
  }

  of<Row extends object>(statement: TypeStatement<Row>): Statement<Row> {
    let made = this.#made.get(statement)
    if (made === undefined) {
      made = sql(statement.textFor(this.#table))
      this.#made.set(statement, made)
    }
    return made as Statement<Row>
  }
}
