import { leads, nextNodesTickMs, startNodes, stepNodes } from '#nodes/nodes-core.ts'
import type {
  NodeRow,
  NodesConfig,
  NodesEffect,
  NodesEvent,
  NodesState,
  DutyRow,
} from '#nodes/nodes-core.ts'
import { duties } from './plan.ts'
import type { ModelServer } from './model-server.ts'
import type { Connection } from './network.ts'
import type { SimNode } from './sim-node.ts'
import type { Op } from './tables.ts'

type Read = { readonly nodes: readonly NodeRow[]; readonly duties: readonly DutyRow[] }

/** Leaders act once per tick. */
export const tickMs = 100

/** The membership and leadership of one start of a node: the real core on the simulated network. */
export class SimLeadership {
  readonly id: string
  readonly node: SimNode
  readonly #config: NodesConfig
  readonly #fenced: boolean
  readonly #life: number
  #state: NodesState
  #server: Connection | null = null

  constructor(
    id: string,
    node: SimNode,
    config: NodesConfig,
    options: { readonly fenced: boolean },
  ) {
    this.id = id
    this.node = node
    this.#config = config
    this.#fenced = options.fenced
    this.#life = node.life
    this.#state = startNodes(id, node.clock.elapsedMs(), duties)
    this.#loop()
    this.#act()
  }

  drain(): void {
    this.#step({ kind: 'drain' })
  }

  leave(): void {
    this.#step({ kind: 'leave' })
  }

