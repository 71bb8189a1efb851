import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { BlobId } from '#file-store/file-store.ts'

/** Blobs read in one statement. */
const pageMax = 500

/** A blob that rows name. */
export type NamedBlob = {
  readonly id: BlobId
  /** Null: only a release that is kept for the grace period names it. */
  readonly bytes: number | null
  /** Assets that have it; a rendition that is lost is made again. */
  readonly assets: readonly string[]
  readonly isRendition: boolean
}

/** Each table gives its smallest ids behind the last one, so the smallest of all are among them. */
const page = sql<{
  blob: string
  bytes: string | null
  assets: readonly string[]
  is_rendition: boolean
}>(`
  select n.blob, max(n.bytes)::text as bytes, bool_or(n.is_rendition) as is_rendition,
    array(select a.id::text from stoa.asset a where a.blob = n.blob order by a.id limit 3) as assets
  from (
    (select distinct on (blob) blob, bytes, false as is_rendition from stoa.asset
     where blob > $1 order by blob limit $2)
    union all
    (select distinct on (blob) blob, bytes, true from stoa.rendition
     where blob > $1 order by blob limit $2)
    union all
    (select distinct on (blob) blob, bytes, false from stoa.upload_part
     where blob > $1 order by blob limit $2)
    union all
    (select blob, null, false from stoa.blob_release where blob > $1 order by blob limit $2)
  ) n
  group by n.blob order by n.blob limit $2`)

const total = sql<{ blobs: string; bytes: string }>(`
  select count(*)::text as blobs, coalesce(sum(bytes), 0)::text as bytes from (
    select blob, max(bytes) as bytes from (
      select blob, bytes from stoa.asset
      union all select blob, bytes from stoa.rendition
      union all select blob, bytes from stoa.upload_part
      union all select blob, 0 from stoa.blob_release
    ) n group by blob
  ) b`)

/** Every blob that a row names, in the order of the ids. */
export async function* namedBlobs(db: Queryable): AsyncGenerator<NamedBlob> {
  let after = ''
  for (;;) {
    const rows = await db.run(page, [after, pageMax])
    for (const { blob, bytes, assets, is_rendition: isRendition } of rows)
      yield { id: blob, bytes: bytes === null ? null : Number(bytes), assets, isRendition }
    if (rows.length < pageMax) return
    after = rows.at(-1)!.blob
  }
}

/** The number of these blobs, and their bytes. */
export async function countNamedBlobs(
  db: Queryable,
): Promise<{ readonly blobs: number; readonly bytes: number }> {
  const [row] = await db.run(total)
  return { blobs: Number(row!.blobs), bytes: Number(row!.bytes) }
}
