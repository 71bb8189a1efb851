import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import type { Clock } from '#lib/clock.ts'
import { BlobDamagedError, BlobNotFoundError, BlobTooLargeError } from '#file-store/errors.ts'
import type { BlobInfo, FileStore } from '#file-store/file-store.ts'

/**
 * A store to test, on a clock that the test turns. `traces` names everything it keeps, part files
 * included.
 */
export type StoreUnderTest = AsyncDisposable & {
  readonly store: FileStore
  readonly traces: () => Promise<string[]>
}

/** Wall time that moves only when the test moves it. */
export class HandClock implements Clock {
  ms = Date.UTC(2026, 0, 2)
  nowMs(): number {
    return this.ms
  }
  monotonicMs(): number {
    return this.ms
  }
}

const bytesMax = 1_000_000_000
const unknown = 'f'.repeat(64)

export function sha256(data: Buffer | string): string {
  return createHash('sha256').update(data).digest('hex')
}

/**
 * `chunks` chunks of `bytes` each, all made from one buffer: fast, and different for another seed.
 */
export function generated(seed: number, chunks: number, bytes = 65_536): Readable {
  const block = Buffer.alloc(bytes, seed % 256)
  return Readable.from(
    (function* () {
      for (let index = 0; index < chunks; index += 1) {
        block.writeUInt32LE(index, 0)
        yield Buffer.from(block)
      }
    })(),
    { objectMode: false },
  )
}

async function idOf(seed: number, chunks: number): Promise<string> {
  return sha256(await buffer(generated(seed, chunks)))
}

async function all(store: FileStore): Promise<(BlobInfo & { writtenAtMs: number })[]> {
  const result = []
  for await (const blob of store.list()) result.push(blob)
  return result
}

