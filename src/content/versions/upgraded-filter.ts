import type { Version } from '#content/versions/version.ts'
import { storedFields } from '#content/versions/version.ts'
import type { TypeModel } from '#content/model/model.ts'
import { FilterValueTooLongError } from '#content/query/errors.ts'
import { filterOf } from '#content/query/normal-form.ts'
import type { FilterData } from '#content/query/normal-form.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/**
 * The filter of a version by the type as it is now, made from its data. A text that was there
 * before its field became filterable may be too long for an index: it stays in the data, its filter
 * says that there is a value which filters cannot see, and `unseen` is called.
 */
export function upgradedFilter(
  type: TypeModel,
  row: Pick<Version, 'data' | 'typeRevision'>,
  unseen?: (field: string) => void,
): FilterData {
  return filterOfFields(type, storedFields(type, row), unseen)
}

/**
 * The filter of these fields. A text that is too long for an index may have been there before its
 * field became filterable: then there is a value, which filters cannot see.
 */
export function filterOfFields(
  type: TypeModel,
  values: Readonly<Record<string, unknown>>,
  unseen?: (field: string) => void,
): FilterData {
  const fields: Record<string, unknown> = { ...values }
  const hidden: Record<string, null> = {}
  for (;;) {
    try {
      return { ...filterOf(type.definition, fields), ...hidden }
    } catch (error) {
      const field = error instanceof FilterValueTooLongError ? error.facts['field'] : undefined
      if (typeof field !== 'string') throw error
      unseen?.(field)
      delete fields[field]
      hidden[field] = null
    }
  }
}

/**
 * The filter of a version, made anew where the type's fields changed since the one it has was made.
 */
export function currentFilter(
  type: TypeModel,
  row: Pick<Version, 'data' | 'typeRevision' | 'filter' | 'filterRevision'>,
): FilterData {
  return row.filterRevision < type.filterRevision
    ? upgradedFilter(type, row)
    : (JSON.parse(row.filter) as FilterData)
}

const changeKept = sql<object>(`
  update stoa.version_history set filter = $4, filter_revision = $5
    where entry_id = $1 and locale = $2 and number = $3 and filter_revision < $5`)

/**
 * Renews the filter of a version in the history, for a release that shows it. One that is held is
 * renewed while its type settles.
 */
export async function upgradeKept(
  tx: Queryable,
  type: TypeModel,
  id: string,
  row: Pick<Version, 'locale' | 'number' | 'data' | 'typeRevision'>,
): Promise<void> {
  await tx.run(changeKept, [
    id,
    row.locale,
    row.number,
    JSON.stringify(upgradedFilter(type, row)),
    type.revision,
  ])
}
