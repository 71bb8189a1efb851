import { Readable } from 'node:stream'
import type {
  BlobId,
  BlobInfo,
  FileStore,
  FileStoreIdentity,
  PutOptions,
} from '#file-store/file-store.ts'

/**
 * A file store whose process dies at one of its calls: before it takes effect, or after it has,
 * with the response lost. `before` runs ahead of each call.
 */
export class FaultyFileStore implements FileStore {
  readonly #inner: FileStore
  readonly #fault: Fault

  constructor(inner: FileStore, fault: Fault) {
    this.#inner = inner
    this.#fault = fault
  }

  get identity(): FileStoreIdentity {
    const inner = this.#inner.identity
    return {
      place: inner.place,
      where: inner.where,
      read: () => this.#fault.at(() => inner.read()),
      claim: (identity) => this.#fault.at(() => inner.claim(identity)),
    }
  }

  async put(source: Readable, options: PutOptions): Promise<BlobInfo> {
    try {
      return await this.#fault.at(() => this.#inner.put(source, options))
    } finally {
      source.destroy()
    }
  }

  get(id: BlobId, range?: { readonly start: number; readonly end: number }): Promise<Readable> {
    return this.#fault.at(() => this.#inner.get(id, range))
  }

  info(id: BlobId): Promise<BlobInfo> {
    return this.#fault.at(() => this.#inner.info(id))
  }

  delete(id: BlobId, options?: { readonly writtenBeforeMs: number }): Promise<boolean> {
    return this.#fault.at(() => this.#inner.delete(id, options))
  }

  list(): AsyncIterable<BlobInfo & { readonly writtenAtMs: number }> {
    return this.#inner.list()
  }

  prune(options: { readonly writtenBeforeMs: number; readonly dryRun: boolean }): Promise<number> {
    return this.#fault.at(() => this.#inner.prune(options))
  }

  check(signal: AbortSignal): Promise<void> {
    return this.#inner.check(signal)
  }

  close(): Promise<void> {
    return this.#inner.close()
  }
}

/** One moment among all calls of the stores that share it. */
export class Fault {
  /** The calls that were begun. */
  calls = 0
  readonly #at: number
  readonly #when: 'before' | 'after'

  constructor(at: number, when: 'before' | 'after') {
    this.#at = at
    this.#when = when
  }

  get hasHappened(): boolean {
    return this.calls >= this.#at
  }

  async at<T>(work: () => Promise<T>): Promise<T> {
    this.calls += 1
    if (this.calls < this.#at) return work()
    if (this.#when === 'after' && this.calls === this.#at) {
      const lost = await work()
      if (lost instanceof Readable) lost.destroy()
    }
    throw new Error('the process has died')
  }
}
