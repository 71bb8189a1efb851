/**
 * The checker of coherence. It knows nothing of Stoa's caches, only when each write was
 * acknowledged and what each reader was shown. Every entry holds a number that one writer raises
 * by one with each write.
 *
 * What a read must at least show follows from what had been acknowledged before it began; see
 * `read` and `list`. All times are of one clock.
 */

export type Violation = {
  readonly rule: 'stale' | 'token' | 'mark' | 'invented' | 'lost' | 'list' | 'rest' | 'refused'
  readonly text: string
}

/** One response. `staleS`: it was marked as stale for so many seconds; null: it was not. */
export type Shown = {
  readonly startMs: number
  readonly endMs: number
  readonly staleS: number | null
  readonly node: string
  readonly who?: string
}

type Acknowledged = { readonly n: number; readonly atMs: number }
type Entry = {
  attempted: number
  acknowledged: Acknowledged[]
  lost: { readonly above: number; readonly upTo: number; readonly fromMs: number }[]
}

const violationsKept = 50

export class Ledger {
  readonly #leaseMs: number
  readonly #groups: number
  readonly #entries = new Map<string, Entry>()
  /** The first violations; all are counted. */
  readonly violations: Violation[] = []
  readonly #counts = new Map<Violation['rule'], number>()
  checked = 0
  marked = 0

