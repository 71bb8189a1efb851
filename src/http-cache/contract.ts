import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fullBucket, planOf } from '#http-cache/budget.ts'
import { EdgeAwayError, EdgeRefusedError } from '#http-cache/errors.ts'
import type { EdgePurge, HttpCache } from '#http-cache/http-cache.ts'
import { tagsOfChange, tagsOfResponse } from '#http-cache/tags.ts'
import type { ResponseTags } from '#http-cache/tags.ts'

/** A response of the server behind the cache, which says of it what a node says. */
export type OriginResponse = {
  readonly body: string
  /** Null: the HTTP cache must not keep it. */
  readonly tags: ResponseTags | null
  /** How much of the database the response shows. */
  readonly count: number
  readonly status?: number
  readonly epoch?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Before the headers, between them and the body, and in the middle of the body. */
  readonly beforeHeaders?: Promise<void>
  readonly beforeBody?: Promise<void>
  readonly beforeEnd?: Promise<void>
}

export const originEpoch = 'ab12.1.1'

/** The server behind the cache. */
export type TestOrigin = {
  readonly responses: Map<string, () => OriginResponse>
  /** It accepts no request. */
  down: boolean
  asked(path: string): number
}

/** An HTTP cache to test, in front of `origin`. */
export type CacheUnderTest = AsyncDisposable & {
  readonly cache: HttpCache
  readonly origin: TestOrigin
  /** The same purge is needed again after this time; 0: it is not. */
  readonly againMs: number
  /** Its address for readers. */
  readonly reader: string
  /** The same cache with a key that it does not accept. */
  readonly withWrongKey: HttpCache
  /** Makes it not respond to purges. */
  leave(): Promise<void>
}

const { signal } = new AbortController()
const arriveMs = 3_000

/** The tags of a page that shows these entries, of one type. */
export function pageOf(type: string, ids: readonly string[]): ResponseTags {
  const tags = tagsOfResponse(
    ids.map((id) => ({
      kind: 'list',
      collection: 'version',
      page: null,
      predicate: [
        { field: 'entry_id', is: 'eq', value: id },
        { field: 'type', is: 'eq', value: type },
        { field: 'is_published', is: 'eq', value: true },
      ],
    })),
  )
  assert.ok(tags !== null)
  return tags
}

/** The purges of a change of this entry. */
export function purgeOf(
  cache: HttpCache,
  options: {
    readonly type: string
    readonly id: string
    readonly count: number
    readonly hard?: boolean
  },
): readonly EdgePurge[] {
  const { type, id, count, hard = false } = options
  const row = { entry_id: id, type, locale: 'en', is_published: true, is_latest: true }
  const tags = tagsOfChange({
    xid: 1,
    collection: 'version',
    key: `${id}/en`,
    operation: hard ? 'delete' : 'update',
    before: row,
    after: hard ? null : row,
  })
  assert.ok(tags !== null)
  const { limits } = cache.edges[0]!
  return planOf([{ ...tags, epoch: originEpoch, count }], fullBucket(limits, 0), limits).calls
}

