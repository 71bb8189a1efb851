import type { AuthorityOf } from '#content/authority.ts'
import type { Call, Schedule, ScheduledAction } from '#content/content.ts'
import {
  ContentBusyError,
  EntryNotFoundError,
  ForbiddenError,
  ScheduleInvalidError,
  ScheduleNotFoundError,
  TypeNotFoundError,
  ValidationError,
} from '#content/errors.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { entryState, versionOf } from '#content/versions/entry-state.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import { noVersion, requireLocales, requireVersion } from '#content/entries/locale-rights.ts'
import { forbidden, grantCovers, grantOf, mayRead, typeFor } from '#content/entries/permission.ts'
import { publishEntry, unpublishEntry } from '#content/entries/publish.ts'
import { fieldOf, knownFields } from '#content/entries/visibility.ts'
import type { TypeModel } from '#content/model/model.ts'
import { normalDateTime } from '#content/validation/date-time.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { jobKind } from '#jobs/job-kind.ts'
import { afterCommit } from '#jobs/job-queue.ts'
import type { Actor } from '#lib/actor.ts'
import { isId, newId } from '#lib/id.ts'
import { StoaError } from '#lib/stoa-error.ts'

const waitingMax = 100
const aheadMsMax = 100 * 366 * 86_400_000
const listMax = 200
/** An action waits at most this long for the lock of its entry, since others are due too. */
const lockWaitMs = 2_000
/**
 * An action waits for an earlier one on its entry, unless that one is so late that something else
 * keeps it.
 */
const behindMaxMs = 60_000

/**
 * The job of an action, added by a trigger with it. It is tried again for the better part of a day
 * before it is parked: whatever keeps an action, such as a lock, is not its own fault.
 */
export const scheduledAction = jobKind<{ readonly schedule: string }>('scheduled-action', {
  concurrency: 4,
  attemptsMax: 1_000,
  backoff: { firstMs: 200, maxMs: 60_000 },
})

type Row = {
  readonly id: string
  readonly entryId: string
  readonly locale: string
  readonly action: 'publish' | 'unpublish'
  readonly version: number | null
  readonly dueAt: string
  readonly state: ScheduledAction['state']
  readonly failure: string | null
}

const columns = `s.id, s.entry_id as "entryId", s.locale, s.action, s.number as version,
  s.due_at as "dueAt", s.state, s.failure`
const insert = sql<Row>(`
  insert into stoa.schedule as s (id, entry_id, locale, action, number, due_at, created_at,
    created_by)
  values ($1, $2, $3, $4, $5, $6, $7, $8) returning ${columns}`)
const ofEntry = sql<Row>(
  `select ${columns} from stoa.schedule s where s.entry_id = $1 order by s.due_at desc, s.id desc
    limit ${listMax}`,
)
const countWaiting = sql<{ count: number }>(
  `select count(*)::int as count from stoa.schedule where entry_id = $1 and state = 'waiting'`,
)
const cancelOne = sql<Row>(`
  update stoa.schedule s set state = 'cancelled', finished_at = $3
    where s.id = $1 and s.entry_id = $2 and s.state = 'waiting' returning ${columns}`)
const oneOfEntry = sql<Row>(
  `select ${columns} from stoa.schedule s where s.id = $1 and s.entry_id = $2`,
)

/**
 * An action that is due by the database's clock, which all nodes share: a node whose own clock is
 * wrong must not publish ahead of time.
 */
type Due = Row & { readonly type: string; readonly createdBy: string }

const takeDue = sql<Due>(`
  select ${columns}, e.type, s.created_by as "createdBy" from stoa.schedule s
    join stoa.entry e on e.id = s.entry_id
  where s.id = $1 and s.state = 'waiting' and s.due_at <= clock_timestamp() for update of s`)
const behind = sql<{ id: string }>(`
  select b.id from stoa.schedule s join stoa.schedule b on b.entry_id = s.entry_id
  where s.id = $1 and b.state = 'waiting' and (b.due_at, b.id) < (s.due_at, s.id)
    and b.due_at > clock_timestamp() - interval '${behindMaxMs} milliseconds' limit 1`)
