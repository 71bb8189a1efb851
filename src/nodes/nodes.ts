import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import { FailureLog } from '#lib/failure-log.ts'
import { newId } from '#lib/id.ts'
import type { Logger } from '#lib/logger.ts'
import { SteadyClock } from '#lib/steady-clock.ts'
import { Tasks } from '#lib/tasks.ts'
import { FenceLostError } from '#nodes/errors.ts'
import { leads, liveNodes, nextNodesTickMs, startNodes, stepNodes } from '#nodes/nodes-core.ts'
import type {
  DutyRow,
  NodeRow,
  NodesConfig,
  NodesEffect,
  NodesEvent,
  NodesState,
} from '#nodes/nodes-core.ts'
import { parseNodeInfo } from '#nodes/node-info.ts'
import type { NodeInfo } from '#nodes/node-info.ts'

export type LiveNode = NodeInfo & {
  readonly id: string
  readonly draining: boolean
  readonly startedAt: string
  readonly duties: readonly string[]
}

export type NodesOptions = {
  /** New for each start of a process; a node that `joinNodes` has let in has one already. */
  readonly id?: string
  readonly database: Database
  /**
   * Where beats are written: a beat that waits behind other work is a lease that ends. Default: the
   * reserve of `database`.
   */
  readonly beats?: Queryable
  readonly info: NodeInfo
  readonly clock: Clock
  readonly logger: Logger
  readonly config?: Partial<NodesConfig>
  /** Duties that this node can take from the start; see `offer`. */
  readonly duties?: readonly string[]
}

/**
 * What listeners receive. `beaten`: after each beat, with whether other nodes wait for a reply of
 * this one. `drainAsked`: once, after a request was found in the node's row.
 */
export type NodesNews =
  | { readonly kind: 'lead' | 'stepDown'; readonly duty: string }
  | { readonly kind: 'beaten'; readonly callsWaiting: boolean }
  | { readonly kind: 'drainAsked' }
  | ({ readonly kind: 'clock' } & ClockReading)

/**
 * The database's clock, read by a statement that took `tookMs` from `startedAtMs` of the monotonic
 * clock on.
 */
export type ClockReading = {
  readonly databaseMs: number
  readonly startedAtMs: number
  readonly tookMs: number
}

export const nodeLeaseMsDefault = 3_000
/**
 * A wall clock that differs from the database's by more than this leads nothing: its schedules
 * would fire at the wrong time.
 */
export const clockSkewMaxMs = 1_000

type BeatRow = {
  readonly kind: 'node' | 'duty' | 'drain' | 'call' | 'clock'
  readonly id: string
  readonly counter: string
  readonly draining: boolean
  readonly holder: string
  readonly fence: string
  readonly info: string
  readonly started_at: string
}

const beat = sql(`
  insert into stoa.node (id, counter, draining, info) values ($1, 1, $2, $3)
  on conflict (id) do update set counter = stoa.node.counter + 1,
    draining = excluded.draining, info = excluded.info, seen_at = now()`)
/** A beat must not wait for work that has locked a duty: that duty is not renewed this time. */
const renew = sql(`
  update stoa.leadership r set renewal = r.renewal + 1 from (
    select l.duty from stoa.leadership l
    join unnest($2::text[], $3::bigint[]) m (duty, fence)
      on l.duty = m.duty and l.fence = m.fence
    where l.holder = $1 for no key update of l skip locked) mine
  where r.duty = mine.duty`)
const readAll = sql<BeatRow>(`
  select 'node' as kind, id, counter, draining, '' as holder, 0 as fence, info, started_at
  from stoa.node
  union all
  select 'duty', duty, renewal, false, holder, fence, null, null from stoa.leadership
  union all
  select 'drain', id, 0, true, '', 0, null, null from stoa.node where id = $1 and drain_asked
  union all
  (select 'call', target, 0, false, '', 0, null, null from stoa.node_call
   where target = $1 and reply is null and failure is null limit 1)
  union all
  select 'clock', '', (extract(epoch from clock_timestamp()) * 1000)::bigint,
    false, '', 0, null, null
  order by kind, id`)
const takeNew = sql<{ fence: string }>(
  `insert into stoa.leadership (duty, holder, fence) values ($1, $2, 1)
   on conflict do nothing returning fence`,
)
const takeOver = sql<{ fence: string }>(`
  update stoa.leadership set holder = $2, fence = fence + 1, renewal = 0
  where duty = $1 and holder = $3 and fence = $4 and renewal = $5 returning fence`)
