import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { startTestPostgres } from '#test/support/database.ts'
import { startProxy } from '#test/support/proxy.ts'
import { startTestRedis } from '#test/support/redis.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'
import { contenders } from './support/race-contenders.ts'
import type { Contender, RaceNode } from './support/race-contenders.ts'

const rounds = 200
/** Rounds of different keys that run side by side. */
const batch = 20
const resetKeys = 50
/** The messages between nodes have arrived after this time, on a busy machine too. */
const settleMs = 200
/** Every library has connected again after this time. */
const reconnectMs = 5_000

type Database = {
  read(key: string): Promise<string | null>
  write(key: string, value: string): Promise<void>
}
type Nodes = { readonly nodes: readonly [RaceNode, RaceNode, RaceNode]; cut(): void; heal(): void }

const keysOf = (name: string, from: number, count: number): string[] =>
  Array.from({ length: count }, (_, at) => `${name}:${from + at}`)

async function isStale(
  nodes: readonly RaceNode[],
  key: string,
  expected: string,
): Promise<boolean> {
  const values = await Promise.all(nodes.map(async (node) => node.get(key)))
  return values.some((value) => value !== expected)
}

async function countStale(
  nodes: readonly RaceNode[],
  keys: readonly string[],
  expected: string,
): Promise<number> {
  return (await Promise.all(keys.map(async (key) => isStale(nodes, key, expected)))).filter(Boolean)
    .length
}

/** No operations overlap: every cache that is set up correctly passes here. */
async function orderly(database: Database, { nodes }: Nodes): Promise<number> {
  const keys = keysOf('orderly', 0, resetKeys)
  for (const key of keys) {
    await database.write(key, 'old')
    for (const node of nodes) await node.get(key)
  }
  for (const key of keys) {
    await database.write(key, 'new')
    await nodes[1].invalidate(key)
  }
  await sleep(settleMs)
  return countStale(nodes, keys, 'new')
}

/**
 * A fill reads the old value; a write commits and invalidates; the fill then stores. Is the loader,
 * or a third node, stale afterwards?
 */
async function fillRace(
  database: Database,
  { nodes: [loader, writer, third] }: Nodes,
): Promise<number> {
  let stale = 0
  for (let from = 0; from < rounds; from += batch) {
    const keys = keysOf('fill', from, batch)
    for (const key of keys) await database.write(key, 'old')
    const { promise: pause, resolve: go } = Promise.withResolvers<void>()
    const fills = keys.map(async (key) => loader.get(key, pause))
    await sleep(settleMs)
    for (const key of keys) {
      await database.write(key, 'new')
      await writer.invalidate(key)
    }
    await sleep(settleMs)
    go()
    await Promise.all(fills)
    await sleep(settleMs)
    stale += await countStale([loader, third], keys, 'new')
  }
  return stale
}

/**
 * Two nodes write the same row one after the other, and notify their caches in the opposite order.
 */
async function overwriteRace(database: Database, { nodes }: Nodes): Promise<number> {
  let stale = 0
  for (let from = 0; from < rounds; from += batch) {
    const keys = keysOf('overwrite', from, batch)
    for (const key of keys) {
      await database.write(key, 'old')
      for (const node of nodes) await node.get(key)
      await database.write(key, 'first')
      await database.write(key, 'second')
      await nodes[1].put(key, 'second')
      await nodes[0].put(key, 'first')
    }
    await sleep(settleMs)
    stale += await countStale(nodes, keys, 'second')
  }
  return stale
}

/** A node that is cut off from the others while they write, and connected again. */
async function linkReset(database: Database, cluster: Nodes): Promise<number> {
  const keys = keysOf('reset', 0, resetKeys)
  const [, writer, cutOff] = cluster.nodes
  for (const key of keys) {
    await database.write(key, 'old')
    for (const node of cluster.nodes) await node.get(key)
  }
  cluster.cut()
  await sleep(settleMs)
  for (const key of keys) {
    await database.write(key, 'new')
    await writer.invalidate(key)
  }
  await sleep(settleMs)
  cluster.heal()
  await sleep(reconnectMs)
  return countStale([cutOff], keys, 'new')
}

async function race(
  contender: Contender,
  urls: { readonly database: string; readonly redis: string },
  database: Database,
): Promise<readonly [number, number, number, number]> {
  const target = contender.name === 'stoa' ? urls.database : urls.redis
  await using way = await startProxy(target)
  const join = async (busUrl: string): Promise<RaceNode> =>
    contender.join({
      databaseUrl: urls.database,
      redisUrl: urls.redis,
      busUrl,
      prefix: `${contender.name}:`,
      read: async (key) => database.read(key),
    })
  const nodes = [await join(target), await join(target), await join(way.url)] as const
  const cluster: Nodes = { nodes, cut: () => way.refuse(), heal: () => way.heal() }
  await sleep(settleMs)
  try {
    return [
      await orderly(database, cluster),
      await fillRace(database, cluster),
      await overwriteRace(database, cluster),
      await linkReset(database, cluster),
    ]
  } finally {
    for (const node of nodes) await node.close()
  }
}

export const benchmark: Benchmark = {
  claim:
    'No ordinary race leaves a node with an old value: a fill that a write overtakes, two ' +
    'writes announced in the wrong order, a cut between nodes. Widely used caches run the ' +
    'same races.',
  run: async (say) => {
    const server = await startTestPostgres()
    await using redis = await startTestRedis()
    const pool = new pg.Pool({ connectionString: server.url, max: 10 })
    pool.on('error', (error) => say(`a connection ended: ${error.message}`))
    await pool.query('create table race_item (key text primary key, value text not null)')
    const database: Database = {
      read: async (key) =>
        (await pool.query<{ value: string }>('select value from race_item where key = $1', [key]))
          .rows[0]?.value ?? null,
      write: async (key, value) =>
        void (await pool.query(
          `insert into race_item values ($1, $2)
           on conflict (key) do update set value = excluded.value`,
          [key, value],
        )),
    }
    const figures: Figure[] = []
    for (const contender of contenders) {
      say(contender.name)
      await pool.query('truncate race_item')
      const [plain, fill, overwrite, reset] = await race(
        contender,
        { database: server.url, redis: redis.url },
        database,
      )
      const bound = contender.name === 'stoa' ? { atMost: 0 } : {}
      figures.push({
        name: `${contender.name}: no race`,
        value: plain,
        unit: `of ${resetKeys}`,
        atMost: 0,
      })
      figures.push({
        name: `${contender.name}: fill race`,
        value: fill,
        unit: `of ${rounds}`,
        ...bound,
      })
      figures.push({
        name: `${contender.name}: overwrite race`,
        value: overwrite,
        unit: `of ${rounds}`,
        ...bound,
      })
      figures.push({
        name: `${contender.name}: after a cut`,
        value: reset,
        unit: `of ${resetKeys}`,
        ...bound,
      })
    }
    await pool.end()
    await server.stop()
    return {
      figures,
      notes: [
        'Stale rounds, some 200 ms to 5 s after the race, with entries that live an hour. ' +
          'Three nodes each, a Redis as second level and bus for the peers.',
        'The cut takes the bus of a peer, and for Stoa the whole way to the database.',
      ],
    }
  },
}
