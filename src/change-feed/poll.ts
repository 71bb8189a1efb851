import type { Change, Row } from '#change-feed/change.ts'
import type { PollResult } from '#change-feed/feed-core.ts'
import { parseSnapshot, parseXid } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

type PollRow = {
  readonly snapshot: string
  readonly epoch: string | null
  readonly lsn: string
  readonly kept_from: string
  readonly beat: string
  readonly xid: string | null
  readonly collection: string
  readonly key: string | null
  readonly operation: Change['operation']
  readonly before: string | null
  readonly after: string | null
}

/**
 * R4: the snapshot and the changes that it sees beyond the last one, in one statement. `$1` is the last `xmax`, `$2` the ids that
 * were running then; null: only where to begin. The position in the log is read while the statement runs, so after its
 * snapshot was taken: every commit that the snapshot sees lies before it. On a standby this statement fails.
 */
const poll = sql<PollRow>(`
  with s as materialized (select pg_current_snapshot()::text as snapshot, (select epoch from stoa.life) as epoch,
    (select kept_from::text from stoa.epoch) as kept_from, (select counter::text from stoa.heartbeat) as beat, pg_current_wal_insert_lsn()::text as lsn)
  select s.snapshot, s.epoch, s.lsn, s.kept_from, s.beat, c.xid::text as xid, c.collection, c.key, c.operation, c.before, c.after
  from s left join (
    (select * from stoa.change where xid >= $1::xid8 limit $3)
    union all
    (select * from stoa.change where xid = any($2::xid8[]) limit $3)
  ) c on true`)

/** R6: raises the counter if nobody has since, in this epoch, with a commit that waits for the disk and the synchronous standby. */
const beat = sql<{ counter: string }>(`
  update stoa.heartbeat set counter = counter + 1
  where counter = $1 and (select epoch from stoa.life) = $2
    and set_config('synchronous_commit', case when current_setting('synchronous_commit') = 'remote_apply' then 'remote_apply' else 'on' end, true) is not null
  returning counter`)

/**
 * For the polling session alone. A plan that was made while the changes had just been trimmed takes the table for empty, reads all
 * of it at every poll, and is kept until statistics say otherwise: under writes, that was four fifths of what polling cost.
 */
const byIndex = sql<object>(`select set_config('enable_seqscan', 'off', false)`)

const beginEpoch = sql<{ epoch: string }>(`select stoa.begin_epoch() as epoch`)
const trim = sql<{ trimmed: string }>(`select stoa.trim_changes(make_interval(secs => $1::double precision / 1000)) as trimmed`)

/** Nothing is at or above it: the greatest `xid8`. */
const beyondAll = '18446744073709551615'

type Runner = Pick<Queryable, 'run'>

/** Makes a new session ready for polls. */
export async function preparePolls(session: Runner): Promise<void> {
  await session.run(byIndex)
  await runBeginEpoch(session)
}

export async function runPoll(session: Runner, since: Snapshot | null, changesMax: number): Promise<PollResult> {
  const rows = await session.run(poll, [since === null ? beyondAll : String(since.xmax), since === null ? [] : since.xip.map(String), changesMax + 1])
  const first = rows[0]!
  return {
    epoch: first.epoch,
    snapshot: parseSnapshot(first.snapshot),
    lsn: parseLsn(first.lsn),
    keptFrom: parseXid(first.kept_from),
    beat: Number(first.beat),
    changes: first.xid === null ? [] : rows.map((row) => new TableChange(row)),
  }
}

/** A change whose rows are parsed when somebody looks at them: of most, only the key is asked for. */
class TableChange implements Change {
  readonly xid: number
  readonly collection: string
  readonly key: string | null
  readonly operation: Change['operation']
  #before: Row | string | null
  #after: Row | string | null

  constructor(row: PollRow) {
    this.xid = parseXid(row.xid ?? '')
    this.collection = row.collection
    this.key = row.key
    this.operation = row.operation
    this.#before = row.before
    this.#after = row.after
  }

  get before(): Row | null {
    if (typeof this.#before === 'string') this.#before = JSON.parse(this.#before) as Row
    return this.#before
  }

  get after(): Row | null {
    if (typeof this.#after === 'string') this.#after = JSON.parse(this.#after) as Row
    return this.#after
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
