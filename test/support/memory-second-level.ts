import type { SecondLevel } from '#cache/second-level.ts'

/** Entries kept; the oldest give way. */
const entriesMax = 10_000

/** A second level within one process: for tests, and for nodes that share it. */
export class MemorySecondLevel implements SecondLevel {
  readonly server = null
  readonly entries = new Map<string, Buffer>()
  #closed = false

  get connected(): boolean {
    return !this.#closed
  }

  async get(key: string): Promise<Buffer | null> {
    return this.#closed ? null : (this.entries.get(key) ?? null)
  }

  async put(key: string, bytes: Buffer): Promise<void> {
    if (this.#closed) return
    this.entries.set(key, bytes)
    for (const oldest of this.entries.keys()) {
      if (this.entries.size <= entriesMax) break
      this.entries.delete(oldest)
    }
  }

  async close(): Promise<void> {
    this.#closed = true
  }
}
