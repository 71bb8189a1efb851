import { nextTickMs, startFeed, stepFeed } from '#change-feed/feed-core.ts'
import type { FeedConfig, FeedEvent, FeedState } from '#change-feed/feed-core.ts'
import { earlierOf } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import type { Token } from '#change-feed/token.ts'
import { CacheMachine } from '#cache/cache-machine.ts'
import type { CacheConfig, CacheEffect, CacheEvent, CacheResult } from '#cache/cache-state.ts'
import type { Dependency } from '#cache/dependency.ts'
import type { SteadyClock } from '#lib/steady-clock.ts'
import type { Connection, Network } from './network.ts'
import { read } from './reading.ts'
import type { World } from './world.ts'

export type NodeConfig = {
  readonly feed: FeedConfig
  readonly cache: CacheConfig
  readonly oneStatement: boolean
  readonly fillTimeoutMs: number
  readonly checkReplica: 'position' | 'nothing' | 'standby snapshot'
}

type Part = Extract<CacheResult<string>, { kind: 'hit' | 'filled' | 'stale' }>
type Request = { readonly what: string; readonly done: (result: CacheResult<string>) => void }

const tickMs = 10

/**
 * One node: the real cores of change feed and cache, with the simulated network in place of the
 * drivers.
 */
/** The parts of a run that a node works with. */
export type NodePlace = {
  readonly world: World
  readonly network: Network
  readonly config: NodeConfig
  readonly clock: SteadyClock
}

export class SimNode {
  readonly name: string
  readonly world: World
  readonly network: Network
  readonly config: NodeConfig
  readonly clock: SteadyClock
  feed: FeedState
  cache: CacheMachine<string>
  up = true
  pausedUntilMs = 0
  /** Counts starts: a reply to a question from before a crash is dropped. */
  life = 0
  #lastSeq = 0
  #requests = new Map<number, Request>()
  #fills = new Map<number, string>()
  #lastRequest = 0
  #feedServer: Connection | null = null
  #poolServer: Connection | null = null
  #wakeAt = Number.POSITIVE_INFINITY

  constructor(name: string, { world, network, config, clock }: NodePlace) {
    this.name = name
    this.world = world
    this.network = network
    this.config = config
    this.clock = clock
    this.feed = startFeed(clock.elapsedMs())
    this.cache = new CacheMachine(config.cache)
    this.#schedule()
    this.#ticks()
  }

  /** Runs `work` as this node: after its pause, and not if it crashed meanwhile. */
  deliver(delayMs: number, work: () => void): void {
    const life = this.life
    const attempt = (): void => {
      if (!this.up || this.life !== life) return
      if (this.world.now < this.pausedUntilMs) this.world.at(this.pausedUntilMs, attempt)
      else work()
    }
    this.world.after(delayMs, attempt)
  }

