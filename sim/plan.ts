import { Random } from './random.ts'

/**
 * All that a seed decides beforehand: the cluster, what its clients do and what goes wrong.
 * Shrinking takes items away.
 */
export type Plan = {
  readonly seed: number
  readonly nodes: number
  readonly synchronous: boolean
  readonly asynchronousCommit: boolean
  readonly replica: boolean
  readonly secondLevel: boolean
  /**
   * Of polls and hints: one that nodes need not leave out others' hints for, or one where they do.
   */
  readonly gapMs: number
  readonly slowShare: number
  readonly items: readonly PlanItem[]
}

export type PlanItem = { readonly atMs: number } & (
  | { readonly kind: 'read'; readonly node: number; readonly what: string }
  | Write
  | {
      readonly kind: 'pause'
      readonly node: number
      readonly forMs: number
      readonly suspended: boolean
    }
  | { readonly kind: 'crashNode'; readonly node: number; readonly forMs: number }
  | { readonly kind: 'wallJump'; readonly node: number; readonly byMs: number }
  | { readonly kind: 'cutDatabase' | 'slowDatabase'; readonly node: number; readonly forMs: number }
  | { readonly kind: 'drain'; readonly node: number; readonly forMs: number }
  | { readonly kind: 'cutLink'; readonly forMs: number }
  | { readonly kind: 'crashDatabase'; readonly forMs: number }
  | {
      readonly kind: 'failover'
      readonly zombie: boolean
      readonly promoteMs: number
      readonly rebuildMs: number
    }
  | { readonly kind: 'pauseReplay'; readonly forMs: number }
  | { readonly kind: 'secondFailover' }
  | { readonly kind: 'trim'; readonly keepMs: number }
)

export type Write = {
  readonly atMs: number
  readonly kind: 'write'
  /** Null: a write past the nodes. */
  readonly node: number | null
  readonly keys: readonly string[]
  readonly value: string
  readonly group: number | null
  /** How long the transaction stays open before it commits. */
  readonly holdMs: number
  readonly prepared: boolean
  readonly abort: boolean
  /** Reads that follow the acknowledgement: with its token, or after waiting for the cluster. */
  readonly after: readonly {
    readonly node: number
    readonly what: string
    readonly delayMs: number
    readonly by: 'token' | 'cluster'
  }[]
}

export const keys = ['a', 'b', 'c', 'd'] as const
/** The lease of nodes and duties. */
export const nodeLeaseMs = 450
export const duties = ['publisher', 'indexer'] as const
export const endMs = 4_000

/** `L` in the simulation: shorter than the default, so that more happens in each of them. */
export const leaseMs = 300

export function makePlan(seed: number): Plan {
  const random = new Random(seed)
  const nodes = random.pick([2, 3, 3])
  const synchronous = random.chance(0.5)
  const items: PlanItem[] = []
  const writes = 8 + random.below(18)
  const hot = random.chance(0.5) ? keys.slice(0, 2) : keys
  for (let number = 0; number < writes; number += 1)
    items.push(write(random, `w${number + 1}`, nodes, hot))
  for (let number = 30 + random.below(50); number > 0; number -= 1) {
    items.push({
      kind: 'read',
      atMs: random.between(0, endMs),
      node: random.below(nodes),
      what: what(random, hot),
    })
  }
  // Readers often come just around a write: that is where the races are.
  for (const item of items.filter((one): one is Write => one.kind === 'write')) {
    for (let count = random.below(4); count > 0; count -= 1) {
      items.push({
        kind: 'read',
        atMs: Math.max(0, item.atMs + item.holdMs + random.between(-20, 30)),
        node: random.below(nodes),
        what: `row:${item.keys[0]!}`,
      })
    }
  }
  const faults = random.chance(0.2) ? 0 : 1 + random.below(5)
  for (let number = 0; number < faults; number += 1) {
    const item = fault(random, nodes)
    items.push(item)
    if (item.kind === 'crashDatabase') items.push(...aroundCrash(random, item, number, nodes))
  }
  if (random.chance(0.6))
    for (let atMs = 300; atMs < endMs; atMs += 400) items.push({ kind: 'trim', atMs, keepMs: 150 })
  items.sort((one, other) => one.atMs - other.atMs)
  return {
    seed,
    nodes,
    synchronous,
    asynchronousCommit: !synchronous && random.chance(0.3),
    replica: random.chance(0.3),
    secondLevel: random.chance(0.4),
    gapMs: seed % 4 === 0 ? 25 : 2,
    slowShare: random.pick([0.02, 0.1, 0.3]),
    items,
  }
}

