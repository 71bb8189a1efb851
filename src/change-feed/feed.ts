import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { feedDefaults, nextTickMs, startFeed, stepFeed } from '#change-feed/feed-core.ts'
import type { FeedConfig, FeedEffect, FeedEvent, FeedState } from '#change-feed/feed-core.ts'
import { RowShapes } from '#change-feed/table-change.ts'
import { HeldSession } from '#change-feed/held-session.ts'
import { preparePolls, runBeat, runBeginEpoch, runPoll, runTrim } from '#change-feed/poll.ts'
import { parseToken, tokenSeen } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable, Sessions } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import { newId } from '#lib/id.ts'
import type { Logger } from '#lib/logger.ts'
import { SteadyClock } from '#lib/steady-clock.ts'
import { FailureLog } from '#lib/failure-log.ts'
import { Tasks } from '#lib/tasks.ts'

/**
 * Changes are kept so long: a node that was away for less catches up, one that was away for more
 * flushes.
 */
const keepMs = 300_000
/** Every node tries to trim this often; all but one find another at it. */
const trimEveryMs = 30_000

export type FeedOptions = {
  /**
   * Three connections of this node's own, with a statement deadline near the lease: a pool that
   * others use could be full, and one with long deadlines would hold on to a connection that leads
   * nowhere.
   */
  readonly database: Sessions
  /** Null: this node is alone, or finds all changes by polling. */
  readonly link: ClusterLink | null
  readonly clock: Clock
  readonly logger: Logger
  readonly config?: Partial<FeedConfig>
}

/** The news of a listener, in this order within a step: `flush` or `apply`, then `lease`. */
export type FeedNews = Extract<FeedEffect, { kind: 'flush' | 'apply' | 'lease' | 'lost' }>

/** `behind`: it threw at earlier news, so it receives none before the next `flush`. */
type Listener = { readonly receive: (news: FeedNews) => void; behind: boolean }

/** Bounded by the requests that a node takes at a time: each waits once, with a deadline. */
type Waiter = {
  readonly holds: (state: FeedState) => boolean
  readonly resolve: (reached: boolean) => void
}

const token = sql<{ token: string | null }>(`select stoa.token() as token`)
const channel = 'feed'

/**
 * The change feed of this node: the machine of feed-core.ts on a real database. Begins at once;
 * ends with `stop`.
 */
export class ChangeFeed {
  readonly config: FeedConfig
  readonly #options: FeedOptions
  readonly #pollFailures: FailureLog
  readonly #beatFailures: FailureLog
  readonly #trimFailures: FailureLog
  readonly #clock: SteadyClock
  /**
   * What its hints say: the link brings them back to it too, and what this node committed itself it
   * polls for anyway.
   */
  readonly #hintText = newId()
  readonly #listenerFailures: FailureLog
  readonly #listeners = new Set<Listener>()
  readonly #hints: Disposable | null
  readonly #trimming: NodeJS.Timeout
  #state: FeedState
  #polling: HeldSession | null = null
  #beating: HeldSession | null = null
  #timer: NodeJS.Timeout | null = null
  readonly #waiters = new Set<Waiter>()
  #busy = false
  readonly #queue: FeedEvent[] = []
  readonly #tasks = new Tasks()
  readonly #shapes = new RowShapes()

