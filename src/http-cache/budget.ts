import { allTag } from '#http-cache/tags.ts'
import type { EdgeLimits, EdgePurge } from '#http-cache/http-cache.ts'

/**
 * The calls that an edge accepts, and what to send within them. Vendors count calls (a bucket that
 * refills), and some accept few: where the fine tags would take too long, the coarse ones go.
 */

/** Longer than this, the coarse tags go instead of the fine ones. */
export const escalateMs = 10_000

/** Calls that may be made at a moment; it refills with time. */
export type Bucket = { readonly calls: number; readonly atMs: number }

export function fullBucket(limits: EdgeLimits, nowMs: number): Bucket {
  return { calls: limits.burst, atMs: nowMs }
}

export function refilled(bucket: Bucket, limits: EdgeLimits, nowMs: number): Bucket {
  const passedS = Math.max(0, nowMs - bucket.atMs) / 1_000
  return { calls: Math.min(limits.burst, bucket.calls + passedS * limits.callsPerS), atMs: nowMs }
}

/** The time after which the last of `calls` calls can begin. */
export function waitMs(calls: number, bucket: Bucket, limits: EdgeLimits): number {
  return (Math.max(0, calls - bucket.calls) / limits.callsPerS) * 1_000
}

/** The tags of a purge that waits, as they are kept. */
export type Pending = {
  readonly fine: readonly string[]
  readonly wide: readonly string[]
  readonly coarse: readonly string[]
  readonly hard: boolean
  readonly epoch: string
  readonly count: number
}

export type Plan = {
  readonly level: 'fine' | 'coarse' | 'all'
  readonly calls: readonly EdgePurge[]
}

/** The calls that carry all of `pending`, at the finest level that takes no longer than it may. */
export function planOf(pending: readonly Pending[], bucket: Bucket, limits: EdgeLimits): Plan {
  for (const level of ['fine', 'coarse'] as const) {
    const calls = callsOf(pending, limits, level)
    if (waitMs(calls.length, bucket, limits) <= escalateMs) return { level, calls }
  }
  return { level: 'all', calls: callsOf(pending, limits, 'all') }
}

function callsOf(
  pending: readonly Pending[],
  limits: EdgeLimits,
  level: Plan['level'],
): EdgePurge[] {
  const last = pending.at(-1)
  if (last === undefined) return []
  const removes = (one: Pending): boolean => one.hard || !limits.soft
  const hard = tagsOf(pending.filter(removes), level)
  const soft = tagsOf(
    pending.filter((one) => !removes(one)),
    level,
  ).filter((tag) => !hard.includes(tag))
  const coarse = level === 'all' ? [allTag] : [...new Set(pending.flatMap((one) => one.coarse))]
  const { epoch, count } = last
  const calls = (tags: readonly string[], isHard: boolean): EdgePurge[] =>
    inParts(tags, limits.tagsPerCall).map((part) => ({
      tags: part,
      coarse,
      hard: isHard,
      epoch,
      count,
    }))
  return [...calls(hard, true), ...calls(soft, false)]
}

function tagsOf(pending: readonly Pending[], level: Plan['level']): string[] {
  if (pending.length === 0) return []
  if (level === 'all') return [allTag]
  const tags = new Set(
    pending.flatMap((one) => (level === 'fine' ? [...one.fine, ...one.wide] : one.coarse)),
  )
  return tags.has(allTag) ? [allTag] : [...tags]
}

function inParts(tags: readonly string[], size: number): (readonly string[])[] {
  const parts = []
  for (let at = 0; at < tags.length; at += size) parts.push(tags.slice(at, at + size))
  return parts
}
