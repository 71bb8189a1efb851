import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'node:test'
import { systemClock } from '#lib/clock.ts'
import { FairQueue, QueueBusyError } from '#lib/fair-queue.ts'
import type { Claim } from '#lib/fair-queue.ts'

const limits = { runningMax: 2, waitingMax: 6, waitingPerCallerMax: 3, waitMs: 10_000 }

/** Work that ends when the test says so, in the order in which it started. */
class Desk {
  readonly queue: FairQueue
  readonly started: string[] = []
  readonly #ends = new Map<string, () => void>()

  constructor(changed: Partial<typeof limits> = {}) {
    this.queue = new FairQueue({ ...limits, ...changed }, systemClock)
  }

  ask(name: string, claim: Claim): Promise<void> {
    return this.queue.run(claim, () => {
      this.started.push(name)
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#ends.set(name, resolve)
      return promise
    })
  }

  async end(name: string): Promise<void> {
    this.#ends.get(name)!()
    await sleep(1)
  }
}

test('one caller, and one group, hold at most half of the places', async () => {
  const desk = new Desk()
  const asked = [
    desk.ask('a1', { caller: 'a', group: 'x' }),
    desk.ask('a2', { caller: 'a', group: 'y' }),
    desk.ask('b1', { caller: 'b', group: 'x' }),
    desk.ask('c1', { caller: 'c', group: 'z' }),
  ]
  await sleep(1)
  assert.deepEqual(desk.started, ['a1', 'c1'])
  await desk.end('a1')
  assert.deepEqual(desk.started.length, 3)
  await desk.end('c1')
  // Whatever the order: a2 and b1 differ in caller and group, so both run now.
  assert.deepEqual(desk.started.toSorted(), ['a1', 'a2', 'b1', 'c1'])
  await desk.end('a2')
  await desk.end('b1')
  await Promise.all(asked)
})

test('a free place goes to the one who has used the least', async () => {
  const desk = new Desk({ runningMax: 1 })
  const asked = [desk.ask('a1', { caller: 'a', group: 'x' })]
  await sleep(20)
  asked.push(desk.ask('a2', { caller: 'a', group: 'x' }))
  asked.push(desk.ask('a3', { caller: 'a', group: 'x' }))
  asked.push(desk.ask('b1', { caller: 'b', group: 'y' }))
  await desk.end('a1')
  assert.deepEqual(desk.started, ['a1', 'b1'])
  for (const name of ['b1', 'a2', 'a3']) await desk.end(name)
  await Promise.all(asked)
})

test('the queue is bounded by caller, and when full the heaviest caller makes room', async () => {
  const desk = new Desk({ runningMax: 1 })
  const asked = [desk.ask('a1', { caller: 'a', group: 'x' })]
  await sleep(20)
  await desk.end('a1')
  asked.push(desk.ask('b1', { caller: 'b', group: 'y' }))
  const waiting = [1, 2, 3].map((number) => desk.ask(`a-${number}`, { caller: 'a', group: 'x' }))
  const dropped = assert.rejects(waiting[0]!, QueueBusyError)
  await assert.rejects(desk.ask('a-4', { caller: 'a', group: 'x' }), QueueBusyError)
  for (const caller of ['c', 'd', 'e']) asked.push(desk.ask(caller, { caller, group: caller }))
  asked.push(desk.ask('f', { caller: 'f', group: 'f' }))
  await dropped
  assert.equal(desk.queue.waiting, 6)
  const ended = Promise.all([...asked, ...waiting.slice(1)])
  for (const name of ['b1', 'c', 'd', 'e', 'f', 'a-2', 'a-3']) await desk.end(name)
  await ended
})

test('costly work leaves a place to short work, and a wait has an end', async () => {
  const desk = new Desk({ waitMs: 30 })
  const asked = [desk.ask('large', { caller: 'a', group: 'x', isCostly: true })]
  const second = desk.ask('also large', { caller: 'b', group: 'y', isCostly: true })
  asked.push(desk.ask('small', { caller: 'c', group: 'z' }))
  await sleep(1)
  assert.deepEqual(desk.started, ['large', 'small'])
  await assert.rejects(second, (error) => error instanceof QueueBusyError && error.retryAfterS >= 1)
  await desk.end('large')
  await desk.end('small')
  await Promise.all(asked)
})
