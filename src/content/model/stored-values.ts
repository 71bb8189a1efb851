import type { ContentType, Field } from '#content/content-type.ts'
import type { TypeModel } from '#content/model/model.ts'
import { modelOfType } from '#content/model/model.ts'
import { isEmpty } from '#content/validation/empty.ts'
import type { Target } from '#content/validation/target.ts'
import { typeSql } from '#content/version-table.ts'
import { storedFields } from '#content/versions/version.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** The values of held versions, looked at under a definition that is to come. */

/** Versions looked at in one statement. */
const batchSize = 500
/** Counting stops here. */
export const countMax = 1_000

type Row = {
  readonly id: string
  readonly locale: string
  readonly number: number
  readonly data: string
  readonly typeRevision: number
}

const heldData = typeSql<Row>(
  (table) => `
  select entry_id as id, locale, number, data, type_revision as "typeRevision" from ${table}
  where (is_latest or is_published) and (entry_id, locale, number) > ($1, $2, $3)
  order by entry_id, locale, number limit ${batchSize}`,
)
const typesOf = sql<{ id: string; type: string }>(
  `select id, type from stoa.entry where id = any($1::uuid[])`,
)

/** Numbers of versions by the name of a field. */
class Counts extends Map<string, number> {
  add(name: string): void {
    this.set(name, (this.get(name) ?? 0) + 1)
  }

  enough(names: readonly string[]): boolean {
    return names.every((name) => (this.get(name) ?? 0) > countMax)
  }
}

/** Calls `look` with a batch of versions, until it returns true or none is left. */
async function eachBatch(
  db: Queryable,
  type: TypeModel,
  look: (batch: readonly Row[]) => boolean | Promise<boolean>,
): Promise<void> {
  let place: [string, string, number] = ['00000000-0000-0000-0000-000000000000', '', 0]
  for (;;) {
    const rows = await db.run(type.statements.of(heldData), place)
    const last = rows.at(-1)
    const done = await look(rows)
    if (done || last === undefined || rows.length < batchSize) return
    place = [last.id, last.locale, last.number]
  }
}

/** How many versions have a value that they lose when the type becomes `after`, by field. */
export async function lostValues(
  db: Queryable,
  before: TypeModel,
  after: TypeModel,
  names: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const lost = new Counts()
  if (names.length === 0) return lost
  await eachBatch(db, before, (batch) => {
    for (const row of batch) {
      const [stored, kept] = [storedFields(before, row), storedFields(after, row)]
      for (const name of names) {
        if (stored[name] === undefined) continue
        if (JSON.stringify(kept[name]) !== JSON.stringify(stored[name])) lost.add(name)
      }
    }
    return lost.enough(names)
  })
  return lost
}

/** The number of versions that the new definition will refuse, by field. */
export type Refused = {
  readonly values: ReadonlyMap<string, number>
  readonly missing: ReadonlyMap<string, number>
}

/**
 * How many versions have a value of these fields that cannot be saved again under the new
 * definition, and how many lack one without which they cannot be published.
 */
export async function refusedValues(
  db: Queryable,
  before: TypeModel,
  next: ContentType,
  fields: readonly Field[],
): Promise<Refused> {
  const [values, missing] = [new Counts(), new Counts()]
  const names = fields.map((field) => field.name)
  if (fields.length === 0) return { values, missing }
  const { validator } = modelOfType(next, { revision: 0, shape_revision: 0, filter_revision: 0 })
  const required = fields.filter((field) => field.required === true)
  await eachBatch(db, before, async (batch) => {
    const pending: { readonly name: string; readonly targets: readonly Target[] }[] = []
    for (const row of batch) {
      const stored = storedFields(before, row)
      for (const { name } of fields) {
        if (stored[name] === undefined) continue
        const { faults, targets } = validator.validate({ [name]: stored[name] }, drafts)
        if (faults.length > 0) values.add(name)
        else pending.push({ name, targets: targets.filter((target) => target.types !== null) })
      }
      for (const field of required) if (isEmpty(field, stored[field.name])) missing.add(field.name)
    }
    for (const name of await namesOfWrongTargets(db, pending)) values.add(name)
    return values.enough(names) && missing.enough(required.map((field) => field.name))
  })
  return { values, missing }
}

const drafts = { publishing: false } as const

async function namesOfWrongTargets(
  db: Queryable,
  pending: readonly { readonly name: string; readonly targets: readonly Target[] }[],
): Promise<string[]> {
  const ids = [...new Set(pending.flatMap(({ targets }) => targets.map((target) => target.id)))]
  if (ids.length === 0) return []
  const types = new Map((await db.run(typesOf, [ids])).map((row) => [row.id, row.type]))
  return pending
    .filter(({ targets }) =>
      targets.some(({ id, types: allowed }) => allowed?.includes(types.get(id) ?? '') === false),
    )
    .map(({ name }) => name)
}
