import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CacheMachine } from '#cache/cache-machine.ts'
import { cacheDefaults } from '#cache/cache-state.ts'
import type { CacheEffect, CacheEvent, Envelope } from '#cache/cache-state.ts'
import { EnvelopeSeal } from '#cache/envelope.ts'
import type { Codec } from '#cache/envelope.ts'
import { SealedLevel } from '#cache/sealed-level.ts'
import { MemorySecondLevel } from '#test/support/memory-second-level.ts'
import { Random } from '../../sim/random.ts'

const runs = 10_000
const stepsPerRun = 14
const keys = ['a', 'b', 'c'] as const
type Value = { readonly text: string }
const codec: Codec<Value> = {
  encode: ({ text }) => Buffer.from(text),
  decode: (bytes) => ({ text: bytes.toString() }),
}

/**
 * One installation as the second level sees it: a node on a model of a database whose rows
 * have versions, each written by the transaction of that number.
 */
class Installation {
  readonly level: SealedLevel
  readonly seal: EnvelopeSeal
  readonly epoch: string
  readonly #name: string
  readonly #machine: CacheMachine<Value>
  readonly #rows = new Map<string, number>()
  #xid = 10
  #now = 1
  #requests = 0
  readonly results: string[] = []

  constructor(
    name: string,
    store: MemorySecondLevel,
    options: { readonly epoch: string; readonly secret: string; readonly level: string },
  ) {
    this.#name = name
    this.epoch = options.epoch
    this.seal = new EnvelopeSeal(options)
    this.level = new SealedLevel({ ...options, store })
    this.#machine = new CacheMachine({ ...cacheDefaults, secondLevel: true })
    this.restart()
  }

  /** An empty first level, as after a restart: everything comes from the second one or is read. */
  restart(): void {
    const { epoch } = this
    this.#machine.step(
      { kind: 'flush', reason: 'start', epoch, cursor: this.#cursor(), lsn: 1 },
      this.#now,
    )
    this.#lease()
  }

  /** How often the second level was believed. */
  get believed(): number {
    return this.#machine.counts.second
  }

  truth(key: string): string {
    return `${this.#name}:${key}:${this.#rows.get(key) ?? 0}`
  }

  write(key: string): void {
    const xid = this.#xid
    this.#xid += 1
    this.#rows.set(key, xid)
    const change = { xid, collection: 'c', key, operation: 'update' as const }
    this.#machine.step(
      {
        kind: 'apply',
        cursor: this.#cursor(),
        lsn: 1,
        changes: [{ ...change, before: null, after: null }],
      },
      this.#now,
    )
    this.#lease()
  }

  async get(key: string): Promise<void> {
    this.#requests += 1
    await this.#step({
      kind: 'get',
      request: this.#requests,
      key,
      token: null,
      dependencies: [{ kind: 'row', collection: 'c', key }],
      deadlineMs: this.#now + 1_000,
      part: false,
    })
  }

  envelope(key: string, text: string): Envelope<Value> {
    return {
      value: { text },
      bytes: 10,
      snapshot: this.#cursor(),
      dependencies: [{ kind: 'row', collection: 'c', key }],
      epoch: this.epoch,
    }
  }

  #cursor(): Envelope<Value>['snapshot'] {
    return { xmin: this.#xid, xmax: this.#xid, xip: [] }
  }

  #lease(): void {
    this.#now += 1
    this.#machine.step({ kind: 'lease', polledAtMs: this.#now, provenAtMs: this.#now }, this.#now)
  }

  async #step(event: CacheEvent<Value>): Promise<void> {
    for (const effect of this.#machine.step(event, this.#now)) await this.#perform(effect)
  }

  async #perform(effect: CacheEffect<Value>): Promise<void> {
    switch (effect.kind) {
      case 'secondGet': {
        const found = await this.level.get(this.epoch, effect.key, codec)
        return this.#step({ kind: 'second', fill: effect.fill, found })
      }
      case 'secondPut':
        return this.level.put(effect.key, effect.envelope, codec)
      case 'load': {
        const { value, ...envelope } = this.envelope(effect.key, this.truth(effect.key))
        const more = { asOfMs: null, stale: false }
        return this.#step({ kind: 'filled', fill: effect.fill, value, ...envelope, ...more })
      }
      case 'result':
        this.results.push('value' in effect.result ? effect.result.value.text : effect.result.kind)
    }
  }
}

/** A stranger who can read and write everything in the second level, and knows no secret. */
function attack(random: Random, store: MemorySecondLevel, victim: Installation): void {
  const places = keys.map((key) => victim.seal.placeOf(victim.epoch, key))
  const place = random.pick(places)
  const known = [...store.entries.values()]
  const bytes = random.pick([...known, Buffer.from('nonsense'), Buffer.alloc(0)])
  const forger = new EnvelopeSeal({ secret: 'guessed', level: '1' })
  const key = random.pick(keys)
  switch (random.below(5)) {
    case 0:
      store.entries.set(place, bytes)
      return
    case 1:
      store.entries.set(place, forger.seal(key, victim.envelope(key, 'forged'), codec))
      return
    case 2: {
      const changed = Buffer.from(bytes)
      if (changed.length > 0) changed[random.below(changed.length)]! ^= 1 << random.below(8)
      store.entries.set(place, changed)
      return
    }
    case 3:
      store.entries.set(place, bytes.subarray(0, random.below(bytes.length + 1)))
      return
    default:
      store.entries.delete(place)
  }
}

const title =
  `${runs} runs in two worlds: whatever others do in a shared second level, ` +
  'a node returns only the truth of its own database'

test(title, async () => {
  let second = 0
  for (let run = 1; run <= runs; run += 1) {
    const random = new Random(run)
    const store = new MemorySecondLevel()
    const secret = 'the secret of the cluster'
    const base = { epoch: 'a1.1.1', secret, level: '1' }
    const victim = new Installation('own', store, base)
    const peer = random.pick([
      { ...base, epoch: 'b2.1.1' },
      { ...base, secret: 'another' },
      { ...base, level: '2' },
    ])
    const stranger = new Installation('foreign', store, peer)
    for (let step = 0; step < stepsPerRun; step += 1) {
      const key = random.pick(keys)
      const who = random.chance(0.6) ? victim : stranger
      const chance = random.next()
      if (chance < 0.5) {
        const expected = who.truth(key)
        await who.get(key)
        assert.equal(who.results.at(-1), expected, `run ${run}, step ${step}`)
      } else if (chance < 0.65) who.write(key)
      else if (chance < 0.85) attack(random, store, victim)
      else who.restart()
    }
    second += victim.believed
  }
  assert.ok(second > runs / 10, `the second level was believed only ${second} times`)
})
