import type { Change } from '#change-feed/change.ts'
import type { NodeRow, DutyRow } from '#nodes/nodes-core.ts'

/** A row of the application: which write made it, and the group that lists filter by. */
export type ItemRow = { readonly value: string; readonly group: number }

/** One durable change to the tables: what the write-ahead log carries. */
export type Op =
  | { readonly op: 'item'; readonly key: string; readonly row: ItemRow | null }
  | { readonly op: 'change'; readonly change: Change; readonly seq: number }
  | { readonly op: 'beat'; readonly counter: number }
  | { readonly op: 'life'; readonly number: number; readonly epoch: string }
  | { readonly op: 'trim'; readonly keptFrom: number }
  | { readonly op: 'duty'; readonly duty: string; readonly value: DutyRow }
  | { readonly op: 'node'; readonly node: string; readonly value: NodeRow | null }
  | {
      readonly op: 'effect'
      readonly duty: string
      readonly fence: number
      readonly tick: number
      readonly node: string
    }

export type OutboxRow = {
  readonly change: Change
  readonly seq: number
  readonly lsn: number
  readonly atMs: number
}
export type Effect = {
  readonly duty: string
  readonly fence: number
  readonly tick: number
  readonly node: string
}

export type Tables = {
  readonly items: Map<string, ItemRow>
  outbox: OutboxRow[]
  beat: number
  lifeNumber: number
  /** The logged copy of the epoch: what a replica can read. */
  epoch: string | null
  keptFrom: number
  readonly duties: Map<string, DutyRow>
  readonly nodes: Map<string, NodeRow>
  readonly effects: Effect[]
}

export function emptyTables(): Tables {
  return {
    items: new Map(),
    outbox: [],
    beat: 0,
    lifeNumber: 0,
    epoch: null,
    keptFrom: 0,
    duties: new Map(),
    nodes: new Map(),
    effects: [],
  }
}

export function applyOp(tables: Tables, op: Op, lsn: number, atMs: number): void {
  switch (op.op) {
    case 'item':
      if (op.row === null) tables.items.delete(op.key)
      else tables.items.set(op.key, op.row)
      return
    case 'change':
      tables.outbox.push({ change: op.change, seq: op.seq, lsn, atMs })
      return
    case 'beat':
      tables.beat = op.counter
      return
    case 'life':
      tables.lifeNumber = op.number
      tables.epoch = op.epoch
      return
    case 'trim':
      tables.keptFrom = op.keptFrom
      tables.outbox = tables.outbox.filter((row) => row.change.xid >= op.keptFrom)
      return
    case 'duty':
      tables.duties.set(op.duty, op.value)
      return
    case 'node':
      if (op.value === null) tables.nodes.delete(op.node)
      else tables.nodes.set(op.node, op.value)
      return
    case 'effect':
      tables.effects.push({ duty: op.duty, fence: op.fence, tick: op.tick, node: op.node })
  }
}
