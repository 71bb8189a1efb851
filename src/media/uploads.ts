import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { BlobInfo } from '#file-store/file-store.ts'
import type { Actor } from '#lib/actor.ts'
import { isId, newId } from '#lib/id.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import { checkAlt } from '#media/alt.ts'
import { cleanName } from '#media/asset-name.ts'
import { createAsset } from '#media/assets.ts'
import { lockBlob } from '#media/blobs.ts'
import {
  AssetInputError,
  MediaBusyError,
  UploadChecksumError,
  UploadNotFoundError,
  UploadOffsetError,
  UploadRefusedError,
  UploadTooLargeError,
} from '#media/errors.ts'
import type { Alt, AppendInput, Checksum, Received, Uploads, UploadState } from '#media/media.ts'
import { callerOf } from '#media/receive-gate.ts'
import type { ReceiveGate } from '#media/receive-gate.ts'
import { PartReader } from '#media/part-reader.ts'
import { discard, receive, receiveBlob } from '#media/receive.ts'
import type { ReceiveParts } from '#media/receive.ts'

type Row = {
  readonly id: string
  readonly actor: string
  readonly name: string
  readonly alt: string
  readonly bytes: string
  readonly received: string
  readonly expires_at: string
  readonly asset_id: string | null
}
type Part = {
  readonly start: string
  readonly bytes: string
  readonly blob: string
  readonly written_at: string
}

/** Sets the locks of owners apart from other advisory locks of the database. */
const lockSeed = 20_261_127

const columns = 'id, actor, name, alt, bytes, received, expires_at, asset_id'
const openOf = sql<{ open: number; bytes: string }>(
  `select count(*)::integer as open, coalesce(sum(bytes), 0)::text as bytes
   from stoa.upload where owner = $1 and asset_id is null and expires_at > $2`,
)
/**
 * One owner's uploads begin one after the other, on all nodes, so that those of one moment are
 * counted too.
 */
const lockOwner = sql(
  `select pg_advisory_xact_lock(hashtextextended($1, ${lockSeed}))::text as locked`,
)
const insert = sql<Row>(
  `insert into stoa.upload (id, owner, actor, name, alt, bytes, created_at, expires_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8) returning ${columns}`,
)
const findOwn = sql<Row>(
  `select ${columns} from stoa.upload where id = $1 and owner = $2 and expires_at > $3`,
)
const advance = sql<Row>(
  `update stoa.upload set received = received + $3::bigint, expires_at = $4
   where id = $1 and received = $2 and asset_id is null returning ${columns}`,
)
const insertPart = sql(
  `insert into stoa.upload_part (upload_id, start, bytes, blob, written_at)
   values ($1, $2, $3, $4, $5)`,
)
const partsOf = sql<Part>(
  `select start, bytes, blob, written_at from stoa.upload_part where upload_id = $1 order by start`,
)
const lockUpload = sql<Row>(`select ${columns} from stoa.upload where id = $1 for update`)
const complete = sql<Row>(`update stoa.upload set asset_id = $2 where id = $1 returning ${columns}`)
const removeParts = sql<Part>(
  `delete from stoa.upload_part where upload_id = $1 returning start, bytes, blob, written_at`,
)
const remove = sql(`delete from stoa.upload where id = $1`)
/** Locked, so that an upload which has gone on since it was found to be expired stays. */
const lockExpired = sql<{ id: string }>(
  `select id from stoa.upload where id = $1 and expires_at <= $2 for update`,
)
const expired = sql<{ id: string }>(
  `select id from stoa.upload where expires_at <= $1 order by expires_at limit $2`,
)

/** A request waits so long for an older one of the same upload to store its bytes. */
const handoverMs = 10_000

/** Expired uploads removed in one go of the collection. */
const expiredBatch = 100

/**
 * The bytes of an upload are kept as parts: blobs, in the file store that all nodes share, so that
 * a client whose connection or node was lost goes on at any other. One statement moves `received`
 * on, from the very offset the part began at: of two requests that send the same bytes at once one
 * wins, and the other's part is thrown away.
 */
export class BlobUploads implements Uploads {
  readonly #parts: ReceiveParts
  readonly #gate: ReceiveGate
  readonly #finishing = new Map<string, Promise<Row>>()
  /**
   * The uploads that this process receives at the moment. A client that comes back knows that the
   * older connection is dead before this side does.
   */
  readonly #receiving = new Map<
    string,
    { readonly source: Readable; readonly ended: Promise<void> }
  >()

  constructor(parts: ReceiveParts, gate: ReceiveGate) {
    this.#parts = parts
    this.#gate = gate
  }

