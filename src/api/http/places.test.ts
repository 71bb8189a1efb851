import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Places } from '#api/http/places.ts'

function takeAll(places: Places, address: string): number {
  let count = 0
  while (places.take(address)) count += 1
  return count
}

test('an address alone gets half of the places, and the next one half of what is left', () => {
  const places = new Places(8)
  assert.equal(takeAll(places, 'a'), 4)
  assert.equal(takeAll(places, 'b'), 2)
  assert.equal(takeAll(places, 'c'), 1)
  assert.equal(places.take('d'), true)
  assert.equal(places.isFull, true)
  assert.equal(places.take('e'), false)
})

test('places that are given back are free for everyone', () => {
  const places = new Places(4)
  takeAll(places, 'a')
  places.giveBack('a')
  places.giveBack('a')
  assert.equal(places.taken, 0)
  assert.equal(takeAll(places, 'b'), 2)
})
