import type { Envelope } from '#cache/cache-state.ts'
import type { ModelDatabase } from './model-database.ts'
import type { ModelServer } from './model-server.ts'
import type { Random } from './random.ts'
import type { SimNode } from './sim-node.ts'
import type { World } from './world.ts'

/**
 * Delays, losses and partitions between nodes, database servers, Cluster Link and the second level.
 */
export type Connection = { readonly server: ModelServer; readonly life: number }

type Ask = {
  readonly connection: Connection | null
  readonly slow: boolean
  readonly failed: () => void
}

export class Network {
  readonly world: World
  readonly random: Random
  readonly database: ModelDatabase
  nodes: readonly SimNode[] = []
  /** Until when the way between a node and all database servers swallows everything. */
  readonly databaseCutUntilMs = new Map<string, number>()
  readonly databaseSlowUntilMs = new Map<string, number>()
  linkCutUntilMs = 0
  linkLossShare = 0.05
  slowShare: number
  #second = new Map<string, Envelope<string>>()
  #secondOld = new Map<string, Envelope<string>>()

  constructor(
    world: World,
    random: Random,
    database: ModelDatabase,
    options: { readonly slowShare: number },
  ) {
    this.world = world
    this.random = random
    this.database = database
    this.slowShare = options.slowShare
  }

  /** A server that says it is the primary: while there is a zombie, that may be the wrong one. */
  connect(): Connection {
    const candidates = this.database.servers.filter(
      (server) => server.up && server.role === 'primary',
    )
    return this.connectTo(
      candidates.length === 0 ? this.database.primary : this.random.pick(candidates),
    )
  }

  connectTo(server: ModelServer): Connection {
    return { server, life: this.database.lifeOf(server) }
  }

  #delay(node: SimNode): number {
    const slow = (this.databaseSlowUntilMs.get(node.name) ?? 0) > this.world.now
    if (slow) return this.random.between(100, 250)
    return this.random.chance(0.95) ? this.random.between(0.1, 1.5) : this.random.between(1, 20)
  }

  #cut(node: SimNode): boolean {
    return (this.databaseCutUntilMs.get(node.name) ?? 0) > this.world.now
  }

  /**
   * One statement: out, `work` at the server, back. `failed` when the connection breaks; nothing at
   * all in a partition. `slow`: the response may take long, as that of a large query does.
   */
  ask(
    node: SimNode,
    { connection, slow, failed }: Ask,
    work: (server: ModelServer, respond: (then: () => void) => void) => void,
  ): void {
    if (connection === null) return node.deliver(0.1, failed)
    const { server, life } = connection
    if (this.#cut(node)) return
    this.world.after(this.#delay(node), () => {
      if (this.#cut(node)) return
      if (!server.up || this.database.lifeOf(server) !== life)
        return node.deliver(this.#delay(node), failed)
      work(server, (then) => {
        if (this.#cut(node)) return
        const slowMs = slow && this.random.chance(this.slowShare) ? this.random.between(20, 900) : 0
        node.deliver(this.#delay(node) + slowMs, () => {
          if (slowMs === 0 && this.database.lifeOf(server) !== life) failed()
          else then()
        })
      })
    })
  }

  broadcast(from: SimNode): void {
    if (this.linkCutUntilMs > this.world.now) return
    for (const node of this.nodes) {
      if (node === from || this.random.chance(this.linkLossShare)) continue
      for (let copies = this.random.chance(0.05) ? 2 : 1; copies > 0; copies -= 1) {
        node.deliver(
          this.random.chance(0.9) ? this.random.between(0.2, 3) : this.random.between(3, 100),
          () => node.hint(),
        )
      }
    }
  }

  secondGet(node: SimNode, key: string, done: (found: Envelope<string> | null) => void): void {
    const found = this.#second.get(key) ?? null
    node.deliver(this.random.between(0.1, 3), () => done(this.random.chance(0.05) ? null : found))
  }

  secondPut(key: string, envelope: Envelope<string>): void {
    this.world.after(
      this.random.chance(0.8) ? this.random.between(0.1, 3) : this.random.between(3, 300),
      () => {
        if (this.random.chance(0.03)) return
        const before = this.#second.get(key)
        if (before !== undefined && this.random.chance(0.5)) this.#secondOld.set(key, before)
        this.#second.set(key, envelope)
      },
    )
  }

  /** The second level fails over to a copy that lags behind. */
  secondFailover(): void {
    for (const [key, old] of this.#secondOld) this.#second.set(key, old)
  }
}