  #gone(): boolean {
    return !this.node.up || this.node.life !== this.#life || this.#state.mode === 'left'
  }

  #loop(): void {
    const waitMs = Math.min(
      50,
      Math.max(1, nextNodesTickMs(this.#state, this.#config) - this.node.clock.elapsedMs()),
    )
    this.node.deliver(waitMs, () => {
      if (this.#gone()) return
      this.#step({ kind: 'tick' })
      this.#loop()
    })
  }

  #step(event: NodesEvent): void {
    if (this.#gone()) return
    const { state, effects } = stepNodes(
      this.#state,
      event,
      this.node.clock.elapsedMs(),
      this.#config,
    )
    this.#state = state
    for (const effect of effects) this.#perform(effect)
  }

  /**
   * What a leader does on every tick; between its look at the clock and the commit anything may
   * happen.
   */
  #act(): void {
    this.node.deliver(tickMs / 2, () => {
      if (this.#gone()) return
      for (const duty of duties) {
        const fence = leads(this.#state, duty, this.node.clock.elapsedMs(), this.#config)
        if (fence !== null)
          this.node.deliver(
            this.node.network.random.chance(0.1) ? this.node.network.random.between(0, 800) : 0,
            () => this.#effect(duty, fence),
          )
      }
      this.#act()
    })
  }

  #effect(duty: string, fence: number): void {
    const tick = Math.floor(this.node.world.now / tickMs)
    this.#transact(
      this.#fenced ? [`duty ${duty}`] : [],
      (server) => {
        if (this.#fenced && !holds(server, duty, this.id, fence)) return 'fenced'
        if (server.tables.effects.some((effect) => effect.duty === duty && effect.tick === tick))
          return null
        return [{ op: 'effect', duty, fence, tick, node: this.id }]
      },
      (outcome) => {
        if (outcome === 'fenced') this.#step({ kind: 'fenced', duty, fence })
      },
    )
  }

  /**
   * One transaction: locks, looks, writes, commits. `failed` covers a broken connection and a row
   * that another node holds.
   */
  #transact(
    locks: readonly string[],
    work: (server: ModelServer) => Op[] | 'fenced' | null,
    done: (outcome: 'done' | 'nothing' | 'fenced' | 'failed', read: Read | null) => void,
  ): void {
    const { network } = this.node
    this.#server ??= network.connect()
    const failed = (): void => {
      this.#server = null
      done('failed', null)
    }
    const ask = { connection: this.#server, slow: false, failed }
    network.ask(this.node, ask, (server, respond) => {
      const transaction = server.role === 'primary' ? server.begin(locks) : null
      if (transaction === null) return respond(() => done('failed', null))
      const ops = work(server)
      if (ops === 'fenced' || ops === null) {
        server.abort(transaction)
        return respond(() => done(ops === null ? 'nothing' : 'fenced', null))
      }
      transaction.ops.push(...ops)
      network.database.commit(server, transaction, () => {
        const read: Read = {
          nodes: [...server.tables.nodes.values()],
          duties: [...server.tables.duties.values()],
        }
        respond(() => done('done', read))
      })
    })
  }

  #perform(effect: NodesEffect): void {
    switch (effect.kind) {
      case 'beat':
        return this.#beat(effect)
      case 'take': {
        let fence: number | null = null
        const ops = (server: ModelServer): Op[] | null => {
          const row = server.tables.duties.get(effect.duty) ?? null
          if (
            row?.fence !== effect.seen?.fence ||
            row?.renewal !== effect.seen?.renewal ||
            row?.holder !== effect.seen?.holder
          )
            return null
          fence = (row?.fence ?? 0) + 1
          return [
            {
              op: 'duty',
              duty: effect.duty,
              value: { duty: effect.duty, holder: this.id, fence, renewal: 0 },
            },
          ]
        }
        return this.#transact([`duty ${effect.duty}`], ops, (outcome) =>
          this.#step({
            kind: 'taken',
            duty: effect.duty,
            id: effect.id,
            fence: outcome === 'done' ? fence : null,
          }),
        )
      }
      case 'release': {
        const value = { duty: effect.duty, holder: '', fence: effect.fence, renewal: 0 }
        const ops = (server: ModelServer): Op[] | null =>
          holds(server, effect.duty, this.id, effect.fence)
            ? [{ op: 'duty', duty: effect.duty, value }]
            : null
        return this.#transact([`duty ${effect.duty}`], ops, () => undefined)
      }
      case 'leave':
        return this.#transact(
          [`node ${this.id}`],
          () => [{ op: 'node', node: this.id, value: null }],
          () => undefined,
        )
      case 'remove':
        return this.#transact(
          [],
          () => effect.nodes.map((node) => ({ op: 'node', node, value: null })),
          () => undefined,
        )
      case 'lead':
        return this.node.world.log(
          this.node.name,
          () => `leads as ${effect.duty} with fence ${effect.fence}`,
        )
      case 'stepDown':
        return this.node.world.log(this.node.name, () => `no longer leads as ${effect.duty}`)
    }
  }

  #beat(effect: Extract<NodesEffect, { kind: 'beat' }>): void {
    const locks = [`node ${this.id}`, ...effect.renew.map(({ duty }) => `duty ${duty}`)]
    const ops = (server: ModelServer): Op[] => {
      const counter = (server.tables.nodes.get(this.id)?.counter ?? 0) + 1
      const renewed = effect.renew
        .filter(({ duty, fence }) => holds(server, duty, this.id, fence))
        .map(({ duty }) => server.tables.duties.get(duty)!)
      return [
        { op: 'node', node: this.id, value: { id: this.id, counter, draining: effect.draining } },
        ...renewed.map((row): Op => ({
          op: 'duty',
          duty: row.duty,
          value: { ...row, renewal: row.renewal + 1 },
        })),
      ]
    }
    this.#transact(locks, ops, (outcome, read) => {
      if (outcome !== 'done' || read === null)
        return this.#step({ kind: 'beatFailed', id: effect.id })
      this.#step({ kind: 'beaten', id: effect.id, ...read })
    })
  }
}

function holds(server: ModelServer, duty: string, holder: string, fence: number): boolean {
  const row = server.tables.duties.get(duty)
  return row !== undefined && row.holder === holder && row.fence === fence
}
