import type { ItemRow } from './tables.ts'
import type { Truth } from './truth.ts'

/**
 * Judges every answer against the truth. It shares no code with the caches: it knows what was
 * asked, what was said and when, in real time, and what the rows held.
 */
export type Answered = {
  readonly node: string
  readonly what: string
  readonly value: string
  readonly kind: 'hit' | 'filled' | 'stale'
  readonly askedAtMs: number
  readonly answeredAtMs: number
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

export function judge(answered: Answered, truth: Truth, config: CheckerConfig): Violation | null {
  const bound =
    answered.askedAtMs - config.leaseMs - (answered.kind === 'stale' ? config.staleMs : 0) - slackMs
  for (const part of answered.what.split('+')) {
    const violation = judgePart(answered, part, bound, truth)
    if (violation !== null) return violation
  }
  return null
}

function judgePart(
  answered: Answered,
  part: string,
  bound: number,
  truth: Truth,
): Violation | null {
  const [kind = '', name = ''] = part.split(':')
  const shown = new Map(
    answered.value
      .split('|')
      .find((text) => text.startsWith(`${part}>`))
      ?.slice(part.length + 1)
      .split(',')
      .filter((text) => text !== '')
      .map((text) => text.split('=') as [string, string]) ?? [],
  )
  if (kind === 'top') return judgePage(answered, part, Number(name), [...shown], bound, truth)
  const keys = kind === 'row' ? [name] : truth.keys
  for (const key of keys) {
    const value = shown.get(key) ?? null
    const such = (row: ItemRow | null): boolean =>
      kind === 'row'
        ? (row?.value ?? null) === value
        : (row !== null && row.group === Number(name) ? row.value : null) === value
    const floor = answered.kind === 'stale' ? undefined : answered.floors.get(key)
    if (!truth.was(key, such, bound, answered.answeredAtMs))
      return tell(answered, answered.kind === 'stale' ? 'G8' : 'G2', part, key, value, bound, truth)
    if (
      floor !== undefined &&
      !truth.was(key, such, Math.max(bound, floor.atMs), answered.answeredAtMs)
    )
      return tell(answered, floor.why, part, key, value, floor.atMs, truth)
  }
  return null
}

/** A page shows one state of the whole list, so all of it must have been so at one instant. */
function judgePage(
  answered: Answered,
  part: string,
  group: number,
  shown: readonly (readonly [string, string])[],
  bound: number,
  truth: Truth,
): Violation | null {
  const expected = shown.map(([key, value]) => `${key}=${value}`).join(',')
  for (const instant of truth.instants(bound, answered.answeredAtMs))
    if (topOf(truth, group, instant) === expected) return null
  return tell(answered, answered.kind === 'stale' ? 'G8' : 'G2', part, '', expected, bound, truth)
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

function tell(
  answered: Answered,
  invariant: Violation['invariant'],
  part: string,
  key: string,
  value: string | null,
  since: number,
  truth: Truth,
): Violation {
  const told = {
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
    atMs: answered.answeredAtMs,
    text: [
      `${invariant}: ${answered.node} answered ${part} with ${key === '' ? '' : `${key} = `}${value ?? 'nothing'} (${answered.kind}, asked ${answered.askedAtMs.toFixed(1)}, answered ${answered.answeredAtMs.toFixed(1)}) ${told};`,
      `it was not so at any time since ${since.toFixed(1)}.`,
      ...keys.map((one) => `  ${one}: ${truth.history(one)}`),
    ].join('\n'),
  }
}

/** Effects of one role: fences never go back, and no tick takes effect twice (G5). */
export function judgeEffects(
  effects: readonly {
    readonly role: string
    readonly fence: number
    readonly tick: number
    readonly node: string
  }[],
  atMs: number,
): Violation | null {
  const last = new Map<string, number>()
  const done = new Set<string>()
  for (const { role, fence, tick, node } of effects) {
    const name = `${role} tick ${tick}`
    if (done.has(name))
      return {
        invariant: 'G5',
        atMs,
        text: `G5: ${name} took effect twice, the second time by ${node} with fence ${fence}.`,
      }
    if (fence < (last.get(role) ?? 0))
      return {
        invariant: 'G5',
        atMs,
        text: `G5: ${node} acted as ${role} with fence ${fence} after fence ${last.get(role)} had acted.`,
      }
    done.add(name)
    last.set(role, fence)
  }
  return null
}
