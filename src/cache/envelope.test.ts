import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Envelope } from '#cache/cache-state.ts'
import { EnvelopeSeal } from '#cache/envelope.ts'
import type { Codec } from '#cache/envelope.ts'

type Text = { readonly text: string }
const codec: Codec<Text> = {
  encode: ({ text }) => Buffer.from(text),
  decode: (bytes) => ({ text: bytes.toString() }),
}
const epoch = 'a1.1.1'
const envelope: Envelope<Text> = {
  value: { text: 'Säulen, many of them' },
  bytes: 1_234,
  epoch,
  snapshot: { xmin: 10, xmax: 15, xip: [11, 12] },
  dependencies: [
    { kind: 'row', collection: 'item', key: '1' },
    { kind: 'collection', collection: 'other' },
    {
      kind: 'list',
      collection: 'item',
      predicate: [
        { field: 'a', is: 'eq', value: true },
        { field: 'b', is: 'in', values: [1, 'x'], negated: true },
        { field: 'c', is: 'range', min: { value: 3, inclusive: false } },
        { field: 'd', is: 'startsWith', value: 'y' },
        { field: 'e', is: 'exists' },
      ],
      page: { sort: [{ field: 'a', descending: true }], after: null, upTo: [null] },
    },
  ],
}
const options = { secret: 'the secret of the cluster', level: '0.1.0' }
const seal = new EnvelopeSeal(options)
const at = { epoch, key: 'key' }

test('a sealed envelope opens for its key and epoch, and for no other', () => {
  const bytes = seal.seal('key', envelope, codec)
  assert.deepEqual(seal.open(at, bytes, codec), envelope)
  assert.equal(seal.open({ epoch, key: 'other' }, bytes, codec), null)
  assert.equal(seal.open({ epoch: 'a1.1.2', key: 'key' }, bytes, codec), null)
})

test('another secret or another level of the program neither finds nor opens it', () => {
  const bytes = seal.seal('key', envelope, codec)
  for (const other of [
    { ...options, secret: 'another' },
    { ...options, level: '0.2.0' },
  ]) {
    const stranger = new EnvelopeSeal(other)
    assert.notEqual(stranger.placeOf(epoch, 'key'), seal.placeOf(epoch, 'key'))
    assert.equal(stranger.open(at, bytes, codec), null)
    assert.equal(seal.open(at, stranger.seal('key', envelope, codec), codec), null)
  }
})

test('an envelope that was changed in any bit, or cut, is rejected', () => {
  const bytes = seal.seal('key', envelope, codec)
  for (let byte = 0; byte < bytes.length; byte += 1) {
    for (let bit = 0; bit < 8; bit += 1) {
      const changed = Buffer.from(bytes)
      changed[byte]! ^= 1 << bit
      assert.equal(seal.open(at, changed, codec), null, `bit ${bit} of byte ${byte}`)
    }
    assert.equal(seal.open(at, bytes.subarray(0, byte), codec), null, `the first ${byte} bytes`)
  }
  assert.equal(seal.open(at, Buffer.concat([bytes, Buffer.from('x')]), codec), null)
})

test('an envelope of the wrong shape is rejected though its signature is right', () => {
  const list = envelope.dependencies[2] as Extract<
    Envelope<Text>['dependencies'][number],
    { kind: 'list' }
  >
  const wrong: readonly object[] = [
    { bytes: null },
    { bytes: -1 },
    { bytes: '5' },
    { snapshot: null },
    { snapshot: { xmin: 1 } },
    { snapshot: { xmin: 10, xmax: 5, xip: [] } },
    { snapshot: { xmin: 10, xmax: 15, xip: [12, 11] } },
    { dependencies: 5 },
    { dependencies: [null] },
    { dependencies: [{ kind: 'row', collection: 'item' }] },
    { dependencies: [{ kind: 'any', collection: 'item' }] },
    { dependencies: [{ ...list, predicate: null }] },
    { dependencies: [{ ...list, predicate: [{ is: 'eq', value: 1 }] }] },
    { dependencies: [{ ...list, predicate: [{ field: 'a', is: 'in', values: 5 }] }] },
    { dependencies: [{ ...list, predicate: [{ field: 'a', is: 'range', min: 5 }] }] },
    { dependencies: [{ ...list, page: { sort: [], after: [1], upTo: null } }] },
    { dependencies: [{ ...list, page: undefined }] },
  ]
  for (const one of wrong) {
    const bytes = seal.seal('key', { ...envelope, ...one }, codec)
    assert.equal(seal.open(at, bytes, codec), null, JSON.stringify(one))
  }
})

test('a value that its codec cannot read is rejected', () => {
  const bytes = seal.seal('key', envelope, codec)
  const failing: Codec<Text> = {
    ...codec,
    decode: () => {
      throw new Error('not mine')
    },
  }
  assert.equal(seal.open(at, bytes, failing), null)
})
