import type { Dependency } from '#cache/dependency.ts'
import type { PageBound } from '#cache/predicate.ts'
import { pageSize } from './checker.ts'
import type { ModelServer } from './model-server.ts'

/**
 * What a loader reads and what it depends on: `row:KEY`, `group:N` (all rows of a group), `top:N`
 * (its first page).
 */
export function read(
  server: ModelServer,
  what: string,
): { readonly value: string; readonly dependencies: readonly Dependency[] } {
  const [kind = '', name = ''] = what.split(':')
  const { items } = server.tables
  if (kind === 'row') {
    const row = items.get(name)
    return {
      value: `${what}>${row === undefined ? '' : `${name}=${row.value}`}`,
      dependencies: [{ kind: 'row', collection: 'item', key: name }],
    }
  }
  const group = Number(name)
  const rows = [...items]
    .filter(([, row]) => row.group === group)
    .sort(([one], [other]) => (one < other ? -1 : 1))
  const shown = kind === 'top' ? rows.slice(0, pageSize) : rows
  const upTo = shown.length === pageSize ? [shown.at(-1)![0]] : null
  const page: PageBound | null =
    kind === 'top' ? { sort: [{ field: 'key', descending: false }], after: null, upTo } : null
  return {
    value: `${what}>${shown.map(([key, row]) => `${key}=${row.value}`).join(',')}`,
    dependencies: [
      {
        kind: 'list',
        collection: 'item',
        predicate: [{ field: 'group', is: 'eq', value: group }],
        page,
      },
    ],
  }
}
