import type { Envelope } from '#cache/cache-state.ts'
import { EnvelopeSeal } from '#cache/envelope.ts'
import type { Codec, SealOptions } from '#cache/envelope.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import type { Epoch } from '#change-feed/epoch.ts'

export type SealedLevelOptions = SealOptions & { readonly store: SecondLevel }

/** The second level with every value signed. Neither method rejects. */
export class SealedLevel {
  readonly #store: SecondLevel
  readonly #seal: EnvelopeSeal

  constructor({ store, ...seal }: SealedLevelOptions) {
    this.#store = store
    this.#seal = new EnvelopeSeal(seal)
  }

  get connected(): boolean {
    return this.#store.connected
  }

  /** Null: not there, not to be had in time, or not signed by a node of this cluster. */
  async get<V>(epoch: Epoch, key: string, codec: Codec<V>): Promise<Envelope<V> | null> {
    const bytes = await this.#store.get(this.#seal.placeOf(epoch, key))
    return bytes === null ? null : this.#seal.open({ epoch, key }, bytes, codec)
  }

  async put<V>(key: string, envelope: Envelope<V>, codec: Codec<V>): Promise<void> {
    await this.#store.put(
      this.#seal.placeOf(envelope.epoch, key),
      this.#seal.seal(key, envelope, codec),
    )
  }
}
