import type { Bulk, BulkItem, BulkOutcome, BulkState } from '#content/bulk/bulk.ts'
import { inHalves, requireEverything } from '#content/bulk/halves.ts'
import { beginBatch, writeEdits } from '#content/versions/write-edits.ts'
import { reasonOf, saveItems } from '#content/bulk/save-items.ts'
import type { Call } from '#content/content.ts'
import { atomically, stampNow } from '#content/context.ts'
import type { Context } from '#content/context.ts'
import { typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'

const insertEntries = sql<{ id: string }>(`
  insert into stoa.entry (id, type, created_at, created_by)
  select id, $2::text, $3::timestamptz, $4::json from unnest($1::uuid[]) as wanted (id) order by id
  on conflict (id) do nothing returning id`)

/** The lock comes first, in a statement of its own, so that what is read after it holds. */
const lockEntries = sql<object>(
  `select 1 from stoa.entry where id = any($1::uuid[]) order by id for update`,
)

const releaseEntries = typeSql<{ id: string }>(
  (table) => `
  delete from stoa.entry e where e.id = any($1::uuid[]) and e.type = $2
    and not exists (select from ${table} v where v.entry_id = e.id)
    and not exists (select from stoa.reference r where r.target_id = e.id)
  returning e.id`,
)

const readStates = typeSql<{
  model: string
  id: string | null
  locale: string
  filter: string
  isPublished: boolean
  isArchived: boolean
}>(
  (table) => `
  with page as (
    select id from stoa.entry where type = $1 and ($2::uuid is null or id > $2) order by id limit $3
  )
  select m.revision as model, v.entry_id as id, v.locale, v.filter, v.is_archived as "isArchived",
    exists (select from ${table} p where p.entry_id = v.entry_id and p.locale = v.locale
      and p.is_published) as "isPublished"
  from stoa.model m left join (page join ${table} v on v.entry_id = page.id and v.is_latest) on true
  order by v.entry_id, v.locale`,
)

export function createBulk(context: Context): Bulk {
  return {
    reserve: async (call, type, ids) => {
      requireEverything(call, type)
      const by = JSON.stringify(call.authority.actor)
      return context.models.use(call.db, async (model) => {
        const rows = await call.db.run(insertEntries, [
          ids,
          model.type(type).definition.name,
          stampNow(context),
          by,
        ])
        return rows.map((row) => row.id)
      })
    },
    release: async (call, type, ids) => {
      requireEverything(call, type)
      return context.models.use(call.db, async (model) => {
        const { statements } = model.type(type)
        return atomically(call.db, async (tx) => {
          await tx.run(lockEntries, [ids])
          return (await tx.run(statements.of(releaseEntries), [ids, type])).map((row) => row.id)
        })
      })
    },
    save: async (call, type, items) => {
      requireEverything(call, type)
      return inHalves(
        items,
        (some) => saveTogether(context, call, type, some),
        (error) => ({ outcome: 'refused', reason: reasonOf(error) }),
      )
    },
    states: async (call, type, page) => {
      requireEverything(call, type)
      return states(context, call, type, page)
    },
  }
}

/** Saves a batch in one transaction; faults that can be seen beforehand are refused by item. */
async function saveTogether(
  context: Context,
  call: Call,
  typeName: string,
  items: readonly BulkItem[],
): Promise<BulkOutcome[]> {
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const type = model.type(typeName)
      await beginBatch(tx)
      const batch = { context, call: { db: tx, authority: call.authority }, model, type }
      const { outcomes, edits, empty } = await saveItems(batch, items)
      await writeEdits(tx, type, edits)
      if (empty.length > 0) await tx.run(type.statements.of(releaseEntries), [empty, typeName])
      return outcomes
    }),
  )
}

async function states(
  context: Context,
  call: Call,
  typeName: string,
  page: { readonly after: string | null; readonly limit: number },
): Promise<BulkState[]> {
  return context.models.use(call.db, async (model) => {
    const rows = await call.db.run(model.type(typeName).statements.of(readStates), [
      model.type(typeName).definition.name,
      page.after,
      page.limit,
    ])
    if (rows[0]?.model !== model.revision) await context.models.confirm(call.db, model)
    return rows.flatMap((row) =>
      row.id === null
        ? []
        : [
            {
              id: row.id,
              locale: row.locale,
              isPublished: row.isPublished,
              isArchived: row.isArchived,
              filterJson: row.filter,
            },
          ],
    )
  })
}