  /**
   * `numbers`: what each entry has at the beginning. One with the number `n` is in the list of the
   * group `n % groups`.
   */
  constructor(options: {
    readonly leaseMs: number
    readonly groups: number
    readonly numbers: ReadonlyMap<string, number>
  }) {
    this.#leaseMs = options.leaseMs
    this.#groups = options.groups
    for (const [key, n] of options.numbers)
      this.#entries.set(key, {
        attempted: n,
        acknowledged: [{ n, atMs: Number.NEGATIVE_INFINITY }],
        lost: [],
      })
  }

  get keys(): string[] {
    return [...this.#entries.keys()]
  }

  /** Call it before a write is sent: from now on `n` may be seen. */
  attempts(key: string, n: number): void {
    this.#entry(key).attempted = n
  }

  acknowledged(key: string, n: number, atMs: number): void {
    this.#entry(key).acknowledged.push({ n, atMs })
  }

  /** The number that must be there at the end. */
  lastAcknowledged(key: string): number {
    return this.#entry(key).acknowledged.at(-1)!.n
  }

  /** True once the outcome of every write is known. */
  get settled(): boolean {
    return [...this.#entries].every(
      ([key, { attempted }]) => attempted === this.lastAcknowledged(key),
    )
  }

  /**
   * An asynchronous standby took over, and has the number in `numbers` of each entry. Acknowledged
   * numbers above it are lost: the old primary was dead at `deadAtMs`, and a node that shows a lost
   * number to a reader who came more than a lease later violates coherence.
   */
  survived(numbers: ReadonlyMap<string, number>, deadAtMs: number): number {
    let lost = 0
    for (const [key, entry] of this.#entries) {
      const there = numbers.get(key) ?? 0
      const upTo = entry.acknowledged.at(-1)!.n
      if (upTo <= there) continue
      lost += upTo - there
      entry.lost.push({ above: there, upTo, fromMs: deadAtMs + this.#leaseMs })
      entry.acknowledged = entry.acknowledged.filter(({ n }) => n <= there)
    }
    return lost
  }

  /** One entry as it was shown. `mustShow`: the write that the reader's token names. */
  read(key: string, n: number, shown: Shown, mustShow: number | null = null): void {
    this.checked += 1
    if (shown.staleS !== null) this.marked += 1
    const complaint = this.#check(key, n, shown, mustShow)
    if (complaint === null) return
    const who = shown.who === undefined ? '' : ` (${shown.who})`
    this.violates(complaint.rule, `${shown.node}: ${key}=${n}, ${complaint.text}${who}`)
  }

  /**
   * The list of a group: entries that are there were current within the bound, and those that are
   * not need not be there.
   */
  list(group: number, there: ReadonlyMap<string, number>, shown: Shown): void {
    this.checked += 1
    if (shown.staleS !== null) this.marked += 1
    for (const [key, n] of there) {
      const complaint = this.#check(key, n, shown, null)
      if (complaint !== null)
        this.violates(
          complaint.rule,
          `${shown.node}: in list ${group}: ${key}=${n}, ${complaint.text}`,
        )
      if (n % this.#groups !== group)
        this.violates(
          'list',
          `${shown.node}: list ${group} shows ${key}=${n}, which belongs to ${n % this.#groups}`,
        )
    }
    for (const [key, entry] of this.#entries) {
      if (there.has(key) || this.#canBeAbsent(entry, group, shown)) continue
      this.violates(
        'list',
        `${shown.node}: list ${group} lacks ${key}, which has had ${entry.attempted} there ` +
          `for more than ${this.#leaseMs} ms`,
      )
    }
  }

  violates(rule: Violation['rule'], text: string): void {
    this.#counts.set(rule, this.count(rule) + 1)
    if (this.violations.length < violationsKept) this.violations.push({ rule, text })
  }

  count(...rules: readonly Violation['rule'][]): number {
    return rules.reduce((sum, rule) => sum + (this.#counts.get(rule) ?? 0), 0)
  }

  /** The number that was acknowledged by `beforeMs`: a response must show at least that. */
  #floor(entry: Entry, beforeMs: number): number {
    let n = entry.acknowledged[0]!.n
    for (let at = entry.acknowledged.length - 1; at >= 0; at -= 1) {
      const one = entry.acknowledged[at]!
      if (one.atMs > beforeMs) continue
      n = one.n
      break
    }
    return n
  }

  /**
   * An unmarked response was true within the lease before the request; a marked one within the time
   * that its mark says.
   */
  #asOfMs(shown: Shown): number {
    return (
      shown.startMs -
      (shown.staleS === null ? this.#leaseMs : Math.max(this.#leaseMs, shown.staleS * 1_000))
    )
  }

  #check(
    key: string,
    n: number,
    shown: Shown,
    mustShow: number | null,
  ): Pick<Violation, 'rule' | 'text'> | null {
    const entry = this.#entry(key)
    if (n > entry.attempted)
      return { rule: 'invented', text: `but no write above ${entry.attempted} was ever sent` }
    const undone = entry.lost.some(
      ({ above, upTo }) => mustShow !== null && mustShow > above && mustShow <= upTo,
    )
    if (mustShow !== null && n < mustShow && !undone)
      return { rule: 'token', text: `but the reader's token names ${mustShow}` }
    const floor = this.#floor(entry, this.#asOfMs(shown))
    if (n < floor) {
      const sinceMs = this.#since(entry, floor, shown)
      const text = `but ${floor} was acknowledged ${sinceMs} ms before the request`
      return shown.staleS === null
        ? { rule: 'stale', text }
        : { rule: 'mark', text: `${text}, and the mark says ${shown.staleS} s` }
    }
    const lost =
      shown.staleS === null
        ? entry.lost.find(
            ({ above, upTo, fromMs }) => n > above && n <= upTo && shown.startMs > fromMs,
          )
        : undefined
    if (lost === undefined) return null
    const sinceMs = Math.round(shown.startMs - lost.fromMs + this.#leaseMs)
    return { rule: 'lost', text: `which a failover undid ${sinceMs} ms before the request` }
  }

  #since(entry: Entry, n: number, shown: Shown): number {
    return Math.round(shown.startMs - entry.acknowledged.find((one) => one.n === n)!.atMs)
  }

  #canBeAbsent(entry: Entry, group: number, shown: Shown): boolean {
    const floor = this.#floor(entry, this.#asOfMs(shown))
    for (let n = floor; n <= entry.attempted; n += 1) if (n % this.#groups !== group) return true
    return false
  }

  #entry(key: string): Entry {
    const entry = this.#entries.get(key)
    if (entry === undefined) throw new Error(`no entry ${key} is known to the ledger`)
    return entry
  }
}
