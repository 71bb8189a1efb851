import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import type { S3ClientConfig } from '@aws-sdk/client-s3'
import { Readable } from 'node:stream'
import { isMissing, unavailable } from '#file-store/drivers/s3-errors.ts'
import type { S3Place } from '#lib/s3-url.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/** For a connection; and for the headers of a response without a large body in the request. */
const connectTimeoutMs = 3_000
const requestTimeoutMs = 10_000
/** For one part of a large blob, or a small blob as a whole. */
export const transferTimeoutMs = 120_000
/** A response whose bytes do not come for so long has ended. */
const stallTimeoutMs = 30_000
const attemptsMax = 3
/** Requests to a node are bounded, and a download holds a connection as long as its reader. */
const connectionsMax = 4_096

/** The bytes that a reader holds at once. */
const readChunkBytes = 128 * 1024

export type StoredObject = {
  readonly key: string
  readonly bytes: number
  /** By the clock of the storage. */
  readonly writtenAtMs: number
}

/** A large object whose parts are not all there. */
export type UnfinishedObject = {
  readonly key: string
  readonly uploadId: string
  readonly startedAtMs: number
}

export type RequestOptions = {
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
}

function clientConfig(place: S3Place): S3ClientConfig {
  const { endpoint, region, pathStyle, credentials } = place
  const agent = { keepAlive: true, maxSockets: connectionsMax }
  return {
    region,
    forcePathStyle: pathStyle,
    ...(endpoint === null ? {} : { endpoint }),
    ...(credentials === null ? {} : { credentials }),
    maxAttempts: attemptsMax,
    // With the SDK's own default, some servers refuse streams (411).
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: connectTimeoutMs,
      requestTimeout: transferTimeoutMs,
      throwOnRequestTimeout: true,
      socketTimeout: 0,
      httpAgent: agent,
      httpsAgent: agent,
    },
  }
}

type Work<T> = (client: S3Client, options: { readonly abortSignal: AbortSignal }) => Promise<T>

/**
 * The objects of one bucket below the folder of the store, by requests that each have a deadline.
 * Errors: `FileStoreUnavailableError`, whose cause is the SDK's own; an abort by `signal` rejects
 * with its reason.
 */
export class S3Bucket {
  readonly #client: S3Client
  readonly #place: S3Place

  constructor(place: S3Place) {
    this.#place = place
    this.#client = new S3Client(clientConfig(place))
  }

  async run<T>(work: Work<T>, options: RequestOptions = {}): Promise<T> {
    try {
      return await this.#run(work, options)
    } catch (error) {
      options.signal?.throwIfAborted()
      throw unavailable(this.#place, error)
    }
  }

  /** Null: there is no such object. */
  async find<T>(work: Work<T>, options: RequestOptions = {}): Promise<T | null> {
    try {
      return await this.#run(work, options)
    } catch (error) {
      options.signal?.throwIfAborted()
      if (isMissing(error)) return null
      throw unavailable(this.#place, error)
    }
  }

  at(key: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.#place.bucket, Key: this.#place.prefix + key }
  }

  async *objects(folder: string, signal?: AbortSignal): AsyncIterable<StoredObject> {
    const { bucket, prefix } = this.#place
    let token: string | undefined
    do {
      const request = { Bucket: bucket, Prefix: prefix + folder, ContinuationToken: token }
      const page = await this.run(
        (client, options) => client.send(new ListObjectsV2Command(request), options),
        { signal },
      )
      for (const { Key, Size, LastModified } of page.Contents ?? []) {
        const key = (Key ?? '').slice(prefix.length)
        yield { key, bytes: Size ?? 0, writtenAtMs: LastModified?.getTime() ?? 0 }
      }
      token = page.NextContinuationToken
    } while (token !== undefined)
  }

  async *unfinished(folder: string): AsyncIterable<UnfinishedObject> {
    const { bucket, prefix } = this.#place
    let from: { readonly KeyMarker?: string; readonly UploadIdMarker?: string } = {}
    for (;;) {
      const request = { Bucket: bucket, Prefix: prefix + folder, ...from }
      const page = await this.run((client, options) =>
        client.send(new ListMultipartUploadsCommand(request), options),
      )
      for (const { Key = '', UploadId = '', Initiated } of page.Uploads ?? []) {
        const startedAtMs = Initiated?.getTime() ?? 0
        yield { key: Key.slice(prefix.length), uploadId: UploadId, startedAtMs }
      }
      const { IsTruncated, NextKeyMarker, NextUploadIdMarker } = page
      if (IsTruncated !== true || NextKeyMarker === undefined) return
      from = {
        KeyMarker: NextKeyMarker,
        ...(NextUploadIdMarker === undefined ? {} : { UploadIdMarker: NextUploadIdMarker }),
      }
    }
  }

  async abandon({ key, uploadId }: UnfinishedObject): Promise<void> {
    const upload = { ...this.at(key), UploadId: uploadId }
    await this.find((client, options) =>
      client.send(new AbortMultipartUploadCommand(upload), options),
    )
  }

  async writeText(key: string, text: string, signal?: AbortSignal): Promise<void> {
    const params = { ...this.at(key), Body: Buffer.from(text) }
    await this.run((client, options) => client.send(new PutObjectCommand(params), options), {
      signal,
    })
  }

  async readText(key: string, signal?: AbortSignal): Promise<string | null> {
    const found = await this.find(
      async (client, options) => {
        const { Body } = await client.send(new GetObjectCommand(this.at(key)), options)
        return await Body?.transformToString()
      },
      { signal },
    )
    return found ?? null
  }

  async remove(key: string): Promise<void> {
    await this.find((client, options) =>
      client.send(new DeleteObjectCommand(this.at(key)), options),
    )
  }

  /** The bytes of a response. A reader may take its time; the storage may not. */
  body(source: Readable): Readable {
    const place = this.#place
    const chunks = async function* (): AsyncGenerator<Buffer> {
      const iterator = source.iterator()[Symbol.asyncIterator]()
      try {
        for (;;) {
          const next = await withTimeout(iterator.next(), stallTimeoutMs)
          if (next === timedOut) throw timeoutError(stallTimeoutMs)
          if (next.done === true) return
          yield next.value as Buffer
        }
      } catch (error) {
        throw unavailable(place, error)
      }
    }
    const body = Readable.from(chunks(), { objectMode: false, highWaterMark: readChunkBytes })
    // A generator that was never started does not run its end.
    body.once('close', () => source.destroy())
    source.on('error', () => undefined)
    return body
  }

  close(): void {
    this.#client.destroy()
  }

  async #run<T>(work: Work<T>, options: RequestOptions): Promise<T> {
    const { timeoutMs = requestTimeoutMs, signal } = options
    signal?.throwIfAborted()
    const deadline = new AbortController()
    const timer = setTimeout(() => deadline.abort(timeoutError(timeoutMs)), timeoutMs)
    try {
      return await work(this.#client, {
        abortSignal: AbortSignal.any([deadline.signal, ...(signal === undefined ? [] : [signal])]),
      })
    } catch (error) {
      throw deadline.signal.aborted ? deadline.signal.reason : error
    } finally {
      clearTimeout(timer)
    }
  }
}

function timeoutError(ms: number): Error {
  const error = new Error(`no response within ${ms} ms`)
  error.name = 'TimeoutError'
  return error
}
