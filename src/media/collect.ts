import { sql } from '#database/database.ts'
import { discard, orphansAmong } from '#media/blobs.ts'
import type { ReceiveParts } from '#media/receive.ts'
import type { BlobUploads } from '#media/uploads.ts'

/** Blobs asked about in one statement. */
const batchMax = 500

const forgetReleases = sql(`delete from stoa.blob_release where released_at < $1`)

/**
 * See `Media.collect`. May run on any node at any time, on several at once, and end anywhere: each
 * deletion is safe by itself (media/blobs.ts). Goes through the store once, in batches, whatever
 * its size.
 */
export async function collect(
  parts: ReceiveParts & { readonly uploads: BlobUploads },
  options: { readonly olderThanMs: number; readonly dryRun: boolean },
): Promise<{ readonly blobs: number; readonly bytes: number; readonly uploads: number }> {
  const { database, store, clock, uploads, logger } = parts
  const { dryRun } = options
  const now = clock.nowMs()
  const writtenBeforeMs = now - options.olderThanMs
  // Whatever the grace period, a put that still runs is nobody's orphan: it is idle for this long
  // only when it is dead.
  const idleSinceMs = now - Math.max(options.olderThanMs, parts.limits.uploadIdleMs)
  const abandoned =
    (await uploads.removeExpired(now, dryRun)) +
    (await store.sweep({ writtenBeforeMs: idleSinceMs, dryRun }))
  let blobs = 0
  let bytes = 0
  const collectBatch = async (batch: ReadonlyMap<string, number>): Promise<void> => {
    for (const blob of await orphansAmong(database, [...batch.keys()], writtenBeforeMs)) {
      if (!dryRun && !(await discard(database, store, blob, writtenBeforeMs))) continue
      blobs += 1
      bytes += batch.get(blob) ?? 0
    }
  }
  let batch = new Map<string, number>()
  for await (const blob of store.list()) {
    if (blob.writtenAtMs >= writtenBeforeMs) continue
    batch.set(blob.id, blob.bytes)
    if (batch.size < batchMax) continue
    await collectBatch(batch)
    batch = new Map()
  }
  if (batch.size > 0) await collectBatch(batch)
  if (!dryRun) await database.run(forgetReleases, [new Date(writtenBeforeMs).toISOString()])
  logger.info({ blobs, bytes, uploads: abandoned, dryRun }, 'orphans collected')
  return { blobs, bytes, uploads: abandoned }
}