const limitWait = sql<object>(`select set_config('lock_timeout', $1, true)`)
const finish = sql<object>(
  `update stoa.schedule set state = $2, finished_at = $3, failure = $4 where id = $1`,
)

export function createSchedule(context: Context): Schedule {
  return {
    add: (call, type, id, what) => add(context, call, { type, id }, what),
    list: (call, typeName, id) =>
      onEntry(context, call, { type: typeName, id }, async (shown) =>
        (await call.db.run(ofEntry, [id])).flatMap(shown),
      ),
    cancel: (call, typeName, id, scheduleId) =>
      onEntry(context, call, { type: typeName, id }, async (shown) => {
        const place = [isId(scheduleId) ? scheduleId : newId(0), id]
        const [found] = (await call.db.run(oneOfEntry, place)).flatMap(shown)
        if (found === undefined) throw new ScheduleNotFoundError()
        const [cancelled] = await call.db.run(cancelOne, [...place, stampNow(context)])
        if (cancelled !== undefined) return shown(cancelled)[0]!
        throw new ScheduleInvalidError(
          `The action is ${found.state}: it cannot be cancelled any more.`,
          { state: found.state },
        )
      }),
    carryOut: (db, id, authorityOf) =>
      db.transaction((tx) => runOne({ context, authorityOf }, tx, id)),
    isBehind: async (db, id) => (await db.run(behind, [id])).length > 0,
  }
}

/** Returns the action as the caller may see it, or nothing. */
type ShownTo = (row: Row) => readonly ScheduledAction[]

/**
 * Runs `work` for a caller who may publish the entry in some locale, with a function that leaves
 * out actions on locales that they may neither read nor publish.
 */
async function onEntry<T>(
  context: Context,
  call: Call,
  target: { readonly type: string; readonly id: string },
  work: (shown: ShownTo) => Promise<T>,
): Promise<T> {
  return context.models.use(call.db, async (model) => {
    const type = typeFor(call, model, target.type)
    const state = await entryState(call.db, { model, type, id: target.id }, 'reading')
    const grant = grantOf(call, 'publish', type)
    const covered = new Set(
      state.held
        .filter((row) => row.isLatest && grantCovers(grant, type, state.id, row))
        .map((row) => row.locale),
    )
    if (covered.size === 0)
      throw mayRead(call, type, state) ? forbidden('publish', type) : new EntryNotFoundError()
    return work((row) => (covered.has(row.locale) ? [shownAction(call, type, state, row)] : []))
  })
}

/** Returns an action with its failure, without the fields that the caller may not see. */
function shownAction(call: Call, type: TypeModel, state: EntryState, row: Row): ScheduledAction {
  const { failure, ...action } = row
  if (failure === null) return { ...action, failure: null }
  const { code, message, fields = [] } = JSON.parse(failure) as StoredFailure
  const rows = state.held.filter((held) => held.locale === row.locale)
  const known = knownFields(call, type, state.id, { rows })
  const hidden = known !== null && fields.some((name) => !known.includes(name))
  return {
    ...action,
    failure: {
      code,
      message: hidden ? 'Fields that you may not see kept it from being done.' : message,
    },
  }
}

/** A failure as the database keeps it; `fields` are those that the message names. */
type StoredFailure = {
  readonly code: string
  readonly message: string
  readonly fields?: readonly string[]
}

function storedFailure(error: StoaError): StoredFailure {
  const { code, message } = error
  const fields =
    error instanceof ValidationError
      ? error.faults.map(({ path }) => fieldOf(path)).filter((name) => name !== '')
      : [error.facts['field']].filter((name) => typeof name === 'string')
  return { code, message, fields }
}