  async create(
    actor: Actor,
    input: { readonly name: string; readonly bytes: number; readonly alt?: Alt },
  ): Promise<UploadState> {
    const { database, limits, clock } = this.#parts
    if (!Number.isSafeInteger(input.bytes) || input.bytes < 0)
      throw new AssetInputError('The length of an upload is its number of bytes.', {
        field: 'bytes',
      })
    if (input.bytes === 0) throw new UploadRefusedError('The file is empty.', { reason: 'empty' })
    if (input.bytes > limits.uploadBytesMax) throw new UploadTooLargeError(limits.uploadBytesMax)
    const alt = checkAlt(input.alt ?? {})
    const now = clock.nowMs()
    const values = [
      newId(now),
      callerOf(actor),
      JSON.stringify(actor),
      cleanName(input.name),
      JSON.stringify(alt),
      input.bytes,
      iso(now),
      iso(now + limits.uploadIdleMs),
    ]
    return database.transaction(async (tx) => {
      await tx.run(lockOwner, [callerOf(actor)])
      const [unfinished] = await tx.run(openOf, [callerOf(actor), iso(now)])
      const bytes = Number(unfinished!.bytes) + input.bytes
      if (unfinished!.open >= limits.uploadsPerOwnerMax || bytes > limits.uploadBytesPerOwnerMax) {
        throw new MediaBusyError(
          `You have ${unfinished!.open} unfinished uploads of ${unfinished!.bytes} bytes; ` +
            'finish or end some before you begin another.',
          60,
        )
      }
      const [row] = await tx.run(insert, values)
      return stateOf(row!)
    })
  }

  async status(actor: Actor, id: string): Promise<UploadState> {
    await this.#takeOver(await this.#find(actor, id))
    return stateOf(await this.#finished(await this.#find(actor, id)))
  }

  async append(actor: Actor, id: string, input: AppendInput): Promise<UploadState> {
    return this.#gate.run(callerOf(actor), () => this.#append(actor, id, input))
  }

  async #append(actor: Actor, id: string, input: AppendInput): Promise<UploadState> {
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const receiving = { source: input.source, ended }
    try {
      await this.#takeOver(await this.#find(actor, id))
      this.#receiving.set(id, receiving)
      const row = await this.#find(actor, id)
      if (input.offset !== Number(row.received))
        throw new UploadOffsetError(input.offset, Number(row.received))
      const last = await this.#receive(row, input.source, input.checksum)
      if (last.received === last.bytes) await input.confirm?.()
      return stateOf(await this.#finished(last))
    } finally {
      input.source.destroy()
      if (this.#receiving.get(id) === receiving) this.#receiving.delete(id)
      end()
    }
  }

  async #receive(row: Row, source: Readable, checksum: Checksum | null): Promise<Row> {
    const reader = new PartReader(source)
    const last =
      checksum === null
        ? await this.#appendParts(row, reader)
        : await this.#appendChecked(row, reader, checksum)
    if (await reader.hasMore()) {
      await this.#remove(row.id)
      throw new AssetInputError(
        'More bytes came than the upload was announced with; begin it again.',
        { bytes: Number(row.bytes) },
      )
    }
    if (reader.broken !== null) throw reader.broken
    return last
  }

  /** Ends an older request of this upload here, once it has stored its bytes. */
  async #takeOver(row: Row): Promise<void> {
    const older = this.#receiving.get(row.id)
    if (older === undefined) return
    older.source.destroy(new UploadOffsetError(Number(row.received), Number(row.received)))
    if ((await withTimeout(older.ended, handoverMs)) === timedOut) {
      throw new MediaBusyError(
        'An older request of this upload is still storing its bytes; ask again.',
        1,
      )
    }
  }

  async terminate(actor: Actor, id: string): Promise<void> {
    const row = await this.#find(actor, id)
    await this.#takeOver(row)
    await this.#remove(row.id)
  }

