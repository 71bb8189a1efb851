import type { ContentType, Field } from '#content/content-type.ts'
import { TypeInvalidError } from '#content/errors.ts'
import type { TypeChange } from '#content/model/type-plan.ts'
import { filterTextBytesMax } from '#content/query/normal-form.ts'
import { TypeStatements, typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** The claims of fields that become unique or stop being unique. */

const dropClaims = sql<object>(
  `delete from stoa.unique_value where type = $1 and field = any($2::text[])`,
)
const held = (table: string, place: string): string => `
  select ${place} as place, data ->> $1 as value, entry_id
  from ${table} where (is_latest or is_published) and data ->> $1 is not null`
const placeOf = `case when $2::boolean then locale else '*' end`
const makeClaims = typeSql<object>(
  (table) => `
  insert into stoa.unique_value (type, field, locale, value, entry_id)
  select distinct on (place, value) $3::text, $1::text, place, value, entry_id from (${held(table, placeOf)}) held
  order by place, value, entry_id
  on conflict do nothing`,
)
const duplicate = typeSql<{ count: number }>(
  (table) => `
  select count(distinct entry_id)::int as count from (${held(table, placeOf)}) held
  group by place, value having count(distinct entry_id) > 1 limit 1`,
)
const tooLong = typeSql<{ count: number }>(
  (table) => `
  select count(distinct entry_id)::int as count from ${table}
  where (is_latest or is_published) and octet_length(data ->> $1) > ${filterTextBytesMax}`,
)

/**
 * Every save waits behind this lock as long as it waits itself: for an index that is being built,
 * or a long import.
 */
const lockWaitMs = 2_000
const boundWait = sql<object>(`select set_config('lock_timeout', '${lockWaitMs}', true)`)
const unboundWait = sql<object>(`select set_config('lock_timeout', '0', true)`)
const lockVersions = typeSql<object>((table) => `lock table ${table} in share row exclusive mode`)

export type ClaimProblem = { readonly code: 'tooLong' | 'duplicate'; readonly message: string }

/** Why the field cannot be unique with the values that there are; null: it can. */
export async function claimProblem(
  db: Queryable,
  type: ContentType,
  field: Field,
): Promise<ClaimProblem | null> {
  const statements = new TypeStatements(type.name)
  const [long] = await db.run(statements.of(tooLong), [field.name])
  if (long !== undefined && long.count > 0)
    return {
      code: 'tooLong',
      message: `${long.count} entries have a value of more than ${filterTextBytesMax} bytes, which cannot be unique; shorten them first.`,
    }
  const [repeated] = await db.run(statements.of(duplicate), [field.name, field.localized === true])
  if (repeated === undefined) return null
  return {
    code: 'duplicate',
    message: `${repeated.count} entries have the same value; change them first.`,
  }
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
  if (change.unclaimed.length > 0) await tx.run(dropClaims, [type.name, change.unclaimed])
  for (const field of change.claims) {
    const problem = await claimProblem(tx, type, field)
    if (problem !== null) {
      const key = field.kind === 'slug' ? 'kind' : 'unique'
      throw new TypeInvalidError([
        { path: `/fields/${type.fields.indexOf(field)}/${key}`, ...problem },
      ])
    }
    await tx.run(statements.of(makeClaims), [field.name, field.localized === true, type.name])
  }
}
