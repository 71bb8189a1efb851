import { cacheDefaults } from '#cache/cache-state.ts'
import type { CacheResult } from '#cache/cache-state.ts'
import type { Change } from '#change-feed/change.ts'
import { feedDefaults } from '#change-feed/feed-core.ts'
import { visible } from '#change-feed/snapshot.ts'
import type { Token } from '#change-feed/token.ts'
import { SteadyClock } from '#lib/steady-clock.ts'
import { check, checkEffects } from './checker.ts'
import type { Reading, CheckerConfig, Violation } from './checker.ts'
import { ModelDatabase } from './model-database.ts'
import type { Commit } from './model-database.ts'
import type { ModelServer, Transaction } from './model-server.ts'
import { Network } from './network.ts'
import { endMs, keys, leaseMs, nodeLeaseMs, duties } from './plan.ts'
import type { Plan, PlanItem, Write } from './plan.ts'
import { Random } from './random.ts'
import { coreRules } from './rules.ts'
import type { RuleSwitch } from './rules.ts'
import { SimLeadership, tickMs } from './sim-leadership.ts'
import { SimNode } from './sim-node.ts'
import type { NodeConfig } from './sim-node.ts'
import { Truth } from './truth.ts'
import { World } from './world.ts'

export type Outcome = {
  readonly violation: Violation | null
  readonly steps: number
  readonly readings: number
  readonly lines: readonly string[]
}

const checks: CheckerConfig = { leaseMs, staleMs: 2_000 }
/** After the last fault is over: long enough for every lease, retry and rebuild. */
const quietMs = 2_600
const readTimeoutMs = 1_500

type VirtualClock = {
  readonly steady: SteadyClock
  wallMs: number
  suspendedMs: number
  suspendedAtMs: number | null
}

function replicaCheck(without: RuleSwitch | null): NodeConfig['checkReplica'] {
  if (without === 'R8 replicas by position') return 'nothing'
  return without === 'R8 no snapshot of a standby' ? 'standby snapshot' : 'position'
}

/** One simulated cluster from its plan to the verdict. */
type Read = {
  readonly what: string
  readonly token: Token | null
  readonly floors: Reading['floors']
}

export class Run {
  readonly #plan: Plan
  readonly #world: World
  readonly #truth = new Truth(keys)
  readonly #random: Random
  readonly #database: ModelDatabase
  readonly #network: Network
  readonly #nodes: SimNode[] = []
  readonly #leaderships: SimLeadership[] = []
  readonly #clocks: VirtualClock[] = []
  readonly #readings: Reading[] = []
  readonly #without: RuleSwitch | null
  #violation: Violation | null = null