  get(
    what: string,
    token: Token | null,
    timeoutMs: number,
    done: (result: CacheResult<string>) => void,
  ): void {
    const request = (this.#lastRequest += 1)
    this.#requests.set(request, { what, done })
    this.#cache({
      kind: 'get',
      request,
      key: what,
      token,
      dependencies: declared(what),
      deadlineMs: this.clock.elapsedMs() + timeoutMs,
      part: false,
    })
  }

  committed(): void {
    this.#feed({ kind: 'committed' })
  }

  hint(): void {
    this.#feed({ kind: 'hint' })
  }

  crash(): void {
    this.up = false
    this.life += 1
  }

  restart(): void {
    this.up = true
    this.life += 1
    this.feed = {
      ...startFeed(this.clock.elapsedMs()),
      polls: this.feed.polls,
      beats: this.feed.beats,
    }
    this.cache = new CacheMachine(this.config.cache)
    this.#requests = new Map()
    this.#fills = new Map()
    this.#feedServer = null
    this.#poolServer = null
    this.#wakeAt = Number.POSITIVE_INFINITY
    this.#schedule()
    this.#ticks()
  }

  #ticks(): void {
    this.deliver(tickMs, () => {
      if (this.cache.waiting > 0) this.#cache({ kind: 'tick' })
      this.#ticks()
    })
  }

  #schedule(): void {
    // Not nothing at all: the sum of two clocks is rounded, and the time asked for might never
    // come.
    const waitMs = Math.max(0.01, nextTickMs(this.feed, this.config.feed) - this.clock.elapsedMs())
    const at = this.world.now + waitMs
    if (at >= this.#wakeAt && this.#wakeAt > this.world.now) return
    this.#wakeAt = at
    this.deliver(waitMs, () => {
      if (this.#wakeAt <= this.world.now) {
        this.#wakeAt = Number.POSITIVE_INFINITY
        this.#feed({ kind: 'tick' })
      }
    })
  }

  #feed(event: FeedEvent): void {
    const { state, effects } = stepFeed(this.feed, event, this.clock.elapsedMs(), this.config.feed)
    this.feed = state
    for (const effect of effects) {
      switch (effect.kind) {
        case 'poll':
          this.#poll(effect.id, effect.since, effect.beginEpoch)
          break
        case 'abandonPoll':
          this.#feedServer = null
          break
        case 'beat':
          this.#beat(effect.id, effect.seen, effect.epoch)
          break
        case 'sendHint':
          this.network.broadcast(this)
          break
        case 'flush':
          this.world.log(this.name, () => `flushes (${effect.reason}), epoch ${effect.epoch}`)
          this.#cache(effect)
          break
        case 'apply':
          if (effect.changes.length > 0)
            this.world.log(this.name, () => {
              const changes = effect.changes.map((change) => `${change.key}@${change.xid}`)
              return `applies ${changes.join(', ')}`
            })
          this.#cache(effect)
          break
        case 'lease':
        case 'lost':
          this.#cache(effect)
      }
    }
    this.#schedule()
  }

  #poll(id: number, since: Snapshot | null, beginEpoch: boolean): void {
    const failed = (): void => {
      this.#feedServer = null
      this.#feed({ kind: 'pollFailed', id })
    }
    this.#feedServer ??= this.network.connect()
    const seq = this.#lastSeq
    const ask = { connection: this.#feedServer, slow: false, failed }
    this.network.ask(this, ask, (server, respond) => {
      const poll = (): void => {
        const { result, lastSeq } = this.network.database.poll(server, since, seq)
        respond(() => {
          this.#lastSeq = lastSeq
          this.#feed({ kind: 'polled', id, result })
        })
      }
      if (beginEpoch) this.network.database.beginEpoch(server, poll)
      else poll()
    })
  }

  #beat(id: number, seen: number, epoch: string): void {
    const lost = (): void => this.#feed({ kind: 'beaten', id, won: false })
    const ask = { connection: this.#feedServer, slow: false, failed: lost }
    this.network.ask(this, ask, (server, respond) => {
      const { database } = this.network
      if (server.visibleEpoch(database.options) !== epoch || server.tables.beat !== seen)
        return respond(lost)
      const transaction = server.begin(['beat'])
      // Another transaction holds the row: this one would wait, find it raised and change nothing.
      if (transaction === null) return respond(lost)
      transaction.ops.push({ op: 'beat', counter: seen + 1 })
      database.commit(server, transaction, () =>
        respond(() => this.#feed({ kind: 'beaten', id, won: true })),
      )
    })
  }

  #cache(event: CacheEvent<string>): void {
    for (const effect of this.cache.step(event, this.clock.elapsedMs())) this.#perform(effect)
  }

  #perform(effect: CacheEffect<string>): void {
    switch (effect.kind) {
      case 'result': {
        const request = this.#requests.get(effect.request)
        this.#requests.delete(effect.request)
        request?.done(effect.result)
        return
      }
      case 'want':
        this.#feed({ kind: 'want' })
        return
      case 'secondGet':
        this.network.secondGet(this, effect.key, (found) =>
          this.#cache({ kind: 'second', fill: effect.fill, found }),
        )
        return
      case 'secondPut':
        this.network.secondPut(effect.key, effect.envelope)
        return
      case 'load':
        this.#load(effect)
    }
  }

  #load(effect: Extract<CacheEffect<string>, { kind: 'load' }>): void {
    const { fill, key } = effect
    this.#fills.set(fill, key)
    const failed = (): void => {
      if (!this.#fills.delete(fill)) return
      this.#poolServer = null
      this.#cache({ kind: 'fillFailed', fill, error: 'the database did not respond' })
    }
    this.deliver(this.config.fillTimeoutMs, failed)
    if (key.includes('+')) this.#compose(fill, key, failed)
    else if (effect.replica !== null && !key.startsWith('top'))
      this.#loadReplica(fill, key, effect.replica, failed)
    else this.#loadPrimary(fill, key, failed)
  }

  #filled(
    fill: number,
    loaded: Omit<Extract<CacheEvent<string>, { kind: 'filled' }>, 'kind' | 'fill' | 'bytes'>,
  ): void {
    if (this.#fills.delete(fill)) this.#cache({ kind: 'filled', fill, bytes: 100, ...loaded })
  }

  #loadPrimary(fill: number, key: string, failed: () => void, retried = false): void {
    this.#poolServer ??= this.network.connect()
    // An idle connection may have died long ago: a read is tried once more on a new one.
    const broken = (): void => {
      this.#poolServer = null
      if (retried) failed()
      else this.#loadPrimary(fill, key, failed, true)
    }
    const ask = { connection: this.#poolServer, slow: true, failed: broken }
    this.network.ask(this, ask, (server, respond) => {
      const { database } = this.network
      const { value, dependencies } = read(server, key)
      this.world.log(this.name, () => `reads ${value} at ${server.describe()}`)
      const epoch = server.visibleEpoch(database.options)
      const reply = (): void => {
        const snapshot = database.snapshotOf(server)
        respond(() => {
          // The pool still talks to a server that the feed knows to be over.
          if (epoch !== this.feed.epoch) this.#poolServer = null
          this.#filled(fill, { value, dependencies, epoch, snapshot, asOfMs: null, stale: false })
        })
      }
      // The rule removed: the snapshot is asked for in a second statement.
      if (this.config.oneStatement) reply()
      else database.later(server, this.network.random.between(0, 8), reply)
    })
  }

  #loadReplica(
    fill: number,
    key: string,
    wanted: { readonly lsn: number; readonly epoch: string },
    failed: () => void,
  ): void {
    const { database } = this.network
    const standby = database.standby
    if (standby === null) return this.#loadPrimary(fill, key, failed)
    this.network.ask(
      this,
      {
        connection: this.network.connectTo(standby),
        slow: true,
        failed: () => this.#loadPrimary(fill, key, failed),
      },
      (server, respond) => {
        const behind =
          server.role !== 'standby' ||
          server.replayed < wanted.lsn ||
          server.tables.epoch !== wanted.epoch
        if (behind && this.config.checkReplica !== 'nothing')
          return respond(() => this.#loadPrimary(fill, key, failed))
        const { value, dependencies } = read(server, key)
        const snapshot = this.config.checkReplica === 'standby snapshot' ? server.snapshot() : null
        this.world.log(this.name, () => `reads ${value} at the replica ${server.name}`)
        respond(() =>
          this.#filled(fill, {
            value,
            dependencies,
            epoch: wanted.epoch,
            snapshot,
            asOfMs: null,
            stale: false,
          }),
        )
      },
    )
  }

  /** A value made of two cached ones. */
  #compose(fill: number, key: string, failed: () => void): void {
    const parts: Part[] = []
    const names = key.split('+')
    const next = (): void => {
      const name = names[parts.length]
      if (name === undefined) {
        const snapshot = parts.map((part) => part.snapshot).reduce(earlierOf)
        const [asOfMs, stale] = [
          Math.min(...parts.map((part) => part.asOfMs)),
          parts.some((part) => part.kind === 'stale'),
        ]
        const value = parts.map((part) => part.value).join('|')
        // Parts from two lives of the database make no value.
        const epoch = parts.every((part) => part.epoch === parts[0]!.epoch) ? parts[0]!.epoch : null
        return this.#filled(fill, {
          value,
          dependencies: parts.flatMap((part) => part.dependencies),
          epoch,
          snapshot,
          asOfMs,
          stale,
        })
      }
      this.get(name, null, this.config.fillTimeoutMs, (result) => {
        if (result.kind === 'failed' || result.kind === 'refused') return failed()
        parts.push(result)
        this.deliver(
          this.network.random.chance(0.2) ? this.network.random.between(0, 200) : 0.1,
          next,
        )
      })
    }
    next()
  }
}

/** The dependencies of a value that are known before it is loaded. */
function declared(what: string): readonly Dependency[] {
  const [kind = '', name = ''] = what.split(':')
  return kind === 'row' && !what.includes('+')
    ? [{ kind: 'row', collection: 'item', key: name }]
    : []
}