function what(random: Random, hot: readonly string[]): string {
  const chance = random.next()
  if (chance < 0.55) return `row:${random.pick(hot)}`
  if (chance < 0.7) return `group:${random.below(2)}`
  if (chance < 0.85) return `top:${random.below(2)}`
  return `row:${random.pick(hot)}+row:${random.pick(hot)}`
}

function write(random: Random, value: string, nodes: number, hot: readonly string[]): PlanItem {
  const key = random.pick(hot)
  const other = random.pick(keys)
  const chosen = random.chance(0.15) && other !== key ? [key, other] : [key]
  const node = random.chance(0.1) ? null : random.below(nodes)
  const long = random.chance(0.15)
  const after = []
  for (let count = random.below(3); count > 0; count -= 1) {
    after.push({
      node: random.below(nodes),
      delayMs: random.chance(0.5) ? random.between(0, 3) : random.between(0, 150),
      by: random.pick(['token', 'cluster'] as const),
      what: random.pick([
        `row:${key}`,
        `row:${key}`,
        `group:${random.below(2)}`,
        `row:${key}+row:${other}`,
      ]),
    })
  }
  return {
    kind: 'write',
    atMs: random.between(0, endMs),
    node,
    keys: chosen,
    value,
    group: random.chance(0.1) ? null : random.below(2),
    holdMs: long ? random.between(50, 1_200) : random.between(0, 5),
    prepared: random.chance(0.1),
    abort: random.chance(0.12),
    after,
  }
}

/** Ids that were given out just before a crash, and the first ones after it: some are the same. */
function aroundCrash(
  random: Random,
  { atMs, forMs }: { readonly atMs: number; readonly forMs: number },
  number: number,
  nodes: number,
): PlanItem[] {
  const common = { kind: 'write', prepared: false, after: [], holdMs: 0 } as const
  const items: PlanItem[] = []
  for (let count = 0; count < 3; count += 1) {
    items.push({
      ...common,
      atMs: atMs - random.between(1, 6),
      node: null,
      keys: [keys[count]!],
      value: `x${number}${count}`,
      group: 0,
      abort: random.chance(0.6),
    })
    items.push({
      ...common,
      atMs: atMs + forMs + random.between(0.1, 12),
      node: random.chance(0.5) ? null : random.below(nodes),
      keys: [random.pick(keys)],
      value: `y${number}${count}`,
      group: 1,
      abort: false,
    })
  }
  return items
}

function fault(random: Random, nodes: number): PlanItem {
  const atMs = random.between(200, endMs * 0.8)
  const node = random.below(nodes)
  const forMs = random.between(50, 900)
  switch (random.below(13)) {
    case 0:
      return { kind: 'crashNode', atMs, node, forMs }
    case 1:
      return { kind: 'wallJump', atMs, node, byMs: random.between(-5_000, 5_000) }
    case 2:
      return { kind: 'cutDatabase', atMs, node, forMs }
    case 3:
      return { kind: 'slowDatabase', atMs, node, forMs }
    case 4:
      return { kind: 'cutLink', atMs, forMs }
    case 5:
    case 6:
      return { kind: 'crashDatabase', atMs, forMs: random.between(5, 400) }
    case 7:
    case 8:
    case 9:
      return {
        kind: 'failover',
        atMs,
        zombie: random.chance(0.6),
        promoteMs: random.between(1, 200),
        rebuildMs: random.between(300, 1_500),
      }
    case 11:
      return { kind: 'drain', atMs, node, forMs }
    case 10:
      return random.chance(0.5)
        ? { kind: 'secondFailover', atMs }
        : { kind: 'pauseReplay', atMs, forMs }
    default:
      return { kind: 'pause', atMs, node, forMs, suspended: random.chance(0.5) }
  }
}