async function add(
  context: Context,
  call: Call,
  target: { readonly type: string; readonly id: string },
  what: Parameters<Schedule['add']>[3],
): Promise<ScheduledAction> {
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const { id } = target
      const type = typeFor(call, model, target.type)
      const state = await entryState(tx, { model, type, id }, 'writing')
      const { grant, locales } = requireLocales(call, 'publish', { type, state, model }, [
        model.locale(what.locale),
      ])
      const locale = locales[0]!
      const dueAt = dueTime(context, what.dueAt)
      const version = what.action === 'publish' ? what.version : null
      const named =
        version === null ? null : await versionOf(tx, type, { id, locale, number: version })
      if (version !== null && named === null) throw noVersion(locale, version)
      if (named !== null) requireVersion(call, 'publish', grant, { type, id, row: named })
      const [waiting] = await tx.run(countWaiting, [id])
      if ((waiting?.count ?? 0) >= waitingMax)
        throw new ScheduleInvalidError(`An entry has at most ${waitingMax} actions waiting.`, {
          limit: waitingMax,
        })
      const now = stampNow(context)
      const [row] = await tx.run(insert, [
        newId(context.clock.nowMs()),
        id,
        locale,
        what.action,
        version,
        dueAt,
        now,
        JSON.stringify(call.authority.actor),
      ])
      if (row === undefined) throw new Error('insert returned no row')
      afterCommit(tx, () => context.queue.wake(scheduledAction.name))
      return { ...row, failure: null }
    }),
  )
}

function dueTime(context: Context, text: string): string {
  const normal = normalDateTime(text)
  if (normal === null)
    throw new ScheduleInvalidError('Give the time with its zone, such as 2026-11-20T18:00:00Z.', {})
  const aheadMs = Date.parse(normal) - context.clock.nowMs()
  if (aheadMs <= 0)
    throw new ScheduleInvalidError('The time has passed. To do it now, publish or unpublish.', {
      dueAt: normal,
    })
  if (aheadMs > aheadMsMax)
    throw new ScheduleInvalidError('The time is more than 100 years ahead.', { dueAt: normal })
  return normal
}

type Runner = {
  readonly context: Context
  readonly authorityOf: AuthorityOf
}

/**
 * Carries out one due action, with the rights that its maker has now, and marks it in the same
 * transaction.
 */
async function runOne(
  runner: Runner,
  tx: Queryable,
  id: string,
): Promise<'done' | 'failed' | 'nothing'> {
  const { context } = runner
  const [row] = await tx.run(takeDue, [id])
  if (row === undefined) return 'nothing'
  await tx.run(limitWait, [String(lockWaitMs)])
  try {
    await carryOut(runner, tx, row)
    await tx.run(finish, [row.id, 'done', stampNow(context), null])
    return 'done'
  } catch (error) {
    if (!isRefusal(error)) throw error
    const failure = JSON.stringify(storedFailure(error))
    await tx.run(finish, [row.id, 'failed', stampNow(context), failure])
    context.logger.warn(
      { schedule: row.id, entry: row.entryId, code: error.code },
      'a scheduled action failed',
    )
    return 'failed'
  }
}

/** A refusal is recorded and not tried again; any other failure is tried again later. */
function isRefusal(error: unknown): error is StoaError {
  return (
    error instanceof StoaError &&
    !(error instanceof ContentBusyError) &&
    !error.code.startsWith('E_DATABASE_')
  )
}

async function carryOut({ context, authorityOf }: Runner, tx: Queryable, row: Due): Promise<void> {
  const authority = await authorityOf(tx, JSON.parse(row.createdBy) as Actor)
  if (authority === null)
    throw new ForbiddenError(
      'The user or API token that scheduled it is gone, disabled or expired. Schedule it again.',
      {},
    )
  const call: Call = { db: tx, authority }
  const target = { type: row.type, id: row.entryId, locales: [row.locale], expected: null }
  try {
    if (row.action === 'publish')
      await publishEntry(context, call, { ...target, version: row.version })
    else await unpublishEntry(context, call, target)
  } catch (error) {
    const lost = [ForbiddenError, EntryNotFoundError, TypeNotFoundError]
    if (!lost.some((kind) => error instanceof kind)) throw error
    throw new ForbiddenError(
      'The user or API token that scheduled it may not do it any more. Schedule it again.',
      {},
    )
  }
}
