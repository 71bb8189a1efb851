import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { bytesOf, DependencyIndex } from '#cache/dependency.ts'
import type { Dependency } from '#cache/dependency.ts'
import type { Atom } from '#cache/predicate.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

const shown: readonly Atom[] = [
  { field: 'type', is: 'eq', value: 'article' },
  { field: 'is_published', is: 'eq', value: true },
  { field: 'locale', is: 'eq', value: 'en' },
]
const list = (...atoms: readonly Atom[]): Dependency => ({
  kind: 'list',
  collection: 'version',
  predicate: [...atoms, ...shown],
  page: null,
})

type Shape = {
  readonly name: string
  readonly entries: number
  readonly make: (value: (at: number, length: number) => string) => readonly Dependency[]
}
const texts = (count: number, value: (at: number) => string): string[] =>
  Array.from({ length: count }, (_, at) => value(at))

/**
 * What readers can ask for: the longest of each kind that an address has room for, and what they
 * mostly ask for.
 */
const shapes: readonly Shape[] = [
  {
    name: 'an entry',
    entries: 5_000,
    make: (value) => [
      { kind: 'row', collection: 'model', key: 'true' },
      {
        kind: 'list',
        collection: 'version',
        predicate: [{ field: 'entry_id', is: 'eq', value: value(0, 36) }, shown[1]!],
        page: null,
      },
    ],
  },
  {
    name: 'a page',
    entries: 5_000,
    make: (value) => [
      {
        kind: 'list',
        collection: 'version',
        predicate: shown,
        page: {
          sort: [
            { field: 'published_at', descending: true },
            { field: 'entry_id', descending: true },
          ],
          after: null,
          upTo: [1e12, value(0, 36)],
        },
      },
    ],
  },
  {
    name: 'one value',
    entries: 5_000,
    make: (value) => [list({ field: 'title', is: 'eq', value: value(0, 10) })],
  },
  {
    name: 'a value of 64',
    entries: 500,
    make: (value) => [list({ field: 'title', is: 'in', values: texts(64, (at) => value(at, 10)) })],
  },
  {
    name: 'a value of 200',
    entries: 500,
    make: (value) => [
      list({ field: 'title', is: 'in', values: texts(200, (at) => value(at, 10)) }),
    ],
  },
  {
    name: 'twelve alternatives of 50 values',
    entries: 100,
    make: (value) =>
      texts(12, String).map((_, which) =>
        list({ field: 'title', is: 'in', values: texts(50, (at) => value(which * 50 + at, 10)) }),
      ),
  },
  {
    name: 'sixty conditions',
    entries: 500,
    make: (value) => [
      list(
        ...texts(60, (at) => value(at, 60)).map((text): Atom => ({
          field: 'title',
          is: 'contains',
          value: text,
        })),
      ),
    ],
  },
  {
    name: 'long values',
    entries: 500,
    make: (value) => [
      list({ field: 'title', is: 'in', values: texts(12, (at) => value(at, 600)) }),
    ],
  },
]

/** All that was measured: what goes while the next is measured would count against it. */
const kept: unknown[] = []

function takenBy({ entries, make }: Shape): { readonly taken: number; readonly counted: number } {
  const index = new DependencyIndex<number>()
  const held: (readonly Dependency[])[] = []
  collectGarbage()
  const before = process.memoryUsage().heapUsed
  for (let id = 0; id < entries; id += 1) {
    const dependencies = make((at, length) => `${id}-${at}-`.padEnd(length, 'x'))
    index.add(id, dependencies)
    held.push(dependencies)
  }
  collectGarbage()
  const taken = (process.memoryUsage().heapUsed - before) / entries
  kept.push(index, held)
  return { taken, counted: held[0]!.reduce((sum, one) => sum + bytesOf(one), 0) }
}

test('what is counted for dependencies is what they take', (t) => {
  for (const shape of shapes) {
    const { taken, counted } = takenBy(shape)
    const says = `${shape.name} takes ${Math.round(taken)} bytes and is counted as ${counted}`
    t.diagnostic(says)
    assert.ok(taken < counted * 1.25, says)
    assert.ok(counted < taken * 3 + 2_000, `${says}: far too much`)
  }
})
