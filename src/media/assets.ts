import { sql } from '#database/database.ts'
import type { Database, Queryable, Statement } from '#database/database.ts'
import type { FileStore } from '#file-store/file-store.ts'
import type { Actor } from '#lib/actor.ts'
import type { Clock } from '#lib/clock.ts'
import { isId, newId } from '#lib/id.ts'
import { checkAlt, checkFocalPoint } from '#media/alt.ts'
import { cleanName, nameForKind } from '#media/asset-name.ts'
import { lockBlob } from '#media/blobs.ts'
import {
  AssetChangedError,
  AssetInputError,
  AssetInUseError,
  AssetNotFoundError,
  UploadRefusedError,
} from '#media/errors.ts'
import { kindOf } from '#media/kinds.ts'
import type { Alt, Asset, AssetChange, Received, StoredAsset } from '#media/media.ts'

const pageMax = 200
const searchLengthMax = 200
/** An error names this many of the entries that refer to an asset; it counts them all. */
const referrersNamedMax = 20

type Row = {
  readonly id: string
  readonly name: string
  readonly content_type: string
  readonly bytes: string
  readonly blob: string
  readonly width: number | null
  readonly height: number | null
  readonly frames: number | null
  readonly alt: string
  readonly focal_x: number | null
  readonly focal_y: number | null
  readonly created_at: string
  readonly created_by: string
  readonly revision: number
}

const columns =
  'id, name, content_type, bytes, blob, width, height, frames, alt, focal_x, focal_y, ' +
  'created_at, created_by, revision'
const insert = sql<Row>(
  `insert into stoa.asset (id, name, content_type, bytes, blob, width, height, frames, alt,
     search, created_at, created_by)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) returning ${columns}`,
)
const insertAsItWas = sql<object>(
  `insert into stoa.asset (id, name, content_type, bytes, blob, width, height, frames, alt,
     focal_x, focal_y, search, created_at, created_by, revision)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
   on conflict (id) do nothing`,
)
const byId = sql<Row>(`select ${columns} from stoa.asset where id = $1`)
/**
 * Saves of entries that refer to the asset lock it `for key share`: a change passes by them, a
 * deletion waits for them.
 */
const byIdToChange = sql<Row>(`select ${columns} from stoa.asset where id = $1 for no key update`)
const byIdToDelete = sql<Row>(`select ${columns} from stoa.asset where id = $1 for update`)
const inOrder = sql<Row>(
  `select ${columns} from stoa.asset where $1::uuid is null or id > $1 order by id limit $2`,
)
const newest = sql<Row>(`select ${columns} from stoa.asset where id < $1 order by id desc limit $2`)
const found = sql<Row>(
  `select ${columns} from stoa.asset where id < $1 and search like $3 order by id desc limit $2`,
)
const change = sql<Row>(
  `update stoa.asset set name = $2, alt = $3, search = $4, focal_x = $5, focal_y = $6,
     revision = revision + 1
   where id = $1 returning ${columns}`,
)
const remove = sql(`delete from stoa.asset where id = $1`)
/** Crops around the old focal point, which no URL leads to any more. */
const removeCrops = sql(`delete from stoa.rendition where asset_id = $1 and key like '%-crop%'`)
const referrers = sql<{ type: string; entry: string; locale: string; entries: string }>(
  `select distinct e.type, r.entry_id as entry, r.locale,
     (select count(distinct entry_id) from stoa.reference
      where target_id = $1 and target_kind = 'asset') as entries
   from stoa.reference r join stoa.entry e on e.id = r.entry_id
   where r.target_id = $1 and r.target_kind = 'asset'
   order by e.type, r.entry_id, r.locale limit ${referrersNamedMax}`,
)

export async function createAsset(
  parts: { db: Queryable; store: FileStore; clock: Clock },
  actor: Actor,
  received: Received,
  alt: Alt,
): Promise<Asset> {
  const { name, contentType, bytes, blob, width, height, frames } = received
  const texts = checkAlt(alt)
  const now = parts.clock.nowMs()
  return parts.db.transaction(async (tx) => {
    await lockBlob(tx, parts.store, blob)
    const [row] = await tx.run(insert, [
      newId(now),
      name,
      contentType,
      bytes,
      blob,
      width,
      height,
      frames,
      JSON.stringify(texts),
      searchText(name, texts),
      new Date(now).toISOString(),
      JSON.stringify(actor),
    ])
    return publicAsset(fromRow(row!))
  })
}

/**
 * See `Media.restore`. Kind and size come from the bytes, the rest from the asset, held to the same
 * rules.
 */
export async function restoreAsset(
  parts: { db: Queryable; store: FileStore },
  asset: Asset,
  received: Received,
): Promise<void> {
  if (!isId(asset.id))
    throw new AssetInputError('The id of an asset is a UUID in small letters.', { field: 'id' })
  if (received.blob !== asset.blob)
    throw new AssetInputError('The bytes are not those of the asset: their SHA-256 differs.', {
      field: 'blob',
      expected: asset.blob,
      found: received.blob,
    })
  const { contentType, bytes, blob, width, height, frames } = received
  const name = renamed(asset.name, { ...asset, contentType })
  const texts = checkAlt(asset.alt)
  const focal = checkFocalPoint(asset.focalPoint)
  await parts.db.transaction(async (tx) => {
    await lockBlob(tx, parts.store, blob)
    await tx.run(insertAsItWas, [
      asset.id,
      name,
      contentType,
      bytes,
      blob,
      width,
      height,
      frames,
      JSON.stringify(texts),
      focal?.x ?? null,
      focal?.y ?? null,
      searchText(name, texts),
      asset.createdAt,
      JSON.stringify(asset.createdBy),
      asset.revision,
    ])
  })
}

