import { GetObjectCommand, HeadObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { randomBytes } from 'node:crypto'
import { addAbortSignal } from 'node:stream'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { ReceivedBytes } from '#file-store/drivers/received-bytes.ts'
import { addressOf, codeOf, statusOf } from '#file-store/drivers/s3-errors.ts'
import { S3Bucket, transferTimeoutMs } from '#file-store/drivers/s3-bucket.ts'
import {
  BlobDamagedError,
  BlobNotFoundError,
  FileStoreUnavailableError,
} from '#file-store/errors.ts'
import type {
  BlobId,
  BlobInfo,
  FileStore,
  FileStoreIdentity,
  PutOptions,
} from '#file-store/file-store.ts'
import { backoffMs } from '#lib/backoff.ts'
import type { Clock } from '#lib/clock.ts'
import { Gate } from '#lib/gate.ts'
import type { S3Place } from '#lib/s3-url.ts'

const idPattern = /^[0-9a-f]{64}$/
const marker = 'stoa-files'
const blobFolder = 'blobs/'
const deletionFolder = 'deleting/'
const checkFolder = 'check/'
/** The metadata with the time of the last put, by the clock of the nodes. */
const writtenKey = 'stoa-written-ms'

/**
 * A sender may be slow, and then holds no more memory than this. Bytes whose hash is known before
 * come from a store of ours, a few at a time.
 */
const strangerBytesMax = 1024 ** 2

/** Larger blobs go up in parts of at least this size, of which there may be 10,000. */
const wholeBytesMax = 32 * 1024 ** 2
const partBytesMin = 8 * 1024 ** 2
const partsMax = 9_000
const partsAtOnce = 2
/** Puts that send to the storage at once; each holds `wholeBytesMax` in memory at most. */
const sendingMax = 4
const sendingWaitMs = 120_000

/** A put and a delete of equal bytes may cross; each round means that a delete was first. */
const publishAttemptsMax = 20
const claimAttemptsMax = 5
const retry = { firstMs: 50, maxMs: 1_000, jitter: 0.5 }

/** A bucket does not become another one unseen; this often it is looked at all the same. */
const identityKnownMs = 30_000

/** A delete that has not begun so long after its mark does not happen. */
const deleteWithinMs = 10_000
/**
 * The storage refuses a request whose signature is older than 15 minutes, so a delete whose process
 * died, or whose response was lost, cannot take effect after this.
 */
const deletionMarkMs = 20 * 60_000
const deletionWaitMs = 30_000

export type S3FileStoreOptions = {
  readonly place: S3Place
  /** Bytes of a put wait here, in files without a name, until their hash is known. */
  readonly spoolFolder: string
  readonly clock: Clock
}

/**
 * Blobs as objects of a bucket:
 *
 *     stoa-files                       the identity of the store
 *     blobs/abcd…                      a blob; its metadata has the time of its last put
 *     deleting/abcd….MS.RANDOM         a delete under way since MS
 *     check/RANDOM                     a check under way
 *
 * Nothing here needs a conditional write, since storages differ in which they have and some ignore
 * them. A put overwrites: equal bytes over equal bytes, visible whole or not at all. A put and a
 * delete with `writtenBeforeMs` could cross so that the delete takes the bytes that were just put.
 * So the delete leaves a mark first, then looks at the time of the blob once more, and deletes; the
 * put looks for marks after it has written, waits until they are gone, and then sees whether its
 * bytes are there. Whichever comes second sees the first.
 */
export class S3FileStore implements FileStore {
  readonly #bucket: S3Bucket
  readonly #spoolFolder: string
  readonly #clock: Clock
  readonly #sending: Gate
  /** The identity at first sight: another bucket of that name later is not this store. */
  #seen: string | null = null
  #seenAtMs = Number.NEGATIVE_INFINITY

  readonly identity: FileStoreIdentity

  constructor({ place, spoolFolder, clock }: S3FileStoreOptions) {
    this.#bucket = new S3Bucket(place)
    this.#spoolFolder = spoolFolder
    this.#clock = clock
    this.#sending = new Gate(sendingMax)
    this.identity = {
      place: addressOf(place),
      where: `the object ${place.prefix}${marker} of the bucket ${place.bucket}`,
      read: () => this.#readIdentity(),
      claim: (identity) => this.#claim(identity),
    }
  }

  async put(source: Readable, options: PutOptions): Promise<BlobInfo> {
    const { bytesMax, signal, expected } = options
    // The source may fail before it is read. Reading shows that; an error without a listener would
    // end the process.
    source.on('error', () => undefined)
    try {
      await this.#ready(signal)
      if (signal !== undefined) addAbortSignal(signal, source)
      await using received = await ReceivedBytes.from(source, {
        folder: this.#spoolFolder,
        bytesMax,
        memoryBytesMax: expected === undefined ? strangerBytesMax : wholeBytesMax,
      })
      if (expected !== undefined && expected !== received.blob.id)
        throw new BlobDamagedError(expected, received.blob.id)
      await this.#publish(received, signal)
      return received.blob
    } finally {
      source.destroy()
    }
  }

  async get(
    id: BlobId,
    range?: { readonly start: number; readonly end: number },
  ): Promise<Readable> {
    if (!idPattern.test(id)) throw await this.#missing(id)
    if (range !== undefined && !(range.start >= 0 && range.start <= range.end))
      throw badRange(range)
    const Range = range === undefined ? {} : { Range: `bytes=${range.start}-${range.end}` }
    const response = await this.#bucket
      .find((client, options) =>
        client.send(
          new GetObjectCommand({ ...this.#bucket.at(blobFolder + id), ...Range }),
          options,
        ),
      )
      .catch((error: FileStoreUnavailableError) => {
        throw range !== undefined && error.facts['status'] === 416 ? badRange(range) : error
      })
    if (response === null) throw await this.#missing(id)
    const source = response.Body as Readable
    const { ContentRange } = response
    if (range !== undefined && !ContentRange?.startsWith(`bytes ${range.start}-${range.end}/`)) {
      source.on('error', () => undefined).destroy()
      throw badRange(range)
    }
    return this.#bucket.body(source)
  }

  async info(id: BlobId): Promise<BlobInfo> {
    const found = idPattern.test(id) ? await this.#look(id) : null
    if (found === null) throw await this.#missing(id)
    return { id, bytes: found.bytes }
  }

  async delete(id: BlobId, options?: { readonly writtenBeforeMs: number }): Promise<boolean> {
    if (!idPattern.test(id)) return false
    this.#seenAtMs = Number.NEGATIVE_INFINITY
    await this.#ready()
    const found = await this.#look(id)
    if (found === null) return false
    if (options === undefined) {
      await this.#bucket.remove(blobFolder + id)
      return true
    }
    if (found.writtenAtMs >= options.writtenBeforeMs) return false
    const nowMs = this.#clock.nowMs()
    const mark = `${deletionFolder}${id}.${nowMs}.${randomBytes(8).toString('hex')}`
    const startedMs = performance.now()
    await this.#bucket.writeText(mark, '')
    let isSafe = true
    try {
      const again = await this.#look(id)
      if (again === null || again.writtenAtMs >= options.writtenBeforeMs) return false
      if (performance.now() - startedMs > deleteWithinMs) throw this.#slow()
      isSafe = false
      await this.#bucket.remove(blobFolder + id)
      isSafe = true
      return true
    } finally {
      // A delete whose response is lost may still happen: its mark stays, and puts wait for it.
      if (isSafe) await this.#bucket.remove(mark)
    }
  }

  async *list(): AsyncIterable<BlobInfo & { readonly writtenAtMs: number }> {
    await this.#ready()
    for await (const { key, bytes, writtenAtMs } of this.#bucket.objects(blobFolder)) {
      const id = key.slice(blobFolder.length)
      if (idPattern.test(id)) yield { id, bytes, writtenAtMs }
    }
  }

  async prune(options: {
    readonly writtenBeforeMs: number
    readonly dryRun: boolean
  }): Promise<number> {
    await this.#ready()
    const { writtenBeforeMs, dryRun } = options
    let count = 0
    for await (const upload of this.#bucket.unfinished(blobFolder)) {
      if (upload.startedAtMs >= writtenBeforeMs) continue
      count += 1
      if (!dryRun) await this.#bucket.abandon(upload)
    }
    const marksBeforeMs = Math.min(writtenBeforeMs, this.#clock.nowMs() - deletionMarkMs)
    for (const [folder, beforeMs] of [
      [checkFolder, writtenBeforeMs],
      [deletionFolder, marksBeforeMs],
    ] as const) {
      for await (const { key, writtenAtMs } of this.#bucket.objects(folder)) {
        if (writtenAtMs >= beforeMs) continue
        count += 1
        if (!dryRun) await this.#bucket.remove(key)
      }
    }
    return count
  }

  async check(signal: AbortSignal): Promise<void> {
    await this.#ready(signal)
    const key = `${checkFolder}${randomBytes(8).toString('hex')}`
    await this.#bucket.writeText(key, 'stoa', signal)
    const text = await this.#bucket.readText(key, signal)
    await this.#bucket.remove(key)
    if (text !== 'stoa')
      throw new FileStoreUnavailableError(
        `The file store ${this.identity.place} does not return what was written to it.`,
      )
  }

  async close(): Promise<void> {
    this.#bucket.close()
  }

  /** Sends the bytes until they are there and no delete can take them. */
  async #publish(received: ReceivedBytes, signal: AbortSignal | undefined): Promise<void> {
    const { id } = received.blob
    for (let attempt = 0; attempt < publishAttemptsMax; attempt += 1) {
      await this.#sending.run(
        () => this.#send(received, signal),
        sendingWaitMs,
        () => this.#busy(),
      )
      await this.#awaitDeletions(id, signal)
      if ((await this.#look(id, signal)) !== null) return
    }
    throw new FileStoreUnavailableError('A blob is deleted and stored over and over; try again.', {
      blob: id,
    })
  }

  async #send(received: ReceivedBytes, signal: AbortSignal | undefined): Promise<void> {
    const { id, bytes } = received.blob
    const params = {
      ...this.#bucket.at(blobFolder + id),
      Metadata: { [writtenKey]: String(this.#clock.nowMs()) },
      ContentType: 'application/octet-stream',
    }
    if (bytes > wholeBytesMax) return this.#sendParts(received, params, signal)
    const Body = await received.whole()
    await this.#bucket.run(
      (client, options) =>
        client.send(hashed(new PutObjectCommand({ ...params, Body }), id), options),
      { timeoutMs: transferTimeoutMs, signal },
    )
  }

  async #sendParts(
    received: ReceivedBytes,
    params: { readonly Bucket: string; readonly Key: string },
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const parts = Math.ceil(received.blob.bytes / partBytesMin)
    const partSize = parts <= partsMax ? partBytesMin : Math.ceil(received.blob.bytes / partsMax)
    await this.#bucket.run(
      async (client, { abortSignal }) => {
        const abort = new AbortController()
        const stop = (): void => abort.abort(abortSignal.reason)
        abortSignal.addEventListener('abort', stop, { once: true })
        try {
          abortSignal.throwIfAborted()
          const Body = received.stream()
          const upload = new Upload({
            client,
            params: { ...params, Body },
            partSize,
            queueSize: partsAtOnce,
            abortController: abort,
          })
          await upload.done()
        } finally {
          abortSignal.removeEventListener('abort', stop)
        }
      },
      { timeoutMs: transferTimeoutMs * Math.max(1, parts / partsAtOnce), signal },
    )
  }

  /** Returns when no delete of this blob is under way. */
  async #awaitDeletions(id: BlobId, signal: AbortSignal | undefined): Promise<void> {
    const endMs = performance.now() + deletionWaitMs
    for (let attempt = 0; ; attempt += 1) {
      let underWay = false
      for await (const { key } of this.#bucket.objects(`${deletionFolder}${id}.`, signal)) {
        const sinceMs = Number(key.split('.')[1])
        if (this.#clock.nowMs() - sinceMs < deletionMarkMs) underWay = true
      }
      if (!underWay) return
      if (performance.now() > endMs)
        throw new FileStoreUnavailableError(
          'An older file of the same bytes is being deleted; try again in 20 minutes.',
          { blob: id },
        )
      await sleep(backoffMs(attempt, retry), undefined, signal === undefined ? {} : { signal })
    }
  }

  async #look(
    id: BlobId,
    signal?: AbortSignal,
  ): Promise<{ readonly bytes: number; readonly writtenAtMs: number } | null> {
    const found = await this.#bucket.find(
      (client, options) =>
        client.send(new HeadObjectCommand(this.#bucket.at(blobFolder + id)), options),
      { signal },
    )
    if (found === null) return null
    const written = found.Metadata?.[writtenKey]
    const writtenAtMs = written === undefined ? found.LastModified?.getTime() : Number(written)
    return { bytes: found.ContentLength ?? 0, writtenAtMs: writtenAtMs ?? 0 }
  }

  /** The error for a blob that is not there: nothing is missing from a bucket that is another. */
  async #missing(id: BlobId): Promise<Error> {
    this.#seenAtMs = Number.NEGATIVE_INFINITY
    await this.#ready()
    return new BlobNotFoundError(id)
  }

  /** Throws unless the bucket is the store that it was at first sight. */
  async #ready(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    const nowMs = performance.now()
    if (nowMs - this.#seenAtMs < identityKnownMs) return
    const found = await this.#readIdentity(signal)
    if (found !== null && found === (this.#seen ?? found)) {
      this.#seen = found
      this.#seenAtMs = nowMs
      return
    }
    const place = this.identity.place
    throw new FileStoreUnavailableError(
      found === null
        ? `${place} is not a file store; correct STOA_FILES_URL, or restore the files there.`
        : `${place} is another file store than before; correct STOA_FILES_URL.`,
      { place },
    )
  }

  async #readIdentity(signal?: AbortSignal): Promise<string | null> {
    return (await this.#bucket.readText(marker, signal))?.trim() || null
  }

  /**
   * Where the storage has conditional writes, the first of two databases that claim one bucket at
   * the same moment has it. Elsewhere the last one has, and the other finds that out before it
   * writes or deletes.
   */
  async #claim(identity: string): Promise<string> {
    for (let attempt = 0; attempt < claimAttemptsMax; attempt += 1) {
      const found = await this.#readIdentity()
      if (found !== null) return found
      const params = { ...this.#bucket.at(marker), Body: Buffer.from(`${identity}\n`) }
      const isConditional = attempt + 1 < claimAttemptsMax
      const condition = isConditional ? { IfNoneMatch: '*' } : {}
      try {
        await this.#bucket.run((client, options) =>
          client.send(new PutObjectCommand({ ...params, ...condition }), options),
        )
        return (await this.#readIdentity()) ?? identity
      } catch (error) {
        // Taken meanwhile, being taken, or a storage without conditional writes: look again.
        if (!isConditional || !isRefusedCondition(error)) throw error
        await sleep(backoffMs(attempt, retry))
      }
    }
    throw this.#slow()
  }

  #slow(): FileStoreUnavailableError {
    return new FileStoreUnavailableError(
      `The file store ${this.identity.place} is too slow; try again.`,
    )
  }

  #busy(): FileStoreUnavailableError {
    return new FileStoreUnavailableError(
      'Too many files are sent to the file store at once; try again.',
    )
  }
}

/** The id of a blob is the hash that signs its bytes, so the storage checks it. */
function hashed(command: PutObjectCommand, id: BlobId): PutObjectCommand {
  command.middlewareStack.add(
    (next) => (args) => {
      const { headers } = args.request as { readonly headers: Record<string, string> }
      headers['x-amz-content-sha256'] = id
      return next(args)
    },
    { step: 'build', name: 'contentHash' },
  )
  return command
}

function isRefusedCondition(error: unknown): boolean {
  const { cause } = error as { readonly cause?: unknown }
  return [304, 409, 412, 501].includes(statusOf(cause) ?? 0) || codeOf(cause) === 'NotImplemented'
}

function badRange(range: { readonly start: number; readonly end: number }): RangeError {
  return new RangeError(`Bytes ${range.start} to ${range.end}: the caller checks ranges.`)
}