const release = sql(
  `update stoa.leadership set holder = '', renewal = 0
   where duty = $1 and holder = $2 and fence = $3`,
)
const leave = sql(`delete from stoa.node where id = any($1::text[])`)
/**
 * The row lock keeps other nodes from taking the duty until the transaction ends. A leader that
 * falls silent in its middle loses it to the server's own clock, after a lease.
 */
const fenceHeld = sql<{ held: string }>(`
  select set_config('idle_in_transaction_session_timeout', $4, true) as held
  from stoa.leadership where duty = $1 and holder = $2 and fence = $3 for share`)

/**
 * This node among the others: the machine of nodes-core.ts on a real database. Joins at once; ends
 * with `leave`.
 */
export class Nodes {
  readonly id: string
  readonly config: NodesConfig
  readonly #options: NodesOptions
  readonly #failureLog: FailureLog
  readonly #clock: SteadyClock
  readonly #tasks = new Tasks()
  readonly #listeners = new Set<(news: NodesNews) => void>()
  readonly #beats: Queryable
  readonly #leaving = new AbortController()
  #beating: Promise<void> = Promise.resolve()
  #drainAsked = false
  #info: NodeInfo
  /** As in the last beat that was written. */
  #writtenInfo: NodeInfo | null = null
  #offered: readonly string[]
  #clockSkewMs = 0
  #state: NodesState
  #timer: NodeJS.Timeout | null = null
  #details = new Map<string, { readonly info: NodeInfo; readonly startedAt: string }>()

