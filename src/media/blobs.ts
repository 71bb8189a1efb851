import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { BlobNotFoundError } from '#file-store/errors.ts'
import type { FileStore } from '#file-store/file-store.ts'
import { UploadLostError } from '#media/errors.ts'

/**
 * The rules that keep blobs and the rows that name them together, although no transaction spans
 * both:
 *
 * 1. A blob is put first, without any lock, and its row comes after. So a rollback or a crash
 *    leaves at most a blob that nothing names, which the collection finds.
 * 2. A transaction that inserts a row that names a blob holds that blob's lock *shared* until it
 *    commits, and has seen under it that the blob is there (`lockBlob`).
 * 3. A deletion holds the lock *alone*, sees under it that no committed row names the blob, and
 *    deletes it only if it was not written again since (`deleteIfOrphan`). An insert is either
 *    before, and then seen, or after, and then sees that the blob is gone.
 *
 * The lock is PostgreSQL's advisory lock of the transaction, so it holds across nodes and ends with
 * a dead one.
 */
const lockSeed = 20_261_120

/**
 * A transaction that names a blob holds this lock too, shared. The beginning and the end of a move
 * of the files hold it alone, so each reference is made by one placement or the other.
 */
const placementLock = 20_261_201

const shareLocks = sql(
  `select pg_advisory_xact_lock_shared(${placementLock})::text as placed,
     pg_advisory_xact_lock_shared(hashtextextended($1, ${lockSeed}))::text as locked`,
)
const lockPlacement = sql(`select pg_advisory_xact_lock(${placementLock})::text as locked`)
/** A statement after the lock: what it sees was committed when the lock was there. */
const readRevision = sql<{ revision: number }>(`select revision from stoa.file_store`)
const tryLock = sql<{ locked: boolean }>(
  `select pg_try_advisory_xact_lock(hashtextextended($1, ${lockSeed})) as locked`,
)
const isUsed = `exists (select from stoa.asset where blob = b.id)
  or exists (select from stoa.rendition where blob = b.id)
  or exists (select from stoa.upload_part where blob = b.id)`
const usedBlobs = sql<{ id: string }>(
  `select b.id from unnest($1::text[]) b(id)
   where ${isUsed} or exists (
     select from stoa.blob_release where blob = b.id and released_at >= $2::timestamptz)`,
)
const removeRelease = sql(`delete from stoa.blob_release where blob = $1`)

/** Rule 2. `tx` must be a transaction. Throws `UploadLostError` when the blob is gone. */
export async function lockBlob(tx: Queryable, store: FileStore, blob: string): Promise<void> {
  await tx.run(shareLocks, [blob])
  const [placement] = await tx.run(readRevision)
  if (placement !== undefined) await store.reach?.(placement.revision)
  try {
    await store.info(blob)
  } catch (error) {
    throw error instanceof BlobNotFoundError ? new UploadLostError({ cause: error }) : error
  }
}

/**
 * Waits until no transaction is about to name a blob, and holds up those that come: `tx` must be
 * short.
 */
export async function holdPlacement(tx: Queryable): Promise<void> {
  await tx.run(lockPlacement)
}

/**
 * Rule 3. True when the blob was deleted; false when a row names it, its time has not come, or a
 * transaction is about to name it.
 */
export async function deleteIfOrphan(
  database: Database,
  store: FileStore,
  blob: string,
  writtenBeforeMs: number,
): Promise<boolean> {
  return database.transaction(async (tx) => {
    const [lock] = await tx.run(tryLock, [blob])
    if (lock?.locked !== true || (await orphansAmong(tx, [blob], writtenBeforeMs)).length === 0)
      return false
    const deleted = await store.delete(blob, { writtenBeforeMs })
    if (deleted) await tx.run(removeRelease, [blob])
    return deleted
  })
}

/**
 * The blobs that no row names, and none has named since `releasedBeforeMs`. Only a hint unless the
 * lock is held.
 */
export async function orphansAmong(
  db: Queryable,
  blobs: readonly string[],
  releasedBeforeMs: number,
): Promise<string[]> {
  const keep = new Set(
    (await db.run(usedBlobs, [blobs, new Date(releasedBeforeMs).toISOString()])).map(
      (row) => row.id,
    ),
  )
  return blobs.filter((blob) => !keep.has(blob))
}
