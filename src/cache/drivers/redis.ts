import { createClient, RESP_TYPES } from '@redis/client'
import { secondLevelKeepS, secondLevelTimeoutMs } from '#cache/second-level.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import type { Logger } from '#lib/logger.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import { backoffMs } from '#lib/backoff.ts'

export type RedisOptions = { readonly url: string; readonly logger: Logger }

const connectTimeoutMs = 2_000
/** A lost connection is tried again after this long, doubled up to the maximum. */
const retryFirstMs = 100
const retryMaxMs = 5_000
/** Commands on their way; past them a value is not there. */
const commandsMax = 1_000
/**
 * Of values on their way there; past them none is sent. A server that hangs would otherwise make
 * the node hold on to thousands.
 */
const putBytesMax = 16 * 1024 * 1024
/**
 * After a timeout the server is not used for this long: otherwise each request would wait for
 * nothing.
 */
const pauseMs = 1_000

type Client = ReturnType<typeof clientOf>

function clientOf(url: string) {
  return createClient({
    url,
    // While it is away nothing waits for it.
    disableOfflineQueue: true,
    commandsQueueMaxLength: commandsMax,
    socket: {
      connectTimeout: connectTimeoutMs,
      reconnectStrategy: (retries) =>
        backoffMs(retries, { firstMs: retryFirstMs, maxMs: retryMaxMs }),
    },
  }).withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer })
}

/** Redis or Valkey as the second level. A node starts and works without it. */
export class RedisSecondLevel implements SecondLevel {
  readonly #client: Client
  readonly #logger: Logger
  readonly #connecting: Promise<void>
  #away = false
  #putBytes = 0
  #pausedUntilMs = Number.NEGATIVE_INFINITY

  constructor({ url, logger }: RedisOptions) {
    this.#logger = logger
    this.#client = clientOf(url)
    this.#client.on('error', (error: unknown) => this.#lost(error))
    this.#client.on('ready', () => this.#found())
    this.#connecting = this.#client.connect().then(
      () => undefined,
      (error: unknown) => this.#lost(error),
    )
  }

  get connected(): boolean {
    return this.#client.isReady && performance.now() >= this.#pausedUntilMs
  }

  async get(key: string): Promise<Buffer | null> {
    if (!this.connected) return null
    return this.#inTime(this.#client.get(key))
  }

  async put(key: string, bytes: Buffer): Promise<void> {
    if (!this.connected || this.#putBytes + bytes.byteLength > putBytesMax) return
    this.#putBytes += bytes.byteLength
    const sent = this.#client.set(key, bytes, {
      expiration: { type: 'EX', value: secondLevelKeepS },
    })
    await this.#inTime(
      sent.finally(() => {
        this.#putBytes -= bytes.byteLength
      }),
    )
  }

  async close(): Promise<void> {
    this.#client.destroy()
    await this.#connecting
  }

  async #inTime<T>(command: Promise<T>): Promise<T | null> {
    const tried = command.catch((error: unknown) => {
      this.#logger.debug({ err: error }, 'the second level did not respond')
      return null
    })
    const result = await withTimeout(tried, secondLevelTimeoutMs)
    if (result !== timedOut) return result
    this.#pausedUntilMs = performance.now() + pauseMs
    return null
  }

  /** The client reports each attempt; one line for each outage is enough. */
  #lost(error: unknown): void {
    if (this.#away) return
    this.#away = true
    this.#logger.warn(
      { err: error },
      'the second level of the cache cannot be reached; the database is asked instead',
    )
  }

  #found(): void {
    if (this.#away) this.#logger.info({}, 'the second level of the cache is back')
    this.#away = false
  }
}
