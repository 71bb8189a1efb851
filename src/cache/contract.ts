import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SecondLevel } from '#cache/second-level.ts'

/** Every driver of the second level passes this. `open` makes two nodes' views of one. */
export function secondLevelContract(
  name: string,
  options: {
    readonly skip: string | false
    readonly open: () => Promise<
      AsyncDisposable & { readonly levels: readonly [SecondLevel, SecondLevel] }
    >
  },
): void {
  const { skip, open } = options

  test(`${name}: what one node puts, another gets, byte for byte`, { skip }, async () => {
    await using opened = await open()
    const [one, other] = opened.levels
    const bytes = Buffer.from([0, 1, 2, 255, 254, 0, 10, 13])
    assert.equal(await other.get('stoa:k'), null)
    await one.put('stoa:k', bytes)
    assert.deepEqual(await other.get('stoa:k'), bytes)
    await other.put('stoa:k', Buffer.alloc(1_000_000, 7))
    assert.deepEqual(await one.get('stoa:k'), Buffer.alloc(1_000_000, 7))
    assert.equal(one.connected, true)
  })

  test(`${name}: a closed one has nothing, takes nothing, and says so`, { skip }, async () => {
    await using opened = await open()
    const [one] = opened.levels
    await one.put('stoa:k', Buffer.from('x'))
    await one.close()
    assert.equal(one.connected, false)
    assert.equal(await one.get('stoa:k'), null)
    await one.put('stoa:k', Buffer.from('y'))
  })
}
