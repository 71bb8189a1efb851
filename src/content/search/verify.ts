import type { Context } from '#content/context.ts'
import type { TypeModel } from '#content/model/model.ts'
import type { VerifyOptions, WordsReport } from '#content/search/search.ts'
import { typeSql } from '#content/version-table.ts'
import { searchOf } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import type { Queryable } from '#database/database.ts'

/**
 * Compares the words of held versions with their content, and makes them anew where they differ: a
 * write that does not know of search leaves such rows, and so does a new major version of
 * PostgreSQL with other stemmers.
 */

const batchSize = 200
const firstId = '00000000-0000-0000-0000-000000000000'

type Row = Pick<Version, 'locale' | 'number' | 'data' | 'typeRevision'> & { readonly id: string }

const heldRows = typeSql<Row>(
  (table) => `
  select entry_id as id, locale, number, data, type_revision as "typeRevision" from ${table}
  where (is_latest or is_published) and (entry_id, locale, number) > ($1, $2, $3)
  order by entry_id, locale, number limit ${batchSize}`,
)

const wrongOf = (table: string): string => `
  wrong as (
    select v.entry_id, v.locale, v.number, stoa.search_vector(v.locale, c.search) as search
    from ${table} v
      join json_to_recordset($1::json) as c (id uuid, locale text, number integer, search json)
        on v.entry_id = c.id and v.locale = c.locale and v.number = c.number
    where v.search_revision <= $2 and (v.search_number is distinct from v.number
      or v.search_revision < $3
      or v.search is distinct from stoa.search_vector(v.locale, c.search))
  )`

const countWrong = typeSql<{ wrong: number }>(
  (table) => `with ${wrongOf(table)} select count(*)::int as wrong from wrong, (select $2::int) r`,
)

/** A type that changed meanwhile has a higher revision by then, and is left to its settling. */
const repairWrong = typeSql<{ wrong: number }>(
  (table) => `
  with ${wrongOf(table)}, repaired as (
    update ${table} v set search = w.search, search_number = v.number, search_revision = $2
    from wrong w
    where v.entry_id = w.entry_id and v.locale = w.locale and v.number = w.number
      and v.search_revision <= $2
    returning 1
  )
  select count(*)::int as wrong from repaired`,
)

/** See `Search.verify`. */
export async function verifyWords(
  context: Context,
  db: Queryable,
  { repair, signal, onProgress }: VerifyOptions,
): Promise<WordsReport> {
  const model = await context.models.load(db)
  const types = [...model.types.values()].filter((type) => type.searched.length > 0)
  const report = { checked: 0, wrong: 0, wrongByType: {} as Record<string, number> }
  for (const type of types) {
    let place: [string, string, number] | null = [firstId, '', 0]
    while (place !== null && !signal.aborted) {
      const batch = await verifyBatch(db, type, place, repair)
      report.checked += batch.checked
      report.wrong += batch.wrong
      const { name } = type.definition
      if (batch.wrong > 0) report.wrongByType[name] = (report.wrongByType[name] ?? 0) + batch.wrong
      onProgress(report.checked)
      place = batch.next
    }
  }
  return report
}

type Batch = {
  readonly checked: number
  readonly wrong: number
  readonly next: [string, string, number] | null
}

async function verifyBatch(
  db: Queryable,
  type: TypeModel,
  place: [string, string, number],
  repair: boolean,
): Promise<Batch> {
  const rows = await db.run(type.statements.of(heldRows), place)
  const last = rows.at(-1)
  if (last === undefined) return { checked: 0, wrong: 0, next: null }
  const texts = rows.map((row) => {
    const { id, locale, number } = row
    return { id, locale, number, search: JSON.parse(searchOf(type, row) ?? 'null') as unknown }
  })
  const statement = type.statements.of(repair ? repairWrong : countWrong)
  const values = [JSON.stringify(texts), type.revision, type.searchRevision]
  const [found] = await db.run(statement, values)
  return {
    checked: rows.length,
    wrong: found?.wrong ?? 0,
    next: [last.id, last.locale, last.number],
  }
}
