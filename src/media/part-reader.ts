import type { Readable } from 'node:stream'

/**
 * Reads one stream in several portions. Where the stream breaks off, its end is taken as the end of
 * the portion, so that the bytes before it are kept; `broken` then holds the error.
 */
export class PartReader {
  readonly #chunks: AsyncIterator<unknown>
  #pending: Buffer | null = null
  #ended = false
  broken: Error | null = null

  constructor(source: Readable) {
    this.#chunks = source.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]()
  }

  /** Waits for the next byte: false at the end, and where the stream broke. */
  async hasMore(): Promise<boolean> {
    while (this.#pending === null && !this.#ended) {
      try {
        const next = await this.#chunks.next()
        if (next.done === true) this.#ended = true
        else if ((next.value as Buffer).length > 0) this.#pending = next.value as Buffer
      } catch (error) {
        this.#ended = true
        this.broken =
          error instanceof Error ? error : new Error('The stream broke.', { cause: error })
      }
    }
    return this.#pending !== null
  }

  /** The next bytes, `bytesMax` at most. */
  async *take(bytesMax: number): AsyncGenerator<Buffer> {
    let left = bytesMax
    while (left > 0 && (await this.hasMore())) {
      const chunk = this.#pending!
      const piece = chunk.subarray(0, left)
      this.#pending = piece.length < chunk.length ? chunk.subarray(piece.length) : null
      left -= piece.length
      yield piece
    }
  }
}
