import { leads, nextNodesTickMs, startNodes, stepNodes } from '#nodes/nodes-core.ts'
import type {
  Member,
  NodesConfig,
  NodesEffect,
  NodesEvent,
  NodesState,
  RoleRow,
} from '#nodes/nodes-core.ts'
import type { ModelServer } from './model-server.ts'
import type { Connection } from './network.ts'
import type { SimNode } from './sim-node.ts'
import type { Op } from './tables.ts'

type Read = { readonly members: readonly Member[]; readonly roles: readonly RoleRow[] }

/** Leaders act once per tick. */
export const tickMs = 100

/** The membership and leadership of one start of a node: the real core on the simulated network. */
export class SimMember {
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
    this.#state = startNodes(id, node.clock.elapsedMs())
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
      for (const role of this.#config.roles) {
        const fence = leads(this.#state, role, this.node.clock.elapsedMs(), this.#config)
        if (fence !== null)
          this.node.deliver(
            this.node.network.random.chance(0.1) ? this.node.network.random.between(0, 800) : 0,
            () => this.#effect(role, fence),
          )
      }
      this.#act()
    })
  }

  #effect(role: string, fence: number): void {
    const tick = Math.floor(this.node.world.now / tickMs)
    this.#transact(
      this.#fenced ? [`role ${role}`] : [],
      (server) => {
        if (this.#fenced && !holds(server, role, this.id, fence)) return 'fenced'
        if (server.tables.effects.some((effect) => effect.role === role && effect.tick === tick))
          return null
        return [{ op: 'effect', role, fence, tick, node: this.id }]
      },
      (outcome) => {
        if (outcome === 'fenced') this.#step({ kind: 'fenced', role, fence })
      },
    )
  }

  /**
   * One transaction: locks, looks, writes, commits. `failed` covers a broken connection and a row
   * that somebody else holds.
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
    network.ask(this.node, this.#server, { slow: false }, failed, (server, respond) => {
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
          members: [...server.tables.members.values()],
          roles: [...server.tables.roles.values()],
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
          const row = server.tables.roles.get(effect.role) ?? null
          if (
            row?.fence !== effect.seen?.fence ||
            row?.renewal !== effect.seen?.renewal ||
            row?.holder !== effect.seen?.holder
          )
            return null
          fence = (row?.fence ?? 0) + 1
          return [
            {
              op: 'role',
              role: effect.role,
              value: { role: effect.role, holder: this.id, fence, renewal: 0 },
            },
          ]
        }
        return this.#transact([`role ${effect.role}`], ops, (outcome) =>
          this.#step({
            kind: 'taken',
            role: effect.role,
            id: effect.id,
            fence: outcome === 'done' ? fence : null,
          }),
        )
      }
      case 'release': {
        const value = { role: effect.role, holder: '', fence: effect.fence, renewal: 0 }
        const ops = (server: ModelServer): Op[] | null =>
          holds(server, effect.role, this.id, effect.fence)
            ? [{ op: 'role', role: effect.role, value }]
            : null
        return this.#transact([`role ${effect.role}`], ops, () => undefined)
      }
      case 'leave':
        return this.#transact(
          [`member ${this.id}`],
          () => [{ op: 'member', node: this.id, value: null }],
          () => undefined,
        )
      case 'bury':
        return this.#transact(
          [],
          () => effect.members.map((node) => ({ op: 'member', node, value: null })),
          () => undefined,
        )
      case 'lead':
        return this.node.world.log(
          this.node.name,
          () => `leads as ${effect.role} with fence ${effect.fence}`,
        )
      case 'stepDown':
        return this.node.world.log(this.node.name, () => `no longer leads as ${effect.role}`)
    }
  }

  #beat(effect: Extract<NodesEffect, { kind: 'beat' }>): void {
    const locks = [`member ${this.id}`, ...effect.renew.map(({ role }) => `role ${role}`)]
    const ops = (server: ModelServer): Op[] => {
      const counter = (server.tables.members.get(this.id)?.counter ?? 0) + 1
      const renewed = effect.renew
        .filter(({ role, fence }) => holds(server, role, this.id, fence))
        .map(({ role }) => server.tables.roles.get(role)!)
      return [
        { op: 'member', node: this.id, value: { id: this.id, counter, draining: effect.draining } },
        ...renewed.map((row): Op => ({
          op: 'role',
          role: row.role,
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

function holds(server: ModelServer, role: string, holder: string, fence: number): boolean {
  const row = server.tables.roles.get(role)
  return row !== undefined && row.holder === holder && row.fence === fence
}
