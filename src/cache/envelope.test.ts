import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Envelope } from '#cache/cache-state.ts'
import { opened, sealed } from '#cache/envelope.ts'
import type { Codec } from '#cache/envelope.ts'

type Text = { readonly text: string }
const codec: Codec<Text> = {
  encode: ({ text }) => Buffer.from(text),
  decode: (bytes) => ({ text: bytes.toString() }),
}
const envelope: Envelope<Text> = {
  value: { text: 'Säulen, many of them' },
  bytes: 1_234,
  epoch: '7.1.1',
  snapshot: { xmin: 10, xmax: 15, xip: [11, 12] },
  dependencies: [
    { kind: 'row', collection: 'item', key: '1' },
    {
      kind: 'list',
      collection: 'item',
      predicate: [{ field: 'a', is: 'eq', value: true }],
      page: null,
    },
  ],
}

test('what was sealed is opened for its key alone', () => {
  const bytes = sealed('key', envelope, codec)
  assert.deepEqual(opened('key', bytes, codec), envelope)
  assert.equal(opened('other', bytes, codec), null)
})

test('what was changed on its way, in any bit, or cut, is nobody’s', () => {
  const bytes = sealed('key', envelope, codec)
  for (let at = 0; at < bytes.length; at += 1) {
    for (let bit = 0; bit < 8; bit += 1) {
      const changed = Buffer.from(bytes)
      changed[at]! ^= 1 << bit
      assert.equal(opened('key', changed, codec), null, `bit ${bit} of byte ${at}`)
    }
    assert.equal(opened('key', bytes.subarray(0, at), codec), null, `the first ${at} bytes`)
  }
  assert.equal(
    opened('key', Buffer.concat([bytes, Buffer.from('x')]), codec),
    null,
    'one byte more',
  )
})
