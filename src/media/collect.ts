import { sql } from '#database/database.ts'
import { deleteIfOrphan, orphansAmong } from '#media/blobs.ts'
import { discard } from '#media/receive.ts'
import type { ReceiveParts } from '#media/receive.ts'
import type { BlobUploads } from '#media/uploads.ts'

/** Blobs looked up in one statement. */
const batchMax = 500

const removeReleases = sql(`delete from stoa.blob_release where released_at < $1`)

const renditionBytes = sql<{ bytes: string }>(
  `select coalesce(sum(bytes), 0)::text as bytes from stoa.rendition`,
)
const evictRenditions = sql<{ blob: string }>(
  `delete from stoa.rendition r using (
     select asset_id, key, sum(bytes) over (order by used_at desc, asset_id, key) as total
     from stoa.rendition
   ) s
   where r.asset_id = s.asset_id and r.key = s.key and s.total > $1
   returning r.blob`,
)

/**
 * See `Media.collect`. May run on any node at any time, on several at once, and end anywhere: each
 * deletion is safe by itself (media/blobs.ts). It goes through the store once, in batches, whatever
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
  // A put that still runs is no orphan, however short the grace period is: it is idle for this long
  // only when its process is dead.
  const idleSinceMs = now - Math.max(options.olderThanMs, parts.limits.uploadIdleMs)
  const abandoned =
    (await uploads.removeExpired(now, dryRun)) +
    (await store.prune({ writtenBeforeMs: idleSinceMs, dryRun }))
  if (!dryRun) await trimRenditions(parts)
  let blobs = 0
  let bytes = 0
  const collectBatch = async (batch: ReadonlyMap<string, number>): Promise<void> => {
    for (const blob of await orphansAmong(database, [...batch.keys()], writtenBeforeMs)) {
      if (!dryRun && !(await deleteIfOrphan(database, store, blob, writtenBeforeMs))) continue
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
  if (!dryRun) await database.run(removeReleases, [new Date(writtenBeforeMs).toISOString()])
  logger.info({ blobs, bytes, uploads: abandoned, dryRun }, 'orphans collected')
  return { blobs, bytes, uploads: abandoned }
}

/** The least recently used renditions go when all of them together take too much room. */
async function trimRenditions(parts: ReceiveParts): Promise<void> {
  const { database, limits } = parts
  const [sum] = await database.run(renditionBytes)
  if (Number(sum!.bytes) <= limits.renditionBytesMax) return
  for (const { blob } of await database.run(evictRenditions, [limits.renditionBytesMax]))
    await discard(parts, blob)
}
