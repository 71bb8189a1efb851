import { setTimeout as wait } from 'node:timers/promises'
import type { TypeState } from '#content/content.ts'
import type { ModelStore, TypeModel } from '#content/model/model.ts'
import { UniqueConflictError, ValidationError } from '#content/errors.ts'
import { searchOf } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import { entryHeads, entryStates } from '#content/versions/entry-state.ts'
import { syncReferencesAndClaims } from '#content/versions/write-edits.ts'
import { upgradedFilter, upgradeKept } from '#content/versions/upgraded-filter.ts'
import { dropUnusedTables } from '#content/settling/unused-tables.ts'
import { applyIndexes } from '#content/query/index-plan.ts'
import { typeSql, versionTable } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable, Statement } from '#database/database.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * Carries out what a change of a type leaves to do: filters of versions in the new normal form,
 * references and claims of their entries, and indexes. All of it goes on beside reads and writes,
 * in small steps, on one node at a time, and any node can go on after a crash.
 * `content_type.settled_revision` says how far it is.
 */

const batchSize = 100
/**
 * The wait for transactions that were writing under the old definition. Longer ones are left to the
 * next run.
 */
const oldWritersWaitMs = 30_000
const pollMs = 100
/** Types changed while this runs are taken in the next round. */
const roundsMax = 10
const countMax = 10_000
/** "stot" in ASCII: the session lock of the one node that settles types. */
const lockKey = 0x73746f74

const tryLock = sql<{ locked: boolean }>(`select pg_try_advisory_lock($1) as locked`)
const unlock = sql<object>(`select pg_advisory_unlock($1)`)
type Unsettled = { readonly name: string; readonly revision: number }
const unsettled = sql<Unsettled>(
  `select name, revision from stoa.content_type where settled_revision < revision order by name`,
)
/**
 * SQL reads a value of a field's former kind as text, and the predicates of caches read it by its
 * kind. So responses that were kept since the change may depend on the wrong rows: where values
 * were narrowed, all of them are dropped.
 */
const markSettled = sql<object>(`
  with before as (
    select from stoa.content_type where name = $1 and revision = $2
      and shape_revision > greatest(settled_revision, 1)
  ), flushed as (
    insert into stoa.change (collection, operation) select 'version', 'flush' from before
  )
  update stoa.content_type set settled_revision = $2 where name = $1 and revision = $2`)
const horizon = sql<{ next: string; oldest: string }>(`
  select pg_snapshot_xmax(pg_current_snapshot())::text as next,
    pg_snapshot_xmin(pg_current_snapshot())::text as oldest`)

const waitingRows = typeSql<
  Pick<Version, 'locale' | 'number' | 'data' | 'typeRevision'> & { id: string }
>(
  (table) => `
  select entry_id as id, locale, number, data, type_revision as "typeRevision" from ${table}
  where (is_latest or is_published)
    and (filter_revision < $1 or search_revision < $5
      or $6 and search_number is distinct from number)
    and (entry_id, locale, number) > ($2, $3, $4)
  order by entry_id, locale, number limit ${batchSize}`,
)

const renew = typeSql<object>(
  (table) => `
  update ${table} v set filter = c.filter, filter_revision = $2,
    search = stoa.search_vector(v.locale, c.search), search_number = v.number, search_revision = $2
  from json_to_recordset($1::json)
    as c (id uuid, locale text, number integer, filter jsonb, search json)
  where v.entry_id = c.id and v.locale = c.locale and v.number = c.number
    and (v.filter_revision < $2 or v.search_revision < $2
      or v.search_number is distinct from v.number)`,
)

/** Versions in the history that a release shows. */
const pinnedRows = sql<
  Pick<Version, 'locale' | 'number' | 'data' | 'typeRevision'> & { id: string }
>(`
  select distinct on (h.entry_id, h.locale, h.number) h.entry_id as id, h.locale, h.number, h.data,
    h.type_revision as "typeRevision"
  from stoa.release_item i join stoa.version_history h on h.entry_id = i.entry_id
    and h.locale = i.locale and h.number = i.number
  where h.type = $1 and h.filter_revision < $2 and (h.entry_id, h.locale, h.number) > ($3, $4, $5)
  order by h.entry_id, h.locale, h.number limit ${batchSize}`)