  constructor(plan: Plan, without: RuleSwitch | null, options: { readonly trace: boolean }) {
    this.#plan = plan
    this.#without = without
    this.#world = new World(options)
    this.#random = new Random(plan.seed ^ 0x5f35_6495)
    const { synchronous, asynchronousCommit } = plan
    this.#database = new ModelDatabase(
      this.#world,
      this.#random,
      { synchronous, asynchronousCommit, without },
      this.#truth,
    )
    this.#network = new Network(this.#world, this.#random, this.#database, {
      slowShare: plan.slowShare,
    })
    for (let index = 0; index < plan.nodes; index += 1)
      this.#nodes.push(
        new SimNode(`node${index}`, {
          world: this.#world,
          network: this.#network,
          config: this.#config(),
          clock: this.#clock(),
        }),
      )
    this.#network.nodes = this.#nodes
    for (const [index, node] of this.#nodes.entries())
      this.#leaderships.push(this.#join(node, index))
  }

  #config(): NodeConfig {
    const rules = coreRules(this.#without)
    return {
      feed: {
        ...feedDefaults,
        leaseMs,
        pollTimeoutMs: leaseMs,
        pollGapMs: this.#plan.gapMs,
        hintGapMs: this.#plan.gapMs,
        rules,
      },
      cache: {
        ...cacheDefaults,
        leaseMs,
        staleMs: checks.staleMs - leaseMs,
        leaseWaitMs: 60,
        secondLevel: this.#plan.secondLevel,
        replica: this.#plan.replica,
        bytesMax: 900,
        rules,
      },
      oneStatement: this.#without !== 'R5 data and snapshot in one statement',
      fillTimeoutMs: 1_200,
      checkReplica: replicaCheck(this.#without),
    }
  }

  #clock(): SteadyClock {
    const world = this.#world
    const clock: Omit<VirtualClock, 'steady'> = {
      wallMs: this.#random.between(0, 10_000),
      suspendedMs: 0,
      suspendedAtMs: null,
    }
    const monotonicMs = (): number => (clock.suspendedAtMs ?? world.now) - clock.suspendedMs
    const steady = new SteadyClock({ nowMs: () => world.now + clock.wallMs, monotonicMs })
    this.#clocks.push(Object.assign(clock, { steady }))
    return steady
  }

  #join(node: SimNode, index: number): SimLeadership {
    const life = this.#leaderships.length < this.#plan.nodes ? 0 : this.#leaderships.length
    return new SimLeadership(
      `${index}.${life}`,
      node,
      { leaseMs: nodeLeaseMs },
      { fenced: this.#without !== 'G5 effects are fenced' },
    )
  }

  go(): Outcome {
    for (const item of this.#plan.items) this.#world.at(item.atMs, () => this.#happen(item))
    this.#world.runUntil(endMs + quietMs)
    this.#network.slowShare = 0
    this.#lastReads()
    this.#world.runUntil(endMs + quietMs + readTimeoutMs + 200)
    this.#violation ??= checkEffects(this.#database.primary.tables.effects, this.#world.now)
    this.#lastTicks()
    for (const reading of this.#readings) this.#violation ??= check(reading, this.#truth, checks)
    return {
      violation: this.#violation,
      steps: this.#world.steps,
      readings: this.#readings.length,
      lines: this.#world.lines,
    }
  }

  /** At rest every duty has a leader that acts. */
  #lastTicks(): void {
    for (const duty of duties) {
      const last = this.#database.primary.tables.effects.findLast((effect) => effect.duty === duty)
      if (last !== undefined && last.tick * tickMs > endMs + quietMs) continue
      this.#violation ??= {
        invariant: 'liveness',
        atMs: this.#world.now,
        text: `liveness: no node has acted as ${duty} since tick ${last?.tick ?? 'none'}`,
      }
    }
  }

  /** At rest every node must know the whole truth, and serve it as fresh. */
  #lastReads(): void {
    const floors = new Map(keys.map((key) => [key, { atMs: this.#world.now, why: 'G1' as const }]))
    this.#nodes.forEach((node, index) => {
      for (const what of [
        ...keys.map((key) => `row:${key}`),
        'group:0',
        'group:1',
        'top:0',
        'top:1',
      ]) {
        this.#read(index, { what, token: null, floors }, (result) => {
          if (result.kind === 'hit' || result.kind === 'filled') return
          this.#violation ??= {
            invariant: 'liveness',
            atMs: this.#world.now,
            text: `liveness: at rest ${node.name} returned ${JSON.stringify(result)} for ${what}`,
          }
        })
      }
    })
  }

  #happen(item: PlanItem): void {
    const node = 'node' in item && item.node !== null ? this.#nodes[item.node] : undefined
    if (item.kind !== 'read' && item.kind !== 'write' && item.kind !== 'trim')
      this.#world.log('fault', () => JSON.stringify(item))
    switch (item.kind) {
      case 'read':
        return this.#read(item.node, { what: item.what, token: null, floors: new Map() })
      case 'write':
        return this.#write(item)
      case 'pause':
        return this.#pause(item.node, item.forMs, item.suspended)
      case 'crashNode':
        node!.crash()
        return this.#world.after(item.forMs, () => {
          node!.restart()
          this.#leaderships.push(this.#join(node!, item.node))
        })
      case 'drain': {
        const draining = this.#leaderships.filter((one) => one.node === node)
        for (const leadership of draining) leadership.drain()
        return this.#world.after(item.forMs, () => {
          for (const leadership of draining) leadership.leave()
          if (node!.up) this.#leaderships.push(this.#join(node!, item.node))
        })
      }
      case 'wallJump':
        // A clock set back while its machine is suspended cannot be noticed: a lease does not
        // cover that.
        if (this.#clocks[item.node]!.suspendedAtMs === null)
          this.#clocks[item.node]!.wallMs += item.byMs
        return
      case 'cutDatabase':
        this.#network.databaseCutUntilMs.set(node!.name, this.#world.now + item.forMs)
        return
      case 'slowDatabase':
        this.#network.databaseSlowUntilMs.set(node!.name, this.#world.now + item.forMs)
        return
      case 'cutLink':
        this.#network.linkCutUntilMs = this.#world.now + item.forMs
        return
      case 'crashDatabase':
        return this.#database.crash(item.forMs)
      case 'failover':
        return this.#database.failover(item)
      case 'pauseReplay':
        this.#database.replayPausedUntilMs = this.#world.now + item.forMs
        return
      case 'secondFailover':
        return this.#network.secondFailover()
      case 'trim':
        return this.#database.trim(item.keepMs)
    }
  }

  #pause(index: number, forMs: number, suspended: boolean): void {
    const node = this.#nodes[index]!
    const clock = this.#clocks[index]!
    node.pausedUntilMs = this.#world.now + forMs
    if (!suspended || clock.suspendedAtMs !== null) return
    // The monotonic clock stands still too, as that of a suspended virtual machine does.
    const atMs = this.#world.now
    clock.suspendedAtMs = atMs
    this.#world.after(forMs, () => {
      clock.suspendedMs += this.#world.now - atMs
      clock.suspendedAtMs = null
    })
  }

  #read(
    index: number,
    { what, token, floors }: Read,
    done?: (result: CacheResult<string>) => void,
  ): void {
    const node = this.#nodes[index]!
    const askedAtMs = this.#world.now
    node.deliver(0, () =>
      node.get(what, token, readTimeoutMs, (result) => {
        done?.(result)
        this.#world.log(
          node.name,
          () => `${what} ${token === null ? '' : `with token ${token.xid} `}${describe(result)}`,
        )
        if (result.kind === 'refused' || result.kind === 'failed') return
        this.#readings.push({
          node: node.name,
          what,
          value: result.value,
          kind: result.kind,
          askedAtMs,
          returnedAtMs: this.#world.now,
          floors,
        })
      }),
    )
  }

  #write(item: Write): void {
    const node = item.node === null ? null : this.#nodes[item.node]!
    const server = this.#network.connect()
    const acked = (commit: Commit): void => {
      node?.committed()
      this.#follow(item, commit)
    }
    if (node === null)
      return this.#transact(this.#database.primary, item, (commit) => this.#follow(item, commit))
    node.deliver(0, () =>
      this.#network.ask(
        node,
        { connection: server, slow: false, failed: () => undefined },
        (at, respond) => this.#transact(at, item, (commit) => respond(() => acked(commit))),
      ),
    )
  }

  #transact(server: ModelServer, item: Write, done: (commit: Commit) => void): void {
    if (!server.up || server.role !== 'primary') return
    const transaction = server.begin(item.keys)
    if (transaction === null) return
    const changes: Change[] = []
    for (const key of item.keys) {
      const before = server.tables.items.get(key) ?? null
      const row = item.group === null ? null : { value: item.value, group: item.group }
      if (before === null && row === null) continue
      transaction.ops.push({ op: 'item', key, row })
      const operationOfKept = row === null ? 'delete' : 'update'
      const operation = before === null ? 'insert' : operationOfKept
      changes.push({
        xid: transaction.xid,
        collection: 'item',
        key,
        operation,
        before: before === null ? null : { key, group: before.group },
        after: row === null ? null : { key, group: row.group },
      })
    }
    if (this.#without !== 'R1 the change is in the write')
      this.#outbox(server, transaction, changes)
    if (item.prepared) server.prepare(transaction)
    this.#world.log(
      server.name,
      () =>
        `transaction ${transaction.xid} writes ${item.value} to ${item.keys.join(', ')}` +
        (item.prepared ? ', prepared' : ''),
    )
    this.#database.later(server, item.holdMs, () => {
      const open = server.running.get(transaction.xid)
      if (open === undefined) return
      if (item.abort) return server.abort(open)
      this.#database.commit(server, open, (commit) => {
        if (this.#without === 'R1 the change is in the write') this.#changeLater(server, changes)
        done(commit)
      })
    })
  }

  #outbox(server: ModelServer, transaction: Transaction, changes: readonly Change[]): void {
    for (const change of changes)
      transaction.ops.push({
        op: 'change',
        change: { ...change, xid: transaction.xid },
        seq: (server.sequence += 1),
      })
  }

  /**
   * The rule removed: the application records its change in a second transaction, if it lives so
   * long.
   */
  #changeLater(server: ModelServer, changes: readonly Change[]): void {
    if (this.#random.chance(0.1)) return
    this.#database.later(server, this.#random.between(0, 10), () => {
      const transaction = server.begin([])!
      this.#outbox(server, transaction, changes)
      this.#database.commit(server, transaction, () => undefined)
    })
  }

  #follow(item: Write, commit: Commit): void {
    const { epoch, xid } = commit.token
    for (const { node, what, delayMs, by } of item.after) {
      const floors = new Map(
        item.keys.map((key) => [
          key,
          { atMs: commit.revealedAtMs, why: by === 'token' ? ('G3' as const) : ('G1' as const) },
        ]),
      )
      if (by === 'token') {
        if (epoch !== null)
          this.#world.after(delayMs, () =>
            this.#read(node, { what, token: { epoch, xid }, floors }),
          )
      } else
        this.#everywhere(commit, this.#world.now, () =>
          this.#world.after(delayMs, () => this.#read(node, { what, token: null, floors })),
        )
    }
  }

  /** Every live node has applied the write, or its lease is over. */
  #everywhere(commit: Commit, sinceMs: number, done: () => void): void {
    const { epoch, xid } = commit.token
    const behind = this.#nodes.some(
      (node) =>
        node.up &&
        !(node.feed.epoch === epoch && node.feed.cursor !== null && visible(node.feed.cursor, xid)),
    )
    if (!behind || this.#world.now > sinceMs + leaseMs) done()
    else this.#world.after(1, () => this.#everywhere(commit, sinceMs, done))
  }
}

function describe(result: CacheResult<string>): string {
  if (result.kind === 'refused') return `refused: ${result.reason}`
  return result.kind === 'failed' ? 'failed' : `is ${result.value} (${result.kind})`
}