  /**
   * Removes uploads whose time is over, with their parts. Returns their number; `dryRun` only
   * counts.
   */
  async removeExpired(nowMs: number, dryRun: boolean): Promise<number> {
    let count = 0
    for (;;) {
      const rows = await this.#parts.database.run(expired, [
        iso(nowMs),
        dryRun ? null : expiredBatch,
      ])
      if (!dryRun) for (const row of rows) await this.#remove(row.id, iso(nowMs))
      count += rows.length
      if (dryRun || rows.length < expiredBatch) return count
    }
  }

  async #find(actor: Actor, id: string): Promise<Row> {
    const [row] = isId(id)
      ? await this.#parts.database.run(findOwn, [
          id,
          callerOf(actor),
          iso(this.#parts.clock.nowMs()),
        ])
      : []
    if (row === undefined) throw new UploadNotFoundError(id)
    return row
  }

  async #appendParts(row: Row, reader: PartReader): Promise<Row> {
    let current = row
    for (;;) {
      const missing = Number(current.bytes) - Number(current.received)
      if (missing === 0 || !(await reader.hasMore())) return current
      const bytesMax = Math.min(missing, this.#parts.limits.uploadPartBytes)
      const part = await this.#parts.store.put(Readable.from(reader.take(bytesMax)), { bytesMax })
      current = await this.#record(current, part)
    }
  }

  async #appendChecked(row: Row, reader: PartReader, checksum: Checksum): Promise<Row> {
    const missing = Number(row.bytes) - Number(row.received)
    if (missing === 0 || !(await reader.hasMore())) return row
    const hash = createHash(checksum.algorithm)
    const hashed = async function* (): AsyncGenerator<Buffer> {
      for await (const chunk of reader.take(missing)) {
        hash.update(chunk)
        yield chunk
      }
    }
    const part = await this.#parts.store.put(Readable.from(hashed()), { bytesMax: missing })
    if (reader.broken === null && hash.digest().equals(checksum.digest))
      return this.#record(row, part)
    await discard(this.#parts, part.id)
    throw reader.broken ?? new UploadChecksumError()
  }

  async #record(row: Row, part: BlobInfo): Promise<Row> {
    const { database, store, clock, limits } = this.#parts
    const now = clock.nowMs()
    try {
      return await database.transaction(async (tx) => {
        await lockBlob(tx, store, part.id)
        const [next] = await tx.run(advance, [
          row.id,
          row.received,
          part.bytes,
          iso(now + limits.uploadIdleMs),
        ])
        if (next === undefined)
          throw new UploadOffsetError(Number(row.received), await receivedNow(tx, row))
        await tx.run(insertPart, [row.id, row.received, part.bytes, part.id, iso(now)])
        return next
      })
    } catch (error) {
      await discard(this.#parts, part.id)
      throw error
    }
  }

  /**
   * Makes the asset of an upload whose bytes are all here. Two nodes may both try: one asset comes
   * of it.
   */
  async #finished(row: Row): Promise<Row> {
    if (row.asset_id !== null || row.received !== row.bytes) return row
    let finishing = this.#finishing.get(row.id)
    if (finishing === undefined) {
      finishing = this.#finish(row).finally(() => this.#finishing.delete(row.id))
      this.#finishing.set(row.id, finishing)
    }
    return finishing
  }

  async #finish(row: Row): Promise<Row> {
    const { database, store, clock } = this.#parts
    const pieces = await database.run(partsOf, [row.id])
    let received: Received
    try {
      received = await this.#assemble(row, pieces)
    } catch (error) {
      if (error instanceof UploadRefusedError) await this.#remove(row.id)
      throw error
    }
    const { finished, removed } = await database.transaction(async (tx) => {
      const [locked] = await tx.run(lockUpload, [row.id])
      if (locked === undefined) throw new UploadNotFoundError(row.id)
      if (locked.asset_id !== null) return { finished: locked, removed: [] }
      const asset = await createAsset(
        { db: tx, store, clock },
        JSON.parse(row.actor) as Actor,
        received,
        JSON.parse(row.alt) as Alt,
      )
      const [next] = await tx.run(complete, [row.id, asset.id])
      return { finished: next!, removed: await tx.run(removeParts, [row.id]) }
    })
    await this.#discardParts(removed)
    return finished
  }

  async #assemble({ name, actor }: Row, pieces: readonly Part[]): Promise<Received> {
    const { store } = this.#parts
    const caller = callerOf(JSON.parse(actor) as Actor)
    const [first] = pieces
    if (first !== undefined && pieces.length === 1) {
      const blob = { id: first.blob, bytes: Number(first.bytes) }
      return receiveBlob(this.#parts, blob, { name, caller })
    }
    const source = Readable.from(
      (async function* () {
        for (const piece of pieces) yield* await store.get(piece.blob)
      })(),
      { highWaterMark: 2 },
    )
    return receive(this.#parts, { name, source, caller })
  }

  /** `expiredBy`: only if it is expired then. */
  async #remove(id: string, expiredBy: string | null = null): Promise<void> {
    const removed = await this.#parts.database.transaction(async (tx) => {
      if (expiredBy === null) await tx.run(lockUpload, [id])
      else if ((await tx.run(lockExpired, [id, expiredBy])).length === 0) return []
      const pieces = await tx.run(removeParts, [id])
      await tx.run(remove, [id])
      return pieces
    })
    await this.#discardParts(removed)
  }

  /** Parts go at once, unless the same bytes came again since they were written. */
  async #discardParts(pieces: readonly Part[]): Promise<void> {
    for (const piece of pieces) await discard(this.#parts, piece.blob, Date.parse(piece.written_at))
  }
}

async function receivedNow(db: Queryable, row: Row): Promise<number> {
  const [now] = await db.run(lockUpload, [row.id])
  if (now === undefined) throw new UploadNotFoundError(row.id)
  return Number(now.received)
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}

function stateOf(row: Row): UploadState {
  return {
    id: row.id,
    bytes: Number(row.bytes),
    received: Number(row.received),
    expiresAt: row.expires_at,
    assetId: row.asset_id,
  }
}