export async function findAsset(db: Pick<Queryable, 'run'>, id: string): Promise<StoredAsset> {
  const [row] = isId(id) ? await db.run(byId, [id]) : []
  if (row === undefined) throw new AssetNotFoundError(id)
  return fromRow(row)
}

export async function listAssets(
  db: Database,
  page: { readonly limit: number; readonly after: string | null; readonly search: string | null },
): Promise<{ data: Asset[]; after: string | null }> {
  if (page.after !== null && !isId(page.after))
    throw new AssetInputError(
      '`after` is not a cursor of this list; take it from the page before.',
      { field: 'after' },
    )
  const limit = Math.min(pageMax, Math.max(1, page.limit))
  const after = page.after ?? 'ffffffff-ffff-ffff-ffff-ffffffffffff'
  const words = (page.search ?? '')
    .normalize('NFC')
    .replaceAll('\0', '')
    .toWellFormed()
    .trim()
    .toLowerCase()
    .slice(0, searchLengthMax)
  const rows =
    words === ''
      ? await db.run(newest, [after, limit + 1])
      : await db.run(found, [after, limit + 1, `%${words.replace(/[\\%_]/g, '\\$&')}%`])
  const data = rows.slice(0, limit).map((row) => publicAsset(fromRow(row)))
  return { data, after: rows.length > limit ? data.at(-1)!.id : null }
}

export async function updateAsset(
  db: Queryable,
  id: string,
  input: AssetChange,
  expected: readonly number[] | null,
): Promise<Asset> {
  const alt = input.alt === undefined ? undefined : checkAlt(input.alt)
  const focalPoint = input.focalPoint === undefined ? undefined : checkFocalPoint(input.focalPoint)
  return db.transaction(async (tx) => {
    const current = await lockAsset(tx, byIdToChange, id, expected)
    const name = input.name === undefined ? current.name : renamed(input.name, current)
    const next = {
      name,
      alt: alt ?? current.alt,
      focalPoint: focalPoint === undefined ? current.focalPoint : focalPoint,
    }
    const moved =
      next.focalPoint?.x !== current.focalPoint?.x || next.focalPoint?.y !== current.focalPoint?.y
    if (
      !moved &&
      next.name === current.name &&
      JSON.stringify(next.alt) === JSON.stringify(current.alt)
    )
      return publicAsset(current)
    if (moved) await tx.run(removeCrops, [id])
    const [row] = await tx.run(change, [
      id,
      next.name,
      JSON.stringify(next.alt),
      searchText(next.name, next.alt),
      next.focalPoint?.x ?? null,
      next.focalPoint?.y ?? null,
    ])
    return publicAsset(fromRow(row!))
  })
}

export async function deleteAsset(
  db: Queryable,
  id: string,
  expected: readonly number[] | null,
): Promise<void> {
  await db.transaction(async (tx) => {
    await lockAsset(tx, byIdToDelete, id, expected)
    const rows = await tx.run(referrers, [id])
    if (rows.length > 0) {
      throw new AssetInUseError(
        id,
        Number(rows[0]!.entries),
        rows.map(({ type, entry, locale }) => ({ type, entry, locale })),
      )
    }
    await tx.run(remove, [id])
  })
}

async function lockAsset(
  tx: Queryable,
  statement: Statement<Row>,
  id: string,
  expected: readonly number[] | null,
): Promise<StoredAsset> {
  const [row] = isId(id) ? await tx.run(statement, [id]) : []
  if (row === undefined) throw new AssetNotFoundError(id)
  if (expected !== null && !expected.includes(row.revision))
    throw new AssetChangedError(id, expected, row.revision)
  return fromRow(row)
}

/** A new name has to fit the bytes as the first one did. */
function renamed(name: string, asset: Asset): string {
  if (typeof name !== 'string' || (cleanName(name) === 'file' && name !== 'file'))
    throw new AssetInputError('An asset needs a name.', { field: 'name' })
  try {
    return nameForKind(name, kindOf(asset.contentType))
  } catch (error) {
    if (error instanceof UploadRefusedError)
      throw new AssetInputError(error.message, { field: 'name' }, { cause: error })
    throw error
  }
}

function searchText(name: string, alt: Alt): string {
  return [name, ...Object.values(alt)].join('\n').normalize('NFC').toLowerCase()
}

function fromRow(row: Row): StoredAsset {
  return {
    id: row.id,
    name: row.name,
    contentType: row.content_type,
    bytes: Number(row.bytes),
    blob: row.blob,
    width: row.width,
    height: row.height,
    alt: JSON.parse(row.alt) as Alt,
    focalPoint:
      row.focal_x === null || row.focal_y === null ? null : { x: row.focal_x, y: row.focal_y },
    createdAt: row.created_at,
    createdBy: JSON.parse(row.created_by) as Actor,
    revision: row.revision,
    frames: row.frames,
  }
}

/** The asset without what only renditions need. */
export function publicAsset(stored: StoredAsset): Asset {
  const { frames, ...asset } = stored
  void frames
  return asset
}

/** See `Media.page`. */
export async function pageOfAssets(
  db: Queryable,
  page: { readonly after: string | null; readonly limit: number },
): Promise<Asset[]> {
  return (await db.run(inOrder, [page.after, page.limit])).map((row) => publicAsset(fromRow(row)))
}
