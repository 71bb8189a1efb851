/**
 * Background work that its owner started and has to wait for before it ends. Each piece handles its
 * own errors: one that rejects is a defect and ends the process.
 */
export class Tasks {
  readonly #running = new Set<Promise<unknown>>()

  get count(): number {
    return this.#running.size
  }

  add(work: Promise<unknown>): void {
    this.#running.add(work)
    void work.finally(() => this.#running.delete(work))
  }

  /** Resolves when all work has ended, including work that was added meanwhile. */
  async ended(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }
}
