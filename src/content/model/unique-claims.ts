import type { ContentType, Field } from '#content/content-type.ts'
import { TypeInvalidError } from '#content/errors.ts'
import type { TypeChange } from '#content/model/type-plan.ts'
import { filterTextBytesMax } from '#content/query/normal-form.ts'
import { TypeStatements, typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** The claims of fields that become unique or stop being unique. */

const perspectives = [
  { claims: 'stoa.unique_draft_value', shown: 'is_latest' },
  { claims: 'stoa.unique_value', shown: 'is_published' },
] as const
type Perspective = (typeof perspectives)[number]

const dropClaims = perspectives.map(({ claims }) =>
  sql<object>(`delete from ${claims} where type = $1 and field = any($2::text[])`),
)
/** `$3`: versions from before have a value of another field, which had the same name. */
const held = (table: string, { shown }: Perspective): string => `
  select case when $2::boolean then locale else '*' end as place, data ->> $1 as value, entry_id
  from ${table} where ${shown} and data ->> $1 is not null and type_revision >= $3::int`
const makeClaims = perspectives.map((perspective) =>
  typeSql<object>(
    (table) => `
  insert into ${perspective.claims} (type, field, locale, value, entry_id)
  select distinct on (place, value) $4::text, $1::text, place, value, entry_id
    from (${held(table, perspective)}) held
  order by place, value, entry_id
  on conflict do nothing`,
  ),
)
const duplicate = perspectives.map((perspective) =>
  typeSql<{ count: number }>(
    (table) => `
  select count(distinct entry_id)::int as count from (${held(table, perspective)}) held
  group by place, value having count(distinct entry_id) > 1 limit 1`,
  ),
)
const tooLong = typeSql<{ count: number }>(
  (table) => `
  select count(distinct entry_id)::int as count from ${table}
  where (is_latest or is_published) and octet_length(data ->> $1) > ${filterTextBytesMax}
    and type_revision >= $2::int`,
)

/**
 * Every save waits behind this lock as long as it waits itself: for an index that is being built,
 * or a long import.
 */
const lockWaitMs = 2_000
const boundWait = sql<object>(`select set_config('lock_timeout', '${lockWaitMs}', true)`)
const unboundWait = sql<object>(`select set_config('lock_timeout', '0', true)`)
const lockVersions = typeSql<object>((table) => `lock table ${table} in share row exclusive mode`)

/** A field whose values are claimed, and the revision that last removed a field of its name. */
export type ClaimedField = { readonly field: Field; readonly since: number }

export type ClaimProblem = { readonly code: 'tooLong' | 'duplicate'; readonly message: string }

/** Returns why the existing values keep the field from being unique, or null if they do not. */
export async function claimProblem(
  db: Queryable,
  type: ContentType,
  { field, since }: ClaimedField,
): Promise<ClaimProblem | null> {
  const statements = new TypeStatements(type.name)
  const [long] = await db.run(statements.of(tooLong), [field.name, since])
  if (long !== undefined && long.count > 0)
    return {
      code: 'tooLong',
      message:
        `${long.count} entries have a value of more than ${filterTextBytesMax} bytes, ` +
        'which cannot be unique; shorten them first.',
    }
  for (const statement of duplicate) {
    const place = [field.name, field.localized === true, since]
    const [repeated] = await db.run(statements.of(statement), place)
    if (repeated !== undefined)
      return {
        code: 'duplicate',
        message: `${repeated.count} entries have the same value; change them first.`,
      }
  }
  return null
}

/**
 * Makes the claims of fields that became unique, in the transaction that changes the type: from its
 * end on, no second entry can take a value. No version is written meanwhile: one that was being
 * saved before is seen, and one that comes after finds that the model has changed. Throws
 * `TypeInvalidError`.
 */
export async function changeClaims(
  tx: Queryable,
  type: ContentType,
  change: Pick<TypeChange, 'claims' | 'unclaimed'>,
): Promise<void> {
  const statements = new TypeStatements(type.name)
  if (change.claims.length > 0) {
    await tx.run(boundWait)
    await tx.run(statements.of(lockVersions))
    await tx.run(unboundWait)
  }
  if (change.unclaimed.length > 0)
    for (const statement of dropClaims) await tx.run(statement, [type.name, change.unclaimed])
  for (const claimed of change.claims) {
    const { field, since } = claimed
    const problem = await claimProblem(tx, type, claimed)
    if (problem !== null) {
      const key = field.kind === 'slug' ? 'kind' : 'unique'
      throw new TypeInvalidError([
        { path: `/fields/${type.fields.indexOf(field)}/${key}`, ...problem },
      ])
    }
    const place = [field.name, field.localized === true, since]
    for (const statement of makeClaims)
      await tx.run(statements.of(statement), [...place, type.name])
  }
}
