import type { ItemRow } from './tables.ts'
import type { Truth } from './truth.ts'

/**
 * Checks every reading against the truth. It shares no code with the caches: it knows what
 * was read, what came back and when, in real time, and what the rows held.
 */
export type Reading = {
  readonly node: string
  readonly what: string
  readonly value: string
  readonly kind: 'hit' | 'filled' | 'stale'
  readonly askedAtMs: number
  readonly returnedAtMs: number
  /**
   * For rows that the reader must see at least as they were then: its token's write, or a write
   * that waited for the cluster.
   */
  readonly floors: ReadonlyMap<string, { readonly atMs: number; readonly why: 'G1' | 'G3' }>
}

export type Violation = {
  readonly invariant: 'G1' | 'G2' | 'G3' | 'G5' | 'G8' | 'liveness' | 'assertion'
  readonly atMs: number
  readonly text: string
}

export type CheckerConfig = { readonly leaseMs: number; readonly staleMs: number }

/** Floating-point dust of the virtual clocks. */
const slackMs = 0.001

export function check(reading: Reading, truth: Truth, config: CheckerConfig): Violation | null {
  const bound =
    reading.askedAtMs - config.leaseMs - (reading.kind === 'stale' ? config.staleMs : 0) - slackMs
  for (const part of reading.what.split('+')) {
    const violation = checkPart(reading, part, bound, truth)
    if (violation !== null) return violation
  }
  return null
}

function checkPart(reading: Reading, part: string, bound: number, truth: Truth): Violation | null {
  const [kind = '', name = ''] = part.split(':')
  const shown = new Map(
    reading.value
      .split('|')
      .find((text) => text.startsWith(`${part}>`))
      ?.slice(part.length + 1)
      .split(',')
      .filter((text) => text !== '')
      .map((text) => text.split('=') as [string, string]) ?? [],
  )
  if (kind === 'top')
    return checkPage(reading, { part, group: Number(name), shown: [...shown], bound }, truth)
  const keys = kind === 'row' ? [name] : truth.keys
  for (const key of keys) {
    const value = shown.get(key) ?? null
    const such = (row: ItemRow | null): boolean =>
      kind === 'row'
        ? (row?.value ?? null) === value
        : (row !== null && row.group === Number(name) ? row.value : null) === value
    const floor = reading.kind === 'stale' ? undefined : reading.floors.get(key)
    const seen: Seen = { part, key, value }
    if (!truth.was(key, such, bound, reading.returnedAtMs))
      return violationOf(reading, { ...seen, ...wrong(reading, bound) }, truth)
    if (
      floor !== undefined &&
      !truth.was(key, such, Math.max(bound, floor.atMs), reading.returnedAtMs)
    )
      return violationOf(reading, { ...seen, invariant: floor.why, sinceMs: floor.atMs }, truth)
  }
  return null
}

type Page = {
  readonly part: string
  readonly group: number
  readonly shown: readonly (readonly [string, string])[]
  readonly bound: number
}

/** A page shows one state of the whole list, so all of it must have been so at one instant. */
function checkPage(reading: Reading, page: Page, truth: Truth): Violation | null {
  const { part, group, shown, bound } = page
  const expected = shown.map(([key, value]) => `${key}=${value}`).join(',')
  for (const instant of truth.instants(bound, reading.returnedAtMs))
    if (topOf(truth, group, instant) === expected) return null
  const seen: Seen = { part, key: '', value: expected }
  return violationOf(reading, { ...seen, ...wrong(reading, bound) }, truth)
}

export const pageSize = 2

function topOf(truth: Truth, group: number, atMs: number): string {
  return truth.keys
    .map((key) => [key, truth.at(key, atMs)] as const)
    .filter(([, row]) => row !== null && row.group === group)
    .slice(0, pageSize)
    .map(([key, row]) => `${key}=${row!.value}`)
    .join(',')
}

/** A value that a reading showed. An empty key: the whole list. */
type Seen = { readonly part: string; readonly key: string; readonly value: string | null }

/** The invariant that a value breaks if no instant since then had it. */
type Wrong = { readonly invariant: Violation['invariant']; readonly sinceMs: number }

function wrong(reading: Reading, sinceMs: number): Wrong {
  return { invariant: reading.kind === 'stale' ? 'G8' : 'G2', sinceMs }
}

function violationOf(reading: Reading, found: Seen & Wrong, truth: Truth): Violation {
  const { part, key, value, invariant, sinceMs } = found
  const qualifier = {
    G1: 'although the write had been applied everywhere',
    G2: 'unmarked',
    G3: "although the reader's token was for a later write",
    G8: 'marked, but older than is allowed',
    G5: '',
    liveness: '',
    assertion: '',
  }[invariant]
  const keys = key === '' ? truth.keys : [key]
  return {
    invariant,
    atMs: reading.returnedAtMs,
    text: [
      [
        `${invariant}: ${reading.node} returned ${part} as`,
        `${key === '' ? '' : `${key} = `}${value ?? 'nothing'} (${reading.kind},`,
        `asked ${reading.askedAtMs.toFixed(1)},`,
        `returned ${reading.returnedAtMs.toFixed(1)}) ${qualifier};`,
      ].join(' '),
      `it was not so at any time since ${sinceMs.toFixed(1)}.`,
      ...keys.map((one) => `  ${one}: ${truth.history(one)}`),
    ].join('\n'),
  }
}

/** Effects of one duty: fences never go back, and no tick takes effect twice (G5). */
export function checkEffects(
  effects: readonly {
    readonly duty: string
    readonly fence: number
    readonly tick: number
    readonly node: string
  }[],
  atMs: number,
): Violation | null {
  const last = new Map<string, number>()
  const done = new Set<string>()
  for (const { duty, fence, tick, node } of effects) {
    const name = `${duty} tick ${tick}`
    if (done.has(name))
      return {
        invariant: 'G5',
        atMs,
        text: `G5: ${name} took effect twice, the second time by ${node} with fence ${fence}.`,
      }
    if (fence < (last.get(duty) ?? 0))
      return {
        invariant: 'G5',
        atMs,
        text:
          `G5: ${node} acted as ${duty} with fence ${fence} ` +
          `after fence ${last.get(duty)} had acted.`,
      }
    done.add(name)
    last.set(duty, fence)
  }
  return null
}
