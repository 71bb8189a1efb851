import type { PollResult } from '#change-feed/feed-core.ts'
import { RowShapes, TableChange } from '#change-feed/table-change.ts'
import { parseSnapshot, parseXid } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/**
 * One of them, without a collection, is the poll's own; each other one is a change. Few columns: a
 * node reads thousands of rows.
 */
type PollRow = {
  readonly packed: string
  readonly collection: string | null
  readonly key: string | null
}

/**
 * R4: the snapshot and the changes that it sees beyond the last one, in one statement. `$1` is the
 * last `xmax`, `$2` the ids that were running then; null: only where to begin. The position in the
 * log is read while the statement runs, so after its snapshot was taken: every commit that the
 * snapshot sees lies before it. On a standby this statement fails.
 */
const poll = sql<PollRow>(`
  select coalesce(pg_current_snapshot()::text || ' ' || pg_current_wal_insert_lsn()::text || ' '
      || (select kept_from::text from stoa.epoch) || ' '
      || coalesce((select counter::text from stoa.heartbeat), '0') || ' '
      || coalesce((select epoch from stoa.life), ''), '') as packed,
    null as collection, null as key
  union all
  select c.xid::text || ' ' || c.operation
      || coalesce(' ' || c.fields || E'\\x1f' || array_to_json(c.row_values)::text, ''),
    c.collection, c.key
  from (
    (select * from stoa.change where xid >= $1::xid8 limit $3)
    union all
    (select * from stoa.change where xid = any($2::xid8[]) limit $3)
  ) c`)

/**
 * R6: raises the counter unless another node has since, in this epoch. The commit
 * waits for the disk and the synchronous standby.
 */
const beat = sql<{ counter: string }>(`
  update stoa.heartbeat set counter = counter + 1
  where counter = $1 and (select epoch from stoa.life) = $2
    and set_config('synchronous_commit',
      case when current_setting('synchronous_commit') = 'remote_apply'
        then 'remote_apply' else 'on' end, true) is not null
  returning counter`)

/**
 * For the polling session alone. A plan that was made while the changes had just been trimmed takes
 * the table for empty, reads all of it at every poll, and is kept until statistics say otherwise:
 * under writes, that was four fifths of what polling cost.
 */
const byIndex = sql<object>(`select set_config('enable_seqscan', 'off', false)`)

const beginEpoch = sql<{ epoch: string }>(`select stoa.begin_epoch() as epoch`)
const trim = sql<{ trimmed: string }>(
  `select stoa.trim_changes(make_interval(secs => $1::double precision / 1000)) as trimmed`,
)

/** Nothing is at or above it: the greatest `xid8`. */
const beyondAll = '18446744073709551615'

type Runner = Pick<Queryable, 'run'>

/** Makes a new session ready for polls. */
export async function preparePolls(session: Runner): Promise<void> {
  await session.run(byIndex)
  await runBeginEpoch(session)
}

export async function runPoll(
  session: Runner,
  since: Snapshot | null,
  changesMax: number,
  shapes = new RowShapes(),
): Promise<PollResult> {
  const rows = await session.run(poll, [
    since === null ? beyondAll : String(since.xmax),
    since === null ? [] : since.xip.map(String),
    changesMax + 1,
  ])
  const changes: TableChange[] = []
  let head = ''
  for (const { packed, collection, key } of rows) {
    if (collection === null) head = packed
    else changes.push(new TableChange(collection, key, packed, shapes))
  }
  const [snapshot = '', lsn = '', keptFrom = '', counter, epoch = ''] = head.split(' ')
  return {
    epoch: epoch === '' ? null : epoch,
    snapshot: parseSnapshot(snapshot),
    lsn: parseLsn(lsn),
    keptFrom: parseXid(keptFrom),
    beat: Number(counter),
    changes,
  }
}

/** A WAL position as a number: exact up to 8 petabytes of log. */
export function parseLsn(text: string): number {
  const [high = '', low = ''] = text.split('/')
  return Number.parseInt(high, 16) * 2 ** 32 + Number.parseInt(low, 16)
}

export function formatLsn(lsn: number): string {
  return `${Math.floor(lsn / 2 ** 32).toString(16)}/${(lsn % 2 ** 32).toString(16)}`.toUpperCase()
}

/** True if this call's own write of the counter committed. */
export async function runBeat(session: Runner, seen: number, epoch: string): Promise<boolean> {
  return (await session.run(beat, [String(seen), epoch])).length > 0
}

export async function runBeginEpoch(session: Runner): Promise<string> {
  return (await session.run(beginEpoch, []))[0]!.epoch
}

/** How many changes older than that were forgotten; 0 also if another node is at it. */
export async function runTrim(session: Runner, keepMs: number): Promise<number> {
  return Number((await session.run(trim, [keepMs]))[0]!.trimmed)
}
