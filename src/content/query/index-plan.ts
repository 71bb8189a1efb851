import { createHash } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import type { ContentType } from '#content/content-type.ts'
import { expressionOf } from '#content/query/expression.ts'
import { searchedFields } from '#content/search/searched-fields.ts'
import { querySchema } from '#content/query/normal-form.ts'
import type { QueryField } from '#content/query/normal-form.ts'
import { versionTable } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable, Statement } from '#database/database.ts'
import { DatabaseTimeoutError } from '#database/errors.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * The indexes of the filterable fields, on the table of their type. Each is partial: of the
 * published versions or of the latest ones. They are built and dropped `concurrently`, which never
 * blocks a write, by one node at a time.
 */

/** "stoi" in ASCII: the session lock of the one node that works on indexes. */
const lockKey = 0x73746f69
/**
 * How often a node that waits for another asks again. It must not wait inside a statement:
 * `concurrently` waits for those.
 */
const lockPollMs = 200
const lockWaitMs = 3_600_000
/** One index of a very large type takes minutes; an hour means that something else is wrong. */
const buildMs = 3_600_000
/** Every index of ours begins so; no other does. */
const namePrefix = 'version_x_'

export type PlannedIndex = { readonly type: string; readonly name: string; readonly text: string }

/**
 * The indexes that a type needs, each once, in the order in which they help most. Equal definitions
 * have equal names.
 */
export function planIndexes(type: ContentType): readonly PlannedIndex[] {
  const schema = querySchema(type)
  const planned = new Map<string, PlannedIndex>()
  const add = (column: string, hint: string, using: string, columns: string): void => {
    const definition = `on ${versionTable(type.name)} using ${using} (${columns}) where ${column}`
    const name = nameOf(
      `${type.name}_${hint}_${column === 'is_published' ? 'published' : 'latest'}`,
      definition,
    )
    // An index that a type asks for may be the one that its field has anyway.
    if (!planned.has(definition))
      planned.set(definition, {
        type: type.name,
        name,
        text: `create index concurrently if not exists ${name} ${definition}`,
      })
  }
  const views = [
    { column: 'is_published', newest: 'publishedAt' },
    { column: 'is_latest', newest: 'updatedAt' },
  ]
  for (const { column, newest } of views) {
    if (searchedFields(type).length > 0) add(column, 'search', 'gin', 'search')
    for (const field of schema.values()) {
      if (field.system) continue
      if (field.many) add(column, field.name, 'gin', `${expressionOf(field, '')} jsonb_path_ops`)
      else add(column, field.name, 'btree', columnsOf([field.name, `-${newest}`], schema))
    }
    for (const index of type.indexes ?? [])
      add(
        column,
        index.map((key) => key.replace('-', '')).join('_'),
        'btree',
        columnsOf(index, schema),
      )
  }
  return [...planned.values()]
}

/**
 * The columns of a B-tree: the locale, which every query names; the keys; and the id that ends
 * every sort.
 */
function columnsOf(keys: readonly string[], schema: ReadonlyMap<string, QueryField>): string {
  const columns = keys.map((key) => {
    const descending = key.startsWith('-')
    const field = schema.get(descending ? key.slice(1) : key)
    if (field === undefined || field.many)
      throw new Error(`an index by ${key}: types are checked before they are saved`)
    return `${expressionOf(field, '')}${descending ? ' desc' : ''}`
  })
  return [
    'locale',
    ...columns,
    `entry_id${keys.at(-1)?.startsWith('-') === true ? ' desc' : ''}`,
  ].join(', ')
}

/**
 * Deterministic, at most 63 bytes, a plain identifier: what people read, cut, and a hash of the
 * whole definition.
 */
function nameOf(hint: string, definition: string): string {
  const hash = createHash('sha256').update(definition).digest('hex').slice(0, 12)
  const readable = hint
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '_')
    .slice(0, 63 - namePrefix.length - hash.length - 1)
  return `${namePrefix}${readable}_${hash}`
}

export type IndexReport = {
  readonly created: readonly string[]
  readonly dropped: readonly string[]
}

/** `invalid` is what a build left that did not end: its name must be free before the next. */
type Work = {
  readonly invalid: readonly string[]
  readonly create: readonly PlannedIndex[]
  readonly unneeded: readonly string[]
}

