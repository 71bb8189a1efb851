import type { Change } from '#change-feed/change.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import type { PollResult } from '#change-feed/feed-core.ts'
import { visible } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { ModelServer } from './model-server.ts'
import type { Transaction } from './model-server.ts'
import type { Random } from './random.ts'
import type { RuleSwitch } from './rules.ts'
import type { Op } from './tables.ts'
import type { Truth } from './truth.ts'
import type { World } from './world.ts'

export type ModelOptions = {
  /** Commits wait for the standby. Otherwise a failover may lose some. */
  readonly synchronous: boolean
  /** Commits do not wait for the disk: a crash may lose some. */
  readonly asynchronousCommit: boolean
  readonly without: RuleSwitch | null
}

export type Commit = {
  readonly token: { readonly epoch: Epoch | null; readonly xid: number }
  readonly revealedAtMs: number
}

/**
 * Between the flush of a commit record and the moment when other sessions see the transaction: up
 * to this long.
 */
const revealMsMax = 4
/** A lazy WAL writer's round. */
const walWriterMs = 40

/** A primary with one standby, and the failover manager beside them. */
export class ModelDatabase {
  readonly world: World
  readonly random: Random
  readonly options: ModelOptions
  readonly truth: Truth
  primary: ModelServer
  standby: ModelServer | null
  readonly servers: readonly ModelServer[]
  #received = 0
  /** The standby's replay stands still until then. */
  replayPausedUntilMs = 0
  #waiting: {
    readonly server: ModelServer
    readonly lsn: number
    readonly life: number
    readonly done: () => void
  }[] = []
  /** Counts crashes and rebuilds of each server: what was under way before is void. */
  readonly #lives = new Map<ModelServer, number>()
  #attachment = 0

  constructor(world: World, random: Random, options: ModelOptions, truth: Truth) {
    this.world = world
    this.random = random
    this.options = options
    this.truth = truth
    this.primary = new ModelServer('alpha', 'primary')
    this.standby = new ModelServer('beta', 'standby')
    this.primary.waits = options.synchronous
    this.servers = [this.primary, this.standby]
    if (options.asynchronousCommit) world.after(walWriterMs, () => this.#walWriter())
  }

  lifeOf(server: ModelServer): number {
    return this.#lives.get(server) ?? 0
  }

  /** Runs `done` unless the server crashed meanwhile. */
  later(server: ModelServer, delayMs: number, done: () => void): void {
    const life = this.lifeOf(server)
    this.world.after(delayMs, () => {
      if (server.up && this.lifeOf(server) === life) done()
    })
  }

  /**
   * Commits, waits for whom it has to, reveals, then calls back as the acknowledgement leaves the
   * server.
   */
  commit(server: ModelServer, transaction: Transaction, done: (commit: Commit) => void): void {
    this.truth.written(transaction.ops, this.world.now)
    const asynchronous = this.options.asynchronousCommit
    const lsn = server.commit(transaction, { flush: !asynchronous })
    const reveal = (): void => {
      if (!server.running.has(transaction.xid)) return
      server.reveal(transaction, this.world.now)
      if (server === this.primary) this.truth.revealed(server.tables.items, this.world.now)
      const life = transaction.ops.find((op) => op.op === 'life')
      if (life !== undefined && life.op === 'life') server.life = life.epoch
      this.world.log(
        server.name,
        () => `transaction ${transaction.xid} is visible: ${describe(transaction.ops)}`,
      )
      const xid = this.options.without === 'R3 no logical decoding' ? lsn : transaction.xid
      done({
        token: { epoch: server.visibleEpoch(this.options), xid },
        revealedAtMs: this.world.now,
      })
    }
    if (asynchronous) return reveal()
    this.#ship(server)
    const gapMs = this.random.chance(0.3) ? this.random.between(0, revealMsMax) : 0.1
    if (!server.waits) return this.later(server, gapMs, reveal)
    this.#waiting.push({
      server,
      lsn,
      life: this.lifeOf(server),
      done: () => this.later(server, gapMs, reveal),
    })
  }

  #walWriter(): void {
    if (this.primary.up) {
      this.primary.flushed = this.primary.wal.length
      this.#ship(this.primary)
    }
    this.world.after(walWriterMs, () => this.#walWriter())
  }

  /** Streams what is flushed to the standby. */
  #ship(server: ModelServer): void {
    const standby = this.standby
    if (server !== this.primary || standby === null) return
    const lsn = server.flushed
    const attachment = this.#attachment
    const attached = (): boolean => this.#attachment === attachment && this.standby === standby
    this.world.after(this.random.between(0.2, 2), () => {
      if (!attached() || lsn <= this.#received) return
      this.#received = lsn
      this.world.after(this.random.between(0.2, 2), () => this.#acknowledge(server, lsn))
      const lagMs = Math.max(
        this.random.chance(0.9) ? this.random.between(0, 5) : this.random.between(5, 120),
        this.replayPausedUntilMs - this.world.now,
      )
      this.world.after(lagMs, () => {
        if (!attached()) return
        standby.wal = server.wal.slice(0, Math.max(lsn, standby.replayed))
        standby.replay(Math.max(lsn, standby.replayed), this.world.now)
      })
    })
  }

  #acknowledge(server: ModelServer, lsn: number): void {
    const released = this.#waiting.filter(
      (waiting) => waiting.server === server && waiting.lsn <= lsn,
    )
    this.#waiting = this.#waiting.filter((waiting) => !released.includes(waiting))
    for (const waiting of released)
      if (server.up && this.lifeOf(server) === waiting.life) waiting.done()
  }

  /** kill -9 and crash recovery on the same server. */
  crash(downMs: number): void {
    const server = this.primary
    if (!server.up) return
    this.world.log(
      server.name,
      () => `crashes; ${server.wal.length - server.flushed} log records are lost`,
    )
    this.#void(server)
    const { wal, flushed } = server
    this.truth.revealed(this.#itemsAt(wal, flushed), this.world.now)
    this.world.after(downMs, () => {
      if (server !== this.primary) return
      server.recover(wal, flushed, this.world.now)
      server.up = true
      this.truth.revealed(server.tables.items, this.world.now)
      this.world.log(server.name, () => `is back: ${server.describe()}, next id ${server.nextXid}`)
      this.#ship(server)
    })
  }

  #itemsAt(wal: ModelServer['wal'], until: number): ModelServer['tables']['items'] {
    const copy = new ModelServer('copy', 'primary')
    copy.recover(wal, until, this.world.now)
    return copy.tables.items
  }

  #void(server: ModelServer): void {
    server.up = false
    this.#lives.set(server, this.lifeOf(server) + 1)
    this.#waiting = this.#waiting.filter((waiting) => waiting.server !== server)
  }

  /**
   * Promotes the standby. `zombie`: the old primary goes on, cut off from it; only where commits
   * are synchronous.
   */
  failover(options: {
    readonly zombie: boolean
    readonly promoteMs: number
    readonly rebuildMs: number
  }): void {
    const old = this.primary
    const next = this.standby
    if (next === null || !old.up) return
    const zombie = options.zombie && this.options.synchronous
    this.standby = null
    this.#attachment += 1
    if (!zombie) this.#void(old)
    this.world.log(old.name, () => (zombie ? 'is cut off from its standby' : 'dies'))
    this.world.after(options.promoteMs, () => {
      next.recover(old.wal, this.#received, this.world.now)
      next.timeline = old.timeline + 1
      next.role = 'primary'
      next.up = true
      next.waits = false
      old.zombie = zombie
      this.primary = next
      this.truth.revealed(next.tables.items, this.world.now)
      this.world.log(next.name, () => `is promoted: ${next.describe()}, next id ${next.nextXid}`)
      this.world.after(options.rebuildMs, () => this.#rebuild(old))
    })
  }

  #rebuild(server: ModelServer): void {
    this.#void(server)
    const source = this.primary
    if (!source.up) {
      this.world.after(50, () => this.#rebuild(server))
      return
    }
    server.zombie = false
    server.role = 'standby'
    server.timeline = source.timeline
    server.recover(source.wal, source.flushed, this.world.now)
    server.up = true
    this.standby = server
    source.waits = this.options.synchronous
    this.#attachment += 1
    this.#received = source.flushed
    this.world.log(server.name, () => 'is rebuilt as the standby')
  }

  beginEpoch(server: ModelServer, done: () => void): void {
    const transaction = server.life === null ? server.begin(['life']) : null
    if (transaction === null) return this.later(server, 1, done)
    const number = server.tables.lifeNumber + 1
    transaction.ops.push({
      op: 'life',
      number,
      epoch: `${server.system}.${server.timeline}.${number}`,
    })
    this.commit(server, transaction, done)
  }

  poll(
    server: ModelServer,
    since: Snapshot | null,
    sinceSeq: number,
  ): { result: PollResult; lastSeq: number } {
    const epoch = server.visibleEpoch(this.options)
    const { tables } = server
    const lastSeq = tables.outbox.reduce((last, row) => Math.max(last, row.seq), sinceSeq)
    const common = { epoch, lsn: server.wal.length, keptFrom: tables.keptFrom, beat: tables.beat }
    if (this.options.without === 'R3 no logical decoding') {
      return {
        result: {
          ...common,
          keptFrom: 0,
          snapshot: byPosition(server),
          changes: since === null ? [] : decoded(server, since.xmax),
        },
        lastSeq,
      }
    }
    const bySeq = this.options.without === 'R4 the cursor is a snapshot'
    const fresh =
      since === null
        ? []
        : tables.outbox.filter((row) =>
            bySeq ? row.seq > sinceSeq : !visible(since, row.change.xid),
          )
    return {
      result: { ...common, snapshot: server.snapshot(), changes: fresh.map((row) => row.change) },
      lastSeq,
    }
  }

  /** The snapshot that a fill records for its data. */
  snapshotOf(server: ModelServer): Snapshot {
    return this.options.without === 'R3 no logical decoding'
      ? byPosition(server)
      : server.snapshot()
  }

  trim(keepMs: number): void {
    const server = this.primary
    if (!server.up) return
    const { outbox } = server.tables
    const young = outbox
      .filter((row) => row.atMs > this.world.now - keepMs)
      .map((row) => row.change.xid)
    const keptFrom = Math.min(server.snapshot().xmin, ...young)
    if (keptFrom <= server.tables.keptFrom) return
    const transaction = server.begin(['trim'])
    if (transaction === null) return
    transaction.ops.push({ op: 'trim', keptFrom })
    this.commit(server, transaction, () => undefined)
  }
}

/** The position in the log in place of a snapshot: what a reader of the log would take for one. */
function byPosition(server: ModelServer): Snapshot {
  return { xmin: server.flushed + 1, xmax: server.flushed + 1, xip: [] }
}

function decoded(server: ModelServer, fromLsn: number): Change[] {
  const changes: Change[] = []
  for (let lsn = Math.max(1, fromLsn); lsn <= server.flushed; lsn += 1) {
    const record = server.wal[lsn - 1]!
    if (record.kind === 'commit')
      for (const op of record.ops) if (op.op === 'change') changes.push({ ...op.change, xid: lsn })
  }
  return changes
}

export function describe(ops: readonly Op[]): string {
  const items = ops.map((op) => {
    switch (op.op) {
      case 'item':
        if (op.row === null) return `${op.key} := nothing`
        return `${op.key} := ${op.row.value} in group ${op.row.group}`
      case 'change':
        return null
      case 'life':
        return `epoch ${op.epoch}`
      case 'beat':
        return `heartbeat ${op.counter}`
      case 'trim':
        return `changes below ${op.keptFrom} trimmed`
      case 'duty':
        return `${op.duty} to ${op.value.holder}, fence ${op.value.fence}`
      case 'node':
        return op.value === null ? `${op.node} leaves` : `${op.node} beats ${op.value.counter}`
      case 'effect':
        return `${op.duty} tick ${op.tick} by ${op.node}, fence ${op.fence}`
    }
  })
  return items.filter((item) => item !== null).join(', ')
}
