import type { Sort } from '#content/query/query.ts'

/**
 * The whole order that a sort stands for: ties end on `id` in the last direction, so no two entries
 * are equal in it. What follows `id`, or repeats a field, can decide nothing and is left out.
 */
export function completeSort(sort: readonly Sort[]): readonly Sort[] {
  const keys: Sort[] = []
  for (const key of sort) {
    if (keys.some((other) => other.field === key.field)) continue
    keys.push(key)
    if (key.field === 'id') return keys
  }
  return [...keys, { field: 'id', descending: sort.at(-1)?.descending ?? false }]
}