const existing = sql<{ name: string; valid: boolean }>(`
  select c.relname as name, i.indisvalid as valid
  from pg_inherits p join pg_index i on i.indrelid = p.inhrelid join pg_class c
    on c.oid = i.indexrelid
  where p.inhparent = 'stoa.version'::regclass and starts_with(c.relname::text, '${namePrefix}')
  order by c.relname`)
const tryLock = sql<{ locked: boolean }>(`select pg_try_advisory_lock($1) as locked`)
const unlock = sql<{ unlocked: boolean }>(`select pg_advisory_unlock($1) as unlocked`)

/**
 * Makes the indexes of `stoa.version` those that the types need: builds what is missing, rebuilds
 * what a crash left invalid, drops what no type needs any more. `types` gives all types there are,
 * and is asked again under the lock, so that a node with old definitions undoes nothing. Of many
 * nodes that call this at once one does the work and the others find it done.
 *
 * Errors: those of the database; what was finished stays, and calling it again goes on from there.
 */
export async function applyIndexes(
  database: Database,
  types: () => Promise<readonly ContentType[]>,
  { logger }: { readonly logger: Logger },
): Promise<IndexReport> {
  const missing = await workLeft(database, await types())
  if (missing.invalid.length + missing.create.length + missing.unneeded.length === 0)
    return { created: [], dropped: [] }
  return database.session(async (session) => {
    await lock(session)
    try {
      return await work(session, await workLeft(session, await types()), logger)
    } finally {
      await release(session, logger)
    }
  })
}

async function workLeft(db: Queryable, types: readonly ContentType[]): Promise<Work> {
  const planned = types.flatMap(planIndexes)
  const there = await db.run(existing)
  const valid = new Set(there.filter((index) => index.valid).map((index) => index.name))
  const wanted = new Set(planned.map((index) => index.name))
  return {
    invalid: there.filter((index) => !index.valid).map((index) => index.name),
    create: planned.filter((index) => !valid.has(index.name)),
    unneeded: [...valid].filter((name) => !wanted.has(name)),
  }
}

async function work(
  session: Queryable,
  { invalid, create, unneeded }: Work,
  logger: Logger,
): Promise<IndexReport> {
  const drop = async (name: string): Promise<void> => {
    await session.run(maintenance(`drop index concurrently if exists stoa.${name}`))
    logger.info({ index: name }, 'dropped an index')
  }
  await session.run(maintenance(`set statement_timeout = ${buildMs}`))
  try {
    for (const name of invalid) await drop(name)
    for (const { name, text } of create) {
      await session.run(maintenance(text))
      logger.info({ index: name }, 'built an index')
    }
    // Last, so that a query whose index changes always has one of the two.
    for (const name of unneeded) await drop(name)
    // Without statistics of the new expressions the planner guesses, and may pass the index by.
    for (const type of new Set(create.map((index) => index.type)))
      await session.run(maintenance(`analyze ${versionTable(type)}`))
  } finally {
    await leniently(logger, () => session.run(maintenance('reset statement_timeout')))
  }
  return { created: create.map((index) => index.name), dropped: [...invalid, ...unneeded] }
}

async function lock(session: Queryable): Promise<void> {
  const deadline = performance.now() + lockWaitMs
  for (;;) {
    const [row] = await session.run(tryLock, [lockKey])
    if (row?.locked === true) return
    if (performance.now() > deadline)
      throw new DatabaseTimeoutError(
        'Another node has worked on indexes for over an hour; look at what it waits for in ' +
          'pg_stat_activity.',
      )
    await wait(lockPollMs)
  }
}

async function release(session: Queryable, logger: Logger): Promise<void> {
  await leniently(logger, () => session.run(unlock, [lockKey]))
}

/**
 * Tidies up after work that may itself have failed: on a broken connection the server does it by
 * itself, and the first error is the one to report.
 */
async function leniently(logger: Logger, tidy: () => Promise<unknown>): Promise<void> {
  try {
    await tidy()
  } catch (error) {
    logger.warn(
      { err: error },
      'could not tidy up after work on indexes; the server does it when the connection ends',
    )
  }
}

/** Unnamed, with a deadline of its own: the pool's is made for requests. */
function maintenance(text: string): Statement<object> {
  return { text, prepare: 'never', timeoutMs: buildMs }
}
