import type { Epoch } from '#change-feed/epoch.ts'
import { isEpoch } from '#change-feed/epoch.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import type { Dependency } from '#cache/dependency.ts'
import type { Atom, Bound, PageBound, Predicate, SortKey } from '#cache/predicate.ts'
import { isScalar } from '#lib/scalar.ts'

/** The head of an envelope, which precedes the value. */
export type EnvelopeHead = {
  /** Memory that the entry takes. */
  readonly bytes: number
  readonly snapshot: Snapshot
  readonly dependencies: readonly Dependency[]
  readonly epoch: Epoch
}

type Fields = Readonly<Record<string, unknown>>

/** True if the value has exactly the shape of a head, down to each atom of its predicates. */
export function isHead(value: unknown): value is EnvelopeHead {
  return (
    isObject(value) &&
    isCount(value['bytes']) &&
    isSnapshot(value['snapshot']) &&
    isListOf(value['dependencies'], isDependency) &&
    typeof value['epoch'] === 'string' &&
    isEpoch(value['epoch'])
  )
}

function isSnapshot(value: unknown): value is Snapshot {
  if (!isObject(value)) return false
  const { xmin, xmax, xip } = value
  if (!isCount(xmin) || !isCount(xmax) || xmin > xmax || !isListOf(xip, isCount)) return false
  return xip.every((xid, at) => xid >= (at === 0 ? xmin : xip[at - 1]! + 1) && xid < xmax)
}

function isDependency(value: unknown): value is Dependency {
  if (!isObject(value) || typeof value['collection'] !== 'string') return false
  switch (value['kind']) {
    case 'row':
      return typeof value['key'] === 'string'
    case 'collection':
      return true
    case 'list':
      return isPredicate(value['predicate']) && (value['page'] === null || isPage(value['page']))
    default:
      return false
  }
}

function isPredicate(value: unknown): value is Predicate {
  return isListOf(value, isAtom)
}

function isAtom(value: unknown): value is Atom {
  if (!isObject(value) || typeof value['field'] !== 'string') return false
  if (value['negated'] !== undefined && typeof value['negated'] !== 'boolean') return false
  switch (value['is']) {
    case 'eq':
      return isScalar(value['value'])
    case 'in':
      return isListOf(value['values'], isScalar)
    case 'range':
      return isOptionalBound(value['min']) && isOptionalBound(value['max'])
    case 'contains':
    case 'startsWith':
      return typeof value['value'] === 'string'
    case 'exists':
      return true
    default:
      return false
  }
}

function isOptionalBound(value: unknown): value is Bound | undefined {
  if (value === undefined) return true
  return isObject(value) && isScalar(value['value']) && typeof value['inclusive'] === 'boolean'
}

function isPage(value: unknown): value is PageBound {
  if (!isObject(value) || !isListOf(value['sort'], isSortKey)) return false
  const keys = value['sort'].length
  return [value['after'], value['upTo']].every(
    (bound) => bound === null || (isListOf(bound, isScalarOrNull) && bound.length === keys),
  )
}

function isSortKey(value: unknown): value is SortKey {
  return (
    isObject(value) &&
    typeof value['field'] === 'string' &&
    typeof value['descending'] === 'boolean'
  )
}

function isScalarOrNull(value: unknown): boolean {
  return value === null || isScalar(value)
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isListOf<T>(value: unknown, is: (one: unknown) => one is T): value is readonly T[]
function isListOf(value: unknown, is: (one: unknown) => boolean): value is readonly unknown[]
function isListOf(value: unknown, is: (one: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every((one) => is(one))
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