  constructor(options: NodesOptions) {
    this.id = options.id ?? newId(options.clock.nowMs())
    this.#options = options
    this.#failureLog = new FailureLog(options.logger, {
      failing: 'the nodes table could not be written',
      recovered: 'the nodes table is written again',
    })
    this.#info = options.info
    this.#offered = options.duties ?? []
    this.#beats = options.beats ?? options.database.control ?? options.database
    this.config = { leaseMs: nodeLeaseMsDefault, ...options.config }
    this.#clock = new SteadyClock(options.clock)
    this.#state = startNodes(this.id, this.#clock.elapsedMs(), this.#offered)
    this.#schedule()
  }

  get info(): NodeInfo {
    return this.#info
  }

  get mode(): NodesState['mode'] {
    return this.#state.mode
  }

  /**
   * The milliseconds by which the clock of this machine is ahead of the database's (negative:
   * behind), as of the last beat; 0 where the difference is below the error of the measurement.
   */
  get clockSkewMs(): number {
    return this.#clockSkewMs
  }

  get isClockOff(): boolean {
    return Math.abs(this.#clockSkewMs) > clockSkewMaxMs
  }

  /**
   * Changes the description of this node. Resolves when a beat has written it, or the node has
   * left.
   */
  async describe(info: Partial<NodeInfo>): Promise<void> {
    const described = { ...this.#info, ...info }
    this.#info = described
    const { promise, resolve } = Promise.withResolvers<void>()
    const listening = this.subscribe(({ kind }) => {
      if (kind === 'beaten' && this.#writtenInfo === this.#info) resolve()
    })
    this.#leaving.signal.addEventListener('abort', () => resolve(), { once: true })
    this.#step({ kind: 'described' })
    await promise
    listening[Symbol.dispose]()
  }

  /** From now on this node can take these duties. It takes none while its clock is off. */
  offer(duties: readonly string[]): void {
    this.#offered = duties
    this.#step({ kind: 'offer', duties: this.isClockOff ? [] : duties })
  }

  /** The nodes that live, this one included, as of its last beat. */
  live(): LiveNode[] {
    const duties = [...this.#state.duties.values()].map(({ row }) => row)
    return liveNodes(this.#state, this.#clock.elapsedMs(), this.config).flatMap((node) => {
      const details = this.#details.get(node.id)
      if (details === undefined) return []
      return [
        {
          ...details.info,
          id: node.id,
          draining: node.draining,
          startedAt: details.startedAt,
          duties: duties.filter((row) => row.holder === node.id).map((row) => row.duty),
        },
      ]
    })
  }

  /**
   * Whether this node leads, as far as it knows: good for deciding whether to try. The work itself
   * goes through `fenced`.
   */
  leads(duty: string): boolean {
    return leads(this.#state, duty, this.#clock.elapsedMs(), this.config) !== null
  }

  /** The duties that this node leads, as far as it knows. */
  duties(): string[] {
    return [...this.#state.duties.keys()].filter((duty) => this.leads(duty))
  }

  /**
   * Whether this node has watched that counter of that node stand still for a whole lease (null:
   * whichever counter it last read): then the node is gone, or cut off and serves nothing as fresh.
   * Only time on this node's own clock counts, and only up to its last reading.
   */
  isGone(id: string, counter: number | null): boolean {
    const seen = this.#state.nodes.get(id)
    return (
      seen !== undefined &&
      (counter === null || seen.row.counter === counter) &&
      seen.sinceMs <= this.#state.beatenAtMs - this.config.leaseMs
    )
  }

  /** The nodes of which `isGone` holds, as far as they have a row. */
  gone(): string[] {
    return [...this.#state.nodes.keys()].filter((id) => id !== this.id && this.isGone(id, null))
  }

  /** Receives each start and end of leading, and each beat. Listeners must not throw. */
  subscribe(listener: (news: NodesNews) => void): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /**
   * Runs the leader's work in a transaction that commits only if this node still leads: until its
   * end no other node can take the duty. `database`: where the work's own tables are reached, if
   * that is another pool. Errors: `FenceLostError`, and those of the work.
   */
  async fenced<T>(
    duty: string,
    work: (tx: Queryable) => Promise<T>,
    database: Queryable = this.#options.database,
  ): Promise<T> {
    const fence = leads(this.#state, duty, this.#clock.elapsedMs(), this.config)
    if (fence === null) throw new FenceLostError(`This node does not lead as ${duty}.`, { duty })
    return database.transaction(async (tx) => {
      const [row] = await tx.run(fenceHeld, [
        duty,
        this.id,
        String(fence),
        String(this.config.leaseMs),
      ])
      if (row === undefined) {
        this.#step({ kind: 'fenced', duty, fence })
        throw new FenceLostError(`Another node leads as ${duty} now.`, { duty, fence })
      }
      return work(tx)
    })
  }

  /**
   * Releases its duties and takes none any more; it stays among the live ones, marked as draining,
   * until it leaves.
   */
  drain(): void {
    this.#step({ kind: 'drain' })
  }

  /** The end: duties are released and the row is removed, if the database can be reached. */
  async leave(): Promise<void> {
    this.#leaving.abort()
    this.#step({ kind: 'leave' })
    if (this.#timer !== null) clearTimeout(this.#timer)
    await this.#tasks.ended()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave()
  }

  #schedule(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    const at = nextNodesTickMs(this.#state, this.config)
    this.#timer =
      at === Number.POSITIVE_INFINITY
        ? null
        : setTimeout(
            () => this.#step({ kind: 'tick' }),
            Math.max(1, Math.ceil(at - this.#clock.elapsedMs())),
          )
  }

  #step(event: NodesEvent): void {
    const { state, effects } = stepNodes(this.#state, event, this.#clock.elapsedMs(), this.config)
    this.#state = state
    for (const effect of effects)
      this.#tasks.add(
        this.#perform(effect).catch((error: unknown) =>
          this.#failureLog.failure(error, { effect: effect.kind }),
        ),
      )
    this.#schedule()
  }

  async #perform(effect: NodesEffect): Promise<void> {
    const database = this.#beats
    switch (effect.kind) {
      case 'beat':
        return (this.#beating = this.#beat(effect))
      case 'take':
        return this.#take(effect)
      case 'release':
        return void (await database.run(release, [effect.duty, this.id, String(effect.fence)]))
      case 'remove':
        return void (await database.run(leave, [effect.nodes]))
      case 'leave':
        // A running beat would write the row anew. Its own failure was logged already.
        await this.#beating.catch(() => undefined)
        return void (await database.run(leave, [[this.id]]))
      case 'lead':
      case 'stepDown':
        this.#options.logger.info(
          { duty: effect.duty },
          effect.kind === 'lead' ? 'this node leads' : 'this node no longer leads',
        )
        this.#notify({ kind: effect.kind, duty: effect.duty })
    }
  }

  #notify(news: NodesNews): void {
    for (const listener of this.#listeners) listener(news)
  }

  async #beat(effect: Extract<NodesEffect, { kind: 'beat' }>): Promise<void> {
    const info = this.#info
    try {
      const { rows, wallAtMs, reading } = await this.#writeBeat(effect, info)
      this.#failureLog.success()
      if (this.#state.mode === 'left') return
      this.#writtenInfo = info
      this.#noteClock(wallAtMs, reading)
      this.#step({ kind: 'beaten', id: effect.id, ...this.#parse(rows) })
      if (!this.#drainAsked && rows.some((row) => row.kind === 'drain')) {
        this.#drainAsked = true
        this.#notify({ kind: 'drainAsked' })
      }
      this.#notify({ kind: 'beaten', callsWaiting: rows.some((row) => row.kind === 'call') })
    } catch (error) {
      this.#step({ kind: 'beatFailed', id: effect.id })
      throw error
    }
  }

  async #writeBeat(
    { draining, renew: renewed }: Extract<NodesEffect, { kind: 'beat' }>,
    info: NodeInfo,
  ): Promise<{
    readonly rows: BeatRow[]
    readonly wallAtMs: number
    readonly reading: ClockReading
  }> {
    const { clock } = this.#options
    return this.#beats.transaction(async (tx) => {
      const described = JSON.stringify({ ...info, duties: this.#state.offered })
      await tx.run(beat, [this.id, draining, described])
      if (renewed.length > 0)
        await tx.run(renew, [
          this.id,
          renewed.map(({ duty }) => duty),
          renewed.map(({ fence }) => String(fence)),
        ])
      const [wallAtMs, startedAtMs] = [clock.nowMs(), clock.monotonicMs()]
      const rows = await tx.run(readAll, [this.id])
      const tookMs = clock.monotonicMs() - startedAtMs
      const databaseMs = Number(rows.find((row) => row.kind === 'clock')?.counter)
      return { rows, wallAtMs, reading: { databaseMs, startedAtMs, tookMs } }
    })
  }

  #parse(rows: readonly BeatRow[]): {
    readonly nodes: readonly NodeRow[]
    readonly duties: readonly DutyRow[]
  } {
    const nodeRows = rows.filter((row) => row.kind === 'node')
    this.#details = new Map(
      nodeRows.map((row) => [
        row.id,
        { info: parseNodeInfo(row.id, row.info), startedAt: row.started_at },
      ]),
    )
    const nodes = nodeRows.map((row): NodeRow => {
      const duties = this.#details.get(row.id)?.info.duties
      return {
        id: row.id,
        counter: Number(row.counter),
        draining: row.draining,
        ...(duties === undefined ? {} : { duties }),
      }
    })
    const duties = rows
      .filter((row) => row.kind === 'duty')
      .map((row): DutyRow => ({
        duty: row.id,
        holder: row.holder,
        fence: Number(row.fence),
        renewal: Number(row.counter),
      }))
    return { nodes, duties }
  }

  /**
   * Compares the wall clock with the database's, which was read at some time while the statement
   * ran.
   */
  #noteClock(wallAtMs: number, reading: ClockReading): void {
    this.#notify({ kind: 'clock', ...reading })
    const { databaseMs, tookMs } = reading
    const differenceMs = wallAtMs + tookMs / 2 - databaseMs
    const certainMs = Math.max(0, Math.abs(differenceMs) - tookMs / 2)
    const wasOff = this.isClockOff
    this.#clockSkewMs = Math.sign(differenceMs) * certainMs
    if (this.isClockOff === wasOff) return
    const { logger } = this.#options
    const facts = { aheadMs: Math.round(this.#clockSkewMs) }
    if (wasOff) logger.info(facts, "the clock of this machine agrees with the database's again")
    else
      logger.error(
        facts,
        "the clock of this machine differs from the database's: correct it; " +
          'until then this node leads nothing',
      )
    this.offer(this.#offered)
  }

  async #take({ duty, seen, id }: Extract<NodesEffect, { kind: 'take' }>): Promise<void> {
    let fence: number | null = null
    try {
      const [row] = await (seen === null
        ? this.#beats.run(takeNew, [duty, this.id])
        : this.#beats.run(takeOver, [
            duty,
            this.id,
            seen.holder,
            String(seen.fence),
            String(seen.renewal),
          ]))
      fence = row === undefined ? null : Number(row.fence)
    } finally {
      this.#step({ kind: 'taken', duty, id, fence })
    }
  }
}