  constructor(options: FeedOptions) {
    this.#options = options
    this.#pollFailures = new FailureLog(options.logger, {
      failing: 'a poll of the change feed failed',
      recovered: 'the change feed is polled again',
    })
    this.#beatFailures = new FailureLog(options.logger, {
      failing: 'the heartbeat could not be written',
      recovered: 'the heartbeat is written again',
    })
    this.#trimFailures = new FailureLog(options.logger, {
      failing: 'old changes could not be trimmed',
      recovered: 'old changes are trimmed again',
    })
    this.#listenerFailures = new FailureLog(options.logger, {
      failing: 'a listener of the change feed failed: it receives a flush',
      recovered: 'the listener of the change feed has begun anew',
    })
    this.config = { ...feedDefaults, ...options.config }
    this.#clock = new SteadyClock(options.clock)
    this.#state = startFeed(this.#clock.elapsedMs())
    this.#hints =
      options.link?.listen(
        channel,
        (text) => text !== this.#hintText && this.#step({ kind: 'hint' }),
      ) ?? null
    this.#trimming = setInterval(() => this.#trim(), trimEveryMs).unref()
    setImmediate(() => this.#step({ kind: 'tick' }))
  }

  get state(): FeedState {
    return this.#state
  }

  /** The clock that leases are counted on. */
  nowMs(): number {
    return this.#clock.elapsedMs()
  }

  /**
   * Delivers every change from now on, after a first `flush`. A listener that throws gets a `flush`
   * in place of what comes next; until then it gets no lease.
   */
  subscribe(receive: (news: FeedNews) => void): Disposable {
    const listener = { receive, behind: false }
    this.#listeners.add(listener)
    const { epoch, cursor, polledAtMs, provenAtMs } = this.#state
    if (epoch !== null && cursor !== null) {
      this.#deliver(listener, { kind: 'flush', reason: 'start', epoch, cursor, lsn: this.#lsn })
      this.#deliver(listener, { kind: 'lease', polledAtMs, provenAtMs })
    }
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /** Asks for a poll that starts now. */
  want(): void {
    this.#step({ kind: 'want' })
  }

  /** This node committed a write: the others get a hint. */
  committed(): void {
    this.#step({ kind: 'committed' })
  }

  /**
   * This node committed a write: hints the others, and waits until it has applied the write itself.
   * False: that did not come to pass in time.
   */
  async settle(timeoutMs: number): Promise<boolean> {
    const settled = this.#polledFromNow(timeoutMs)
    this.committed()
    return settled
  }

  /**
   * Waits until this node has applied everything that is committed now. False: that did not come
   * to pass in time.
   */
  async readAnew(timeoutMs: number): Promise<boolean> {
    const read = this.#polledFromNow(timeoutMs)
    this.want()
    return read
  }

  #polledFromNow(timeoutMs: number): Promise<boolean> {
    const from = this.#clock.elapsedMs()
    return this.#when((state) => state.polledAtMs >= from, timeoutMs)
  }

  /**
   * Waits until this node has applied the write, or read everything anew since. False: it did not
   * come to that in time.
   */
  async reached(token: Token, timeoutMs: number): Promise<boolean> {
    const seen = ({ epoch, cursor }: FeedState): boolean => {
      if (epoch === null || cursor === null) return false
      const found = tokenSeen(token, epoch, cursor)
      return found === 'seen' || found === 'ended'
    }
    if (seen(this.#state)) return true
    const reached = this.#when(seen, timeoutMs)
    this.want()
    return reached
  }

  /**
   * Runs a writing transaction, and returns its token with the result. Null: the
   * epoch has no name yet.
   */
  async write<T>(
    database: Database,
    work: (tx: Queryable) => Promise<T>,
  ): Promise<{ readonly value: T; readonly token: Token | null }> {
    const written = await database.transaction(async (tx) => {
      const value = await work(tx)
      return { value, token: await tokenOf(tx) }
    })
    this.committed()
    return written
  }

  async stop(): Promise<void> {
    clearInterval(this.#trimming)
    this.#hints?.[Symbol.dispose]()
    this.#step({ kind: 'stop' })
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#polling?.giveUp()
    this.#beating?.giveUp()
    for (const waiter of this.#waiters) waiter.resolve(false)
    await this.#tasks.ended()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  #lsn = 0

  /** Looks after each good poll, until the deadline. */
  async #when(holds: (state: FeedState) => boolean, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const waiter: Waiter = {
        holds,
        resolve: (reached) => {
          clearTimeout(timer)
          this.#waiters.delete(waiter)
          resolve(reached)
        },
      }
      const timer = setTimeout(() => waiter.resolve(false), timeoutMs)
      this.#waiters.add(waiter)
    })
  }

  /** A listener may cause further events: they wait until the current step is over. */
  #step(event: FeedEvent): void {
    this.#queue.push(event)
    if (this.#busy) return
    this.#busy = true
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      const { state, effects } = stepFeed(this.#state, next, this.#clock.elapsedMs(), this.config)
      this.#state = state
      for (const effect of effects) this.#perform(effect)
    }
    this.#busy = false
    this.#schedule()
  }

  #schedule(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    const at = nextTickMs(this.#state, this.config)
    this.#timer =
      at === Number.POSITIVE_INFINITY
        ? null
        : setTimeout(
            () => this.#step({ kind: 'tick' }),
            Math.max(0, Math.ceil(at - this.#clock.elapsedMs())),
          )
  }

  #perform(effect: FeedEffect): void {
    switch (effect.kind) {
      case 'poll':
        this.#tasks.add(this.#poll(effect))
        return
      case 'abandonPoll':
        this.#polling?.giveUp()
        this.#polling = null
        return
      case 'beat':
        this.#tasks.add(this.#beat(effect))
        return
      case 'sendHint':
        this.#tasks.add(this.#hint())
        return
      case 'flush':
        if (effect.reason !== 'start')
          this.#options.logger.warn(
            { reason: effect.reason, epoch: effect.epoch },
            'the cache is dropped and filled again',
          )
        this.#lsn = effect.lsn
        break
      case 'apply':
        this.#lsn = effect.lsn
        break
      case 'lease':
      case 'lost':
    }
    for (const listener of this.#listeners) this.#deliver(listener, effect)
    if (effect.kind === 'lease')
      for (const waiter of this.#waiters) if (waiter.holds(this.#state)) waiter.resolve(true)
  }

  /** One that throws harms neither the feed nor the others. */
  #deliver(listener: Listener, effect: FeedNews): void {
    const { epoch } = this.#state
    const anew = listener.behind && effect.kind === 'apply' && epoch !== null
    const news: FeedNews = anew
      ? { kind: 'flush', reason: 'start', epoch, cursor: effect.cursor, lsn: effect.lsn }
      : effect
    if (listener.behind && news.kind !== 'flush') return
    try {
      listener.receive(news)
      if (listener.behind) this.#listenerFailures.success()
      listener.behind = false
    } catch (error) {
      listener.behind = true
      this.#listenerFailures.failure(error, { news: news.kind })
    }
  }

  #hold(prepare: (session: Queryable) => Promise<void>): HeldSession {
    return new HeldSession(this.#options.database, this.config.pollTimeoutMs, prepare)
  }

  async #poll(effect: Extract<FeedEffect, { kind: 'poll' }>): Promise<void> {
    this.#polling ??= this.#hold(preparePolls)
    const session = this.#polling
    try {
      if (effect.beginEpoch) await runBeginEpoch(session)
      const result = await runPoll(session, effect.since, effect.changesMax, this.#shapes)
      this.#pollFailures.success()
      this.#step({ kind: 'polled', id: effect.id, result })
    } catch (error) {
      if (this.#polling === session) this.#polling = null
      session.giveUp()
      if (this.#state.mode !== 'stopped') this.#pollFailures.failure(error)
      this.#step({ kind: 'pollFailed', id: effect.id })
    }
  }

  async #beat(effect: Extract<FeedEffect, { kind: 'beat' }>): Promise<void> {
    this.#beating ??= this.#hold(async () => undefined)
    const session = this.#beating
    try {
      const won = await runBeat(session, effect.seen, effect.epoch)
      this.#beatFailures.success()
      this.#step({ kind: 'beaten', id: effect.id, won })
    } catch (error) {
      if (this.#beating === session) this.#beating = null
      session.giveUp()
      if (this.#state.mode !== 'stopped') this.#beatFailures.failure(error)
      this.#step({ kind: 'beaten', id: effect.id, won: false })
    }
  }

  async #hint(): Promise<void> {
    try {
      await this.#options.link?.send(channel, this.#hintText)
    } catch (error) {
      this.#options.logger.debug({ err: error }, 'a hint was not sent; the others poll')
    }
  }

  #trim(): void {
    this.#tasks.add(
      runTrim(this.#options.database, keepMs).then(
        () => this.#trimFailures.success(),
        (error: unknown) => this.#trimFailures.failure(error),
      ),
    )
  }
}

/** The token of the transaction that `tx` is in. */
export async function tokenOf(tx: Queryable): Promise<Token | null> {
  return parseToken((await tx.run(token))[0]!.token ?? '')
}
