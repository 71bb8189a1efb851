/**
 * The view of a PostgreSQL snapshot, as `pg_current_snapshot()` returns it: `xmin:xmax:xip,xip,…`.
 *
 * Transaction ids are 64 bits wide on the server and numbers here: a server that used a million of
 * them every second would reach 2^53 after 285 years. Anything larger is refused, never rounded.
 */
export type Snapshot = {
  /** Every transaction below it had ended. */
  readonly xmin: number
  /** No transaction from here on had ended. */
  readonly xmax: number
  /** Those in between that were still running, prepared ones included; ascending. */
  readonly xip: readonly number[]
}

const idPattern = /^\d{1,16}$/

/** Longest list of running transactions that is searched from its start; above it, by halves. */
const linearMax = 16

/** Parses a transaction id as `xid8` prints it. */
export function parseXid(text: string): number {
  const xid = idPattern.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(xid)) throw new RangeError(`not a transaction id: ${text.slice(0, 40)}`)
  return xid
}

export function parseSnapshot(text: string): Snapshot {
  const [first = '', second = '', third, ...more] = text.split(':')
  if (third === undefined || more.length > 0)
    throw new RangeError(`not a snapshot: ${text.slice(0, 80)}`)
  const xmin = parseXid(first)
  const xmax = parseXid(second)
  const xip = third === '' ? [] : third.split(',').map(parseXid)
  if (xmin > xmax)
    throw new RangeError(`not a snapshot: xmin is above xmax in ${text.slice(0, 80)}`)
  let last = xmin - 1
  for (const xid of xip) {
    if (xid <= last || xid >= xmax)
      throw new RangeError(`not a snapshot: ${xid} is out of order in ${text.slice(0, 80)}`)
    last = xid
  }
  return { xmin, xmax, xip }
}

export function formatSnapshot(snapshot: Snapshot): string {
  return `${snapshot.xmin}:${snapshot.xmax}:${snapshot.xip.join(',')}`
}

/**
 * Whether what the transaction wrote can be seen, provided that it committed. The same as
 * `pg_visible_in_snapshot`.
 */
export function visible(snapshot: Snapshot, xid: number): boolean {
  if (xid < snapshot.xmin) return true
  if (xid >= snapshot.xmax) return false
  return !contains(snapshot.xip, xid)
}

function contains(ascending: readonly number[], xid: number): boolean {
  if (ascending.length <= linearMax) return ascending.includes(xid)
  let low = 0
  let high = ascending.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const found = ascending[middle]!
    if (found === xid) return true
    if (found < xid) low = middle + 1
    else high = middle - 1
  }
  return false
}

/**
 * Whether `later` sees every transaction that `earlier` sees. Snapshots of one primary are ordered
 * by this, because each transaction leaves the list of running ones at one instant.
 */
export function includes(later: Snapshot, earlier: Snapshot): boolean {
  if (later === earlier) return true
  for (const xid of later.xip) if (visible(earlier, xid)) return false
  // Transactions that `earlier` saw at or above `later.xmax` would be lost: it must have been
  // running in `earlier`.
  if (earlier.xmax <= later.xmax) return true
  let running = 0
  for (let at = earlier.xip.length - 1; at >= 0 && earlier.xip[at]! >= later.xmax; at -= 1)
    running += 1
  return running === earlier.xmax - later.xmax
}

/**
 * The one that sees less. Only for two snapshots of one primary; where neither includes the other,
 * the first.
 */
export function earlierOf(one: Snapshot, other: Snapshot): Snapshot {
  return includes(one, other) ? other : one
}