/** The suite that every driver passes. */
export function httpCacheContract(
  name: string,
  options: { readonly skip: string | false; readonly open: () => Promise<CacheUnderTest> },
): void {
  const { skip, open } = options
  const read = async ({ reader }: CacheUnderTest, path: string): Promise<string> =>
    (await fetch(`${reader}${path}`)).text()
  const send = async (
    { cache, againMs }: CacheUnderTest,
    purges: readonly EdgePurge[],
  ): Promise<void> => {
    for (const edge of cache.edges) for (const purge of purges) await edge.purge(purge, signal)
    if (againMs === 0) return
    await sleep(againMs)
    for (const edge of cache.edges) for (const purge of purges) await edge.purge(purge, signal)
  }
  const becomes = async (opened: CacheUnderTest, path: string, body: string): Promise<void> => {
    const until = Date.now() + arriveMs
    while ((await read(opened, path)) !== body) {
      assert.ok(Date.now() < until, `${path} is still what it was`)
      await sleep(20)
    }
  }

  test(
    `${name}: keeps what has tags until one of them is purged, and the rest on`,
    { skip },
    async () => {
      await using opened = await open()
      const { origin, cache } = opened
      let count = 10
      for (const path of ['/a', '/b'])
        origin.responses.set(path, () => ({
          body: `${path} ${count}`,
          tags: pageOf('note', [path]),
          count,
        }))
      assert.equal(await read(opened, '/a'), '/a 10')
      assert.equal(await read(opened, '/b'), '/b 10')
      count = 11
      assert.equal(await read(opened, '/a'), '/a 10')
      await send(opened, purgeOf(cache, { type: 'note', id: '/a', count }))
      await becomes(opened, '/a', '/a 11')
      assert.equal(await read(opened, '/b'), '/b 10')
      assert.equal(origin.asked('/b'), 1)
      await send(opened, purgeOf(cache, { type: 'note', id: '/a', count }))
      assert.equal(await read(opened, '/b'), '/b 10', 'the same purge again does no harm')
    },
  )

  test(`${name}: keeps nothing that has no tags`, { skip }, async () => {
    await using opened = await open()
    let count = 1
    opened.origin.responses.set('/a', () => ({ body: `${(count += 1)}`, tags: null, count }))
    assert.equal(await read(opened, '/a'), '2')
    assert.equal(await read(opened, '/a'), '3')
  })

  test(
    `${name}: a page of more entries than fit into a header is purged with each`,
    { skip },
    async () => {
      await using opened = await open()
      const { origin, cache } = opened
      const ids = Array.from({ length: 5_000 }, (_, at) => `entry ${at}`)
      let count = 10
      origin.responses.set('/wide', () => ({ body: `${count}`, tags: pageOf('note', ids), count }))
      assert.equal(await read(opened, '/wide'), '10')
      count = 11
      assert.equal(await read(opened, '/wide'), '10')
      await send(opened, purgeOf(cache, { type: 'note', id: 'entry 4999', count }))
      await becomes(opened, '/wide', '11')
    },
  )

  test(`${name}: what is removed is not served while no node responds`, { skip }, async () => {
    await using opened = await open()
    const { origin, cache } = opened
    for (const path of ['/soft', '/hard'])
      origin.responses.set(path, () => ({ body: path, tags: pageOf('note', [path]), count: 10 }))
    assert.equal(await read(opened, '/soft'), '/soft')
    assert.equal(await read(opened, '/hard'), '/hard')
    origin.down = true
    await send(opened, purgeOf(cache, { type: 'note', id: '/soft', count: 11 }))
    await send(opened, purgeOf(cache, { type: 'note', id: '/hard', count: 11, hard: true }))
    const until = Date.now() + arriveMs
    while ((await read(opened, '/hard')) === '/hard') assert.ok(Date.now() < until)
    const soft = await read(opened, '/soft')
    assert.equal(soft === '/soft', cache.edges[0]!.limits.soft)
  })

  test(
    `${name}: calls stay within the limits of the edge, and it says what is wrong`,
    { skip },
    async () => {
      await using opened = await open()
      const { cache, withWrongKey } = opened
      const edge = cache.edges[0]!
      const many = Array.from({ length: edge.limits.tagsPerCall * 2 + 1 }, (_, at) =>
        at.toString(16).padStart(8, '0'),
      )
      const pending = { fine: many, wide: [], coarse: [], hard: true, epoch: originEpoch, count: 1 }
      const { calls } = planOf([pending], fullBucket(edge.limits, 0), edge.limits)
      assert.equal(calls.length, 3)
      for (const call of calls) await edge.purge(call, signal)
      await assert.rejects(withWrongKey.edges[0]!.purge(calls[0]!, signal), EdgeRefusedError)
      await opened.leave()
      await assert.rejects(edge.purge(calls[0]!, signal), EdgeAwayError)
    },
  )
}
