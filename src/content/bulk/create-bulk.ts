import type { Bulk, BulkItem, BulkOutcome, BulkState } from '#content/bulk/bulk.ts'
import { beginBatch, writeEdits } from '#content/versions/write-edits.ts'
import { reasonOf, saveItems } from '#content/bulk/save-items.ts'
import type { Call } from '#content/content.ts'
import { ForbiddenError } from '#content/errors.ts'
import { atomically, stampNow } from '#content/context.ts'
import type { Context } from '#content/context.ts'
import { RecentSaves } from '#content/entries/recent-saves.ts'
import { ModelStore } from '#content/model/model.ts'
import { typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'

const insertEntries = sql<{ id: string }>(`
  insert into stoa.entry (id, type, created_at, created_by)
  select id, $2::text, $3::timestamptz, $4::json from unnest($1::uuid[]) as wanted (id) order by id
  on conflict (id) do nothing returning id`)

/** First, in a statement of its own: what is looked at after that is what holds. */
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
    exists (select from ${table} p where p.entry_id = v.entry_id and p.locale = v.locale and p.is_published) as "isPublished"
  from stoa.model m left join (page join ${table} v on v.entry_id = page.id and v.is_latest) on true
  order by v.entry_id, v.locale`,
)

export function createBulk(options: { readonly clock: Clock; readonly logger: Logger }): Bulk {
  const context: Context = {
    models: new ModelStore(),
    recent: new RecentSaves(),
    clock: options.clock,
    logger: options.logger.child({ part: 'content' }),
  }
  return {
    reserve: async (call, type, ids) => {
      demandEverything(call, type)
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
      demandEverything(call, type)
      return context.models.use(call.db, async (model) => {
        const { statements } = model.type(type)
        return atomically(call.db, async (tx) => {
          await tx.run(lockEntries, [ids])
          return (await tx.run(statements.of(releaseEntries), [ids, type])).map((row) => row.id)
        })
      })
    },
    save: async (call, type, items) => {
      demandEverything(call, type)
      return saveOrSplit(context, call, type, items)
    },
    states: async (call, type, page) => {
      demandEverything(call, type)
      return states(context, call, type, page)
    },
  }
}

function demandEverything(call: Call, type: string): void {
  for (const action of ['create', 'update', 'publish', 'readDraft'] as const) {
    const grant = call.authority.grant(action, type)
    if (grant === null || grant.filter !== null || grant.fields !== null)
      throw new ForbiddenError(
        'Only somebody who may do everything with a type can save it by the batch.',
        { type },
      )
  }
}

/**
 * What can be seen beforehand is refused item by item. What shows only later (a unique value that
 * another entry took, another locale that would become too large) fails the batch; its halves are
 * tried again, until the one item that is to blame is alone.
 */
async function saveOrSplit(
  context: Context,
  call: Call,
  type: string,
  items: readonly BulkItem[],
): Promise<BulkOutcome[]> {
  if (items.length === 0) return []
  try {
    return await context.models.use(call.db, (model) =>
      atomically(call.db, async (tx) => {
        await beginBatch(tx)
        const { outcomes, edits, empty } = await saveItems(
          context,
          { db: tx, authority: call.authority },
          model,
          type,
          items,
        )
        await writeEdits(tx, model.type(type), edits)
        if (empty.length > 0)
          await tx.run(model.type(type).statements.of(releaseEntries), [empty, type])
        return outcomes
      }),
    )
  } catch (error) {
    const isContent =
      error instanceof StoaError &&
      (error instanceof ConstraintError || !error.code.startsWith('E_DATABASE_'))
    if (!isContent) throw error
    if (items.length === 1) return [{ outcome: 'refused', reason: reasonOf(error) }]
    const middle = Math.ceil(items.length / 2)
    const first = await saveOrSplit(context, call, type, items.slice(0, middle))
    return [...first, ...(await saveOrSplit(context, call, type, items.slice(middle)))]
  }
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