/** References by fields that the type does not have any more. */
const dropReferences = sql<object>(`
  delete from stoa.reference r using stoa.entry e
    where e.id = r.entry_id and e.type = $1 and r.path <> all($2::text[])`)

type Stated = {
  readonly name: string
  readonly revision: number
  readonly settled: number
  readonly filterRevision: number
  readonly searchRevision: number
}
const states = sql<Stated>(`
  select name, revision, settled_revision as settled, filter_revision as "filterRevision",
    search_revision as "searchRevision"
  from stoa.content_type order by name`)
const countWaiting = (type: string): Statement<{ waiting: number }> => ({
  text: `select count(*)::int as waiting from (select from ${versionTable(type)} v
    where (is_latest or is_published) and (filter_revision < $1 or search_revision < $2)
    limit ${countMax}) w`,
  prepare: 'never',
})

const firstId = '00000000-0000-0000-0000-000000000000'

export class TypeUpgrade {
  readonly #models: ModelStore
  readonly #logger: Logger
  #running: Promise<void> | null = null
  #again = false
  #stopped = false

  constructor(models: ModelStore, logger: Logger) {
    this.#models = models
    this.#logger = logger
  }

  /** Begins in the background, once at a time; asked for meanwhile, it goes round again. */
  start(database: Database): void {
    this.#again = true
    this.#running ??= this.#loop(database).finally(() => {
      this.#running = null
    })
  }

  async #loop(database: Database): Promise<void> {
    while (this.#again && !this.#stopped) {
      this.#again = false
      try {
        await this.run(database)
      } catch (error) {
        // Nothing is lost: the next change, start or tick goes on from here.
        this.#logger.warn({ err: error }, 'settling changed types stopped; it will be tried again')
      }
    }
  }

  /** Ends after the step at hand. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#running
  }

  /**
   * Does what there is to do. Returns at once where another node is at it. Takes one connection at
   * a time, two while indexes are built.
   */
  async run(database: Database): Promise<void> {
    for (let round = 1; round <= roundsMax && !this.#stopped; round += 1) {
      const todo = await database.run(unsettled)
      const renewed =
        todo.length === 0
          ? []
          : await database.session((session) => this.#renewLocked(session, todo))
      if (renewed === null || (renewed.length === 0 && todo.length > 0) || this.#stopped) return
      // A type that was deleted leaves only indexes to drop.
      await this.#index(database)
      if (todo.length === 0) return
      for (const { name, revision } of renewed) {
        await database.run(markSettled, [name, revision])
        this.#logger.info({ type: name, revision }, 'settled a changed type')
      }
    }
  }

  /** The types whose filters are all renewed; null: another node has the lock. */
  async #renewLocked(
    session: Queryable,
    todo: readonly Unsettled[],
  ): Promise<readonly Unsettled[] | null> {
    const [lock] = await session.run(tryLock, [lockKey])
    if (lock?.locked !== true) return null
    try {
      const model = await this.#models.load(session)
      const renewed: Unsettled[] = []
      for (const one of todo) {
        const type = model.types.get(one.name)
        if (type === undefined || type.revision !== one.revision || this.#stopped) continue
        if (await this.#renewType(session, type)) renewed.push(one)
      }
      return renewed
    } finally {
      await session
        .run(unlock, [lockKey])
        .catch((error: unknown) =>
          this.#logger.debug({ err: error }, 'the lock ends with its connection'),
        )
    }
  }

  async #index(database: Database): Promise<void> {
    const definitions = async (): Promise<readonly TypeModel['definition'][]> =>
      [...(await this.#models.load(database)).types.values()].map((one) => one.definition)
    await applyIndexes(database, definitions, { logger: this.#logger })
    await dropUnusedTables(database, this.#logger)
  }

  /**
   * Renews the filters, then once more those of versions that were being written under the old
   * definition meanwhile. False: such a writer is still at it, or this was stopped.
   */
  async #renewType(session: Queryable, type: TypeModel): Promise<boolean> {
    const [begin] = await session.run(horizon)
    if (!(await this.#renewAll(session, type))) return false
    const deadline = performance.now() + oldWritersWaitMs
    for (;;) {
      const [now] = await session.run(horizon)
      if (begin !== undefined && now !== undefined && BigInt(now.oldest) >= BigInt(begin.next))
        break
      if (this.#stopped || performance.now() > deadline) return false
      // Without writes the horizon stands still; taking a transaction id of our own moves it.
      await session.run(takeId)
      await wait(pollMs)
    }
    if (!(await this.#renewAll(session, type))) return false
    await session.run(dropReferences, [type.definition.name, [...type.pointers.keys()]])
    return this.#renewPinned(session, type)
  }

  async #renewPinned(session: Queryable, type: TypeModel): Promise<boolean> {
    let place: [string, string, number] = [firstId, '', 0]
    while (!this.#stopped) {
      const rows = await session.run(pinnedRows, [
        type.definition.name,
        type.filterRevision,
        ...place,
      ])
      const last = rows.at(-1)
      if (last === undefined) return true
      for (const { id, ...row } of rows) await upgradeKept(session, type, id, row)
      place = [last.id, last.locale, last.number]
    }
    return false
  }

  async #renewAll(session: Queryable, type: TypeModel): Promise<boolean> {
    let place: [string, string, number] = [firstId, '', 0]
    while (!this.#stopped) {
      const rows = await session.run(type.statements.of(waitingRows), [
        type.filterRevision,
        ...place,
        type.searchRevision,
        type.searched.length > 0,
      ])
      const last = rows.at(-1)
      if (last === undefined) return true
      const filters = rows.map((row) => ({
        id: row.id,
        locale: row.locale,
        number: row.number,
        filter: this.#filter(type, row),
        search: parsed(searchOf(type, row)),
      }))
      await session.run(type.statements.of(renew), [JSON.stringify(filters), type.revision])
      await this.#sync(session, type, [...new Set(rows.map((row) => row.id))])
      place = [last.id, last.locale, last.number]
    }
    return false
  }

  #filter(
    type: TypeModel,
    row: Pick<Version, 'data' | 'typeRevision'> & { readonly id: string },
  ): object {
    return upgradedFilter(type, row, (field) =>
      this.#logger.warn(
        { type: type.definition.name, entry: row.id, field },
        'a text is too long for a filter, which will not find it',
      ),
    )
  }

  /**
   * Brings references and claims of these entries in line with the type. Where one of them cannot
   * be, each is done by itself, so that only that one stays behind.
   */
  async #sync(session: Queryable, type: TypeModel, ids: readonly string[]): Promise<void> {
    if (type.pointing.size === 0 && type.unique.length === 0) return
    try {
      await this.#models.use(session, (model) =>
        session.transaction(async (tx) => {
          const now = model.types.get(type.definition.name)
          if (now === undefined) return
          const revised = { revision: model.revision, type: now }
          const heads = await entryHeads(tx, ids, 'writing')
          const states = await entryStates(tx, revised, heads, 'writing')
          await syncReferencesAndClaims(tx, revised, states)
        }),
      )
    } catch (error) {
      if (!(error instanceof UniqueConflictError) && !(error instanceof ValidationError))
        throw error
      if (ids.length > 1) for (const id of ids) await this.#sync(session, type, [id])
      else this.#reportConflict(error, { type: type.definition.name, entry: ids[0] })
    }
  }

  #reportConflict(error: UniqueConflictError | ValidationError, at: object): void {
    this.#logger.error(
      { ...at, ...error.facts },
      error instanceof UniqueConflictError
        ? 'two entries have one value of a field that became unique; change one of them'
        : // A field was removed and added again; its former target could be deleted meanwhile.
          'an entry refers to a deleted target; save it without that reference',
    )
  }

  async states(db: Queryable): Promise<TypeState[]> {
    const rows = await db.run(states)
    const found: TypeState[] = []
    for (const { name, revision, settled, filterRevision, searchRevision } of rows) {
      const isSettled = settled >= revision
      const [count] = isSettled
        ? []
        : await db.run(countWaiting(name), [filterRevision, searchRevision])
      found.push({ name, revision, settled: isSettled, versionsWaiting: count?.waiting ?? 0 })
    }
    return found
  }
}

function parsed(json: string | null): unknown {
  return json === null ? null : JSON.parse(json)
}

const takeId = sql<object>(`select pg_current_xact_id()`)
