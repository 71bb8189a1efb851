/**
 * A bound that one client address cannot use up. An address may hold as many places as are still
 * free: alone it gets half of them, two that press get a third each, and the next one finds room.
 * Nothing is configured per address, and a quiet node refuses no one.
 */
export class Places {
  readonly #max: number
  readonly #held = new Map<string, number>()
  #taken = 0

  constructor(max: number) {
    this.#max = max
  }

  /** False: this address holds its share already. */
  take(address: string): boolean {
    const held = this.#held.get(address) ?? 0
    if (held >= this.#max - this.#taken) return false
    this.#held.set(address, held + 1)
    this.#taken += 1
    return true
  }

  giveBack(address: string): void {
    const held = this.#held.get(address) ?? 0
    if (held <= 1) this.#held.delete(address)
    else this.#held.set(address, held - 1)
    this.#taken -= 1
  }

  get taken(): number {
    return this.#taken
  }

  /** An address that holds nothing would be refused. */
  get isFull(): boolean {
    return this.#taken >= this.#max
  }
}