/** The suite that every driver of `FileStore` passes. */
export function fileStoreContract(
  name: string,
  open: (clock: Clock) => Promise<StoreUnderTest>,
  skip: string | false = false,
): void {
  const scenario = (
    title: string,
    work: (parts: StoreUnderTest & { readonly clock: HandClock }) => Promise<void>,
  ): void => {
    test(`${name}: ${title}`, { skip }, async () => {
      const clock = new HandClock()
      await using opened = await open(clock)
      await work({ ...opened, clock, [Symbol.asyncDispose]: async () => undefined })
    })
  }

  scenario('what was put comes back, under the hash of its bytes', async ({ store }) => {
    const blob = await store.put(Readable.from([Buffer.from('hello '), Buffer.from('world')]), {
      bytesMax,
    })
    assert.deepEqual(blob, { id: sha256('hello world'), bytes: 11 })
    assert.equal((await buffer(await store.get(blob.id))).toString(), 'hello world')
    assert.deepEqual(await store.info(blob.id), blob)
  })

  scenario('no bytes at all are a blob too', async ({ store }) => {
    const blob = await store.put(Readable.from([]), { bytesMax: 0 })
    assert.deepEqual(blob, { id: sha256(''), bytes: 0 })
    assert.equal((await buffer(await store.get(blob.id))).length, 0)
  })

  scenario('many chunks arrive in order and ranges are exact at both ends', async ({ store }) => {
    const whole = await buffer(generated(7, 40, 10_007))
    const blob = await store.put(generated(7, 40, 10_007), { bytesMax })
    assert.equal(blob.id, sha256(whole))
    for (const [start, end] of [
      [0, 0],
      [0, whole.length - 1],
      [1, 2],
      [10_006, 300_001],
      [whole.length - 1, whole.length - 1],
    ] as const) {
      assert.ok(
        (await buffer(await store.get(blob.id, { start, end }))).equals(
          whole.subarray(start, end + 1),
        ),
        `${start}-${end}`,
      )
    }
    await assert.rejects(store.get(blob.id, { start: 0, end: whole.length }), RangeError)
  })

  scenario(
    'equal bytes are stored once and count as written at the last put',
    async ({ store, clock, traces }) => {
      await store.put(generated(1, 3), { bytesMax })
      const before = await traces()
      clock.ms += 5_000
      await store.put(generated(1, 3), { bytesMax })
      assert.deepEqual(await traces(), before)
      const { id } = await store.put(generated(1, 3), { bytesMax })
      assert.equal((await all(store)).length, 1)
      assert.equal(await store.delete(id, { writtenBeforeMs: clock.ms }), false)
    },
  )

  scenario(
    'bytes that are not those that were expected are refused, and nothing of them stays',
    async ({ store, traces }) => {
      const { id } = await store.put(generated(1, 3), { bytesMax, expected: await idOf(1, 3) })
      const before = await traces()
      for (const chunks of [1, 200])
        await assert.rejects(
          store.put(generated(2, chunks), { bytesMax, expected: id }),
          BlobDamagedError,
        )
      assert.deepEqual(await traces(), before)
    },
  )

  scenario(
    'equal puts at the same time all succeed and leave one blob',
    async ({ store, traces }) => {
      const blobs = await Promise.all(
        Array.from({ length: 12 }, () => store.put(generated(2, 5), { bytesMax })),
      )
      assert.equal(new Set(blobs.map((blob) => blob.id)).size, 1)
      assert.equal((await all(store)).length, 1)
      assert.equal((await traces()).length, 1)
    },
  )

  scenario(
    'an abort, a failing source and too many bytes leave nothing behind',
    async ({ store, traces }) => {
      const abort = new AbortController()
      const endless = Readable.from(
        (async function* () {
          for (let index = 0; ; index += 1) {
            if (index === 5) abort.abort()
            yield Buffer.alloc(65_536)
          }
        })(),
      )
      await assert.rejects(store.put(endless, { bytesMax, signal: abort.signal }), {
        name: 'AbortError',
      })
      assert.ok(endless.destroyed)
      await assert.rejects(store.put(generated(1, 1), { bytesMax, signal: abort.signal }), {
        name: 'AbortError',
      })
      const broken = Readable.from(
        (async function* () {
          yield Buffer.alloc(65_536)
          throw new Error('the connection was cut')
        })(),
      )
      await assert.rejects(store.put(broken, { bytesMax }), /the connection was cut/)
      const long = generated(3, 100)
      await assert.rejects(store.put(long, { bytesMax: 65_536 * 3 - 1 }), BlobTooLargeError)
      assert.ok(long.destroyed)
      await store.put(generated(3, 3), { bytesMax: 65_536 * 3 })
      assert.equal((await traces()).length, 1)
    },
  )

  scenario('a blob is not visible before it is whole', async ({ store }) => {
    const { promise: gate, resolve: release } = Promise.withResolvers<void>()
    const { promise: half, resolve: reached } = Promise.withResolvers<void>()
    const put = store.put(
      Readable.from(
        (async function* () {
          yield Buffer.from('first ')
          yield Buffer.from('second ')
          reached()
          await gate
          yield Buffer.from('third')
        })(),
      ),
      { bytesMax },
    )
    await half
    assert.deepEqual(await all(store), [])
    await assert.rejects(store.info(sha256('first second third')), BlobNotFoundError)
    release()
    await put
    assert.equal((await all(store)).length, 1)
  })

  scenario('what is unknown, and what is no id at all, is not found', async ({ store }) => {
    for (const id of [unknown, '', '..', '../../etc/passwd', 'A'.repeat(64), `${unknown}\0`]) {
      await assert.rejects(store.get(id), BlobNotFoundError)
      await assert.rejects(store.info(id), BlobNotFoundError)
      assert.equal(await store.delete(id), false)
    }
  })

  scenario('deleting takes the blob, and deleting again is no error', async ({ store }) => {
    const blob = await store.put(generated(4, 1), { bytesMax })
    const other = await store.put(generated(5, 1), { bytesMax })
    assert.equal(await store.delete(blob.id), true)
    assert.equal(await store.delete(blob.id), false)
    await assert.rejects(store.get(blob.id), BlobNotFoundError)
    assert.deepEqual(
      (await all(store)).map((left) => left.id),
      [other.id],
    )
  })

  scenario(
    'a delete with a time spares what was written or put again since',
    async ({ store, clock }) => {
      const blob = await store.put(generated(6, 1), { bytesMax })
      const written = clock.ms
      assert.equal(await store.delete(blob.id, { writtenBeforeMs: written }), false)
      clock.ms += 60_000
      await store.put(generated(6, 1), { bytesMax })
      assert.equal(await store.delete(blob.id, { writtenBeforeMs: written + 1 }), false)
      assert.equal((await buffer(await store.get(blob.id))).length, 65_536)
      assert.equal(await store.delete(blob.id, { writtenBeforeMs: clock.ms + 1 }), true)
      await assert.rejects(store.get(blob.id), BlobNotFoundError)
    },
  )

  scenario(
    'puts that cross deletes of older blobs never lose their bytes',
    async ({ store, clock, traces }) => {
      for (let round = 0; round < 40; round += 1) {
        clock.ms += 1_000
        const before = clock.ms
        await store.put(generated(8, 1), { bytesMax })
        clock.ms += 1_000
        const since = before + 1
        const [blob] = await Promise.all([
          store.put(generated(8, 1), { bytesMax }),
          store.delete(sha256(await buffer(generated(8, 1))), { writtenBeforeMs: since }),
          store.delete(sha256(await buffer(generated(8, 1))), { writtenBeforeMs: since }),
        ])
        assert.equal((await store.info(blob.id)).bytes, 65_536)
      }
      assert.equal((await traces()).length, 1)
    },
  )

  scenario('a reader that leaves in the middle is no harm', async ({ store }) => {
    const blob = await store.put(generated(9, 50), { bytesMax })
    const stream = await store.get(blob.id)
    for await (const chunk of stream) {
      assert.ok((chunk as Buffer).length > 0)
      break
    }
    assert.ok(stream.destroyed)
    const unread = await store.get(blob.id)
    unread.destroy()
    assert.equal((await buffer(await store.get(blob.id))).length, 50 * 65_536)
  })

  scenario('pruning takes nothing from the store', async ({ store, clock }) => {
    await store.put(generated(10, 1), { bytesMax })
    assert.equal(await store.prune({ writtenBeforeMs: clock.ms + 86_400_000, dryRun: false }), 0)
    assert.equal((await all(store)).length, 1)
  })

  scenario('an identity stays what it was first, and is no blob', async ({ store }) => {
    const first = await store.identity.read()
    assert.ok(first !== null)
    assert.equal(await store.identity.claim('another'), first)
    assert.equal(await store.identity.read(), first)
    assert.deepEqual(await all(store), [])
  })

  scenario(
    'an abort and a source that fails reject at whatever moment they come',
    async ({ store, traces }) => {
      const turns = async (count: number): Promise<void> => {
        for (let turn = 0; turn < count; turn += 1)
          await new Promise((resolve) => setImmediate(resolve))
      }
      for (let count = 0; count < 40; count += 1) {
        const abort = new AbortController()
        const slow = new Readable({ read: () => undefined })
        const aborted = assert.rejects(store.put(slow, { bytesMax, signal: abort.signal }), {
          name: 'AbortError',
        })
        const cut = new Readable({ read: () => undefined })
        const failed = assert.rejects(store.put(cut, { bytesMax }), /the connection was cut/)
        await turns(count)
        abort.abort()
        cut.destroy(new Error('the connection was cut'))
        await Promise.all([aborted, failed])
        assert.ok(slow.destroyed)
      }
      assert.deepEqual(await traces(), [])
    },
  )

  scenario('check resolves, and stops when its signal aborts', async ({ store, traces }) => {
    await store.check(AbortSignal.timeout(5_000))
    assert.deepEqual(await traces(), [])
    await assert.rejects(store.check(AbortSignal.abort()), { name: 'AbortError' })
  })
}
