import { createHash, createHmac } from 'node:crypto'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { FileStoreUnavailableError } from '#file-store/errors.ts'
import type { FileStore } from '#file-store/file-store.ts'
import type { Placement } from '#file-store/placed-file-store.ts'
import { openText, sealText } from '#lib/sealed-text.ts'
import { holdPlacement } from '#media/blobs.ts'
import { FileMoveError, FilesMismatchError } from '#node/errors.ts'

export type FileRow = {
  readonly identity: string
  readonly revision: number
  readonly url: string | null
  readonly target: string | null
  readonly target_url: string | null
  readonly previous: string | null
}

const hasTable = sql<{ there: boolean }>(
  `select to_regclass('stoa.file_store') is not null as there`,
)
/** As JSON: the table of an older version has fewer columns. */
const readRow = sql<{ row: string }>(`select to_json(f) as row from stoa.file_store f`)
const begin = sql<object>(
  `update stoa.file_store
   set target = $2, url = $3, target_url = $4, revision = revision + 1
   where identity = $1 and target is null`,
)
const end = sql<{ revision: number }>(
  `update stoa.file_store
   set previous = identity, identity = target, url = target_url,
     target = null, target_url = null, revision = revision + 1
   where target = $1 returning revision`,
)

/** The row that says where the files are; null: none yet, or no schema. */
export async function readFileRow(db: Queryable): Promise<FileRow | null> {
  const [schema] = await db.run(hasTable)
  if (schema?.there !== true) return null
  const [found] = await db.run(readRow)
  if (found === undefined) return null
  const none = { revision: 1, url: null, target: null, target_url: null, previous: null }
  return { ...none, ...(JSON.parse(found.row) as { readonly identity: string }) }
}

export type PlacementParts = {
  readonly database: Database
  readonly configured: FileStore
  /** The cluster's secret, with which the URLs are sealed: they may have passwords. */
  readonly secret: () => Promise<string | null>
  readonly open: (url: string) => Promise<FileStore>
}

/** Reads where the files are, for `PlacedFileStore`. */
export async function readPlacement(parts: PlacementParts): Promise<Placement | null> {
  const row = await readFileRow(parts.database)
  if (row === null) return null
  const configured = await configuredIdentity(parts, row)
  const place = (identity: string, url: string | null) => ({
    identity,
    open:
      identity === configured || url === null
        ? null
        : async () => parts.open(openUrl(await parts.secret(), url)),
  })
  return {
    revision: row.revision,
    home: place(row.identity, row.url),
    target: row.target === null ? null : place(row.target, row.target_url),
  }
}

/** While a place is away, the node uses the ones that the database knows by their URL. */
async function configuredIdentity({ configured }: PlacementParts, row: FileRow): Promise<string> {
  if (row.url === null) return row.identity
  try {
    return (await configured.identity.read()) ?? ''
  } catch (error) {
    if (error instanceof FileStoreUnavailableError) return ''
    throw error
  }
}

/** The URL of the place that a configuration names. */
export function configuredUrl(filesUrl: string | null, dataDir: string): string {
  return filesUrl ?? pathToFileURL(join(dataDir, 'files')).href
}

/**
 * Gives the target of a move its identity, which follows from that of the site, so that a move that
 * died in between is taken up. Errors: `FilesMismatchError` when it has the files of another site.
 */
export async function claimTarget(row: FileRow, to: FileStore): Promise<string> {
  const wanted = createHash('sha256')
    .update(`${row.identity} ${to.identity.place}`)
    .digest('hex')
    .slice(0, row.identity.length)
  const known = [row.target, row.previous, wanted]
  const found = await to.identity.claim(wanted)
  if (found === row.identity)
    throw new FileMoveError('The files are there already: STOA_FILES_URL and --to are one place.')
  if (!known.includes(found)) throw new FilesMismatchError(to.identity, { expected: null, found })
  return found
}

/** From now on new files go to the target, on all nodes. */
export async function beginMove(
  { database, secret }: { readonly database: Database; readonly secret: string | null },
  row: FileRow,
  target: { readonly identity: string; readonly url: string; readonly fromUrl: string },
): Promise<void> {
  const values = [
    row.identity,
    target.identity,
    sealUrl(secret, target.fromUrl),
    sealUrl(secret, target.url),
  ]
  await database.transaction(async (tx) => {
    await holdPlacement(tx)
    await tx.run(begin, values)
  })
}

/** From now on the target is where the files are. Returns the revision; null: it was so already. */
export async function endMove(database: Database, target: string): Promise<number | null> {
  return database.transaction(async (tx) => {
    await holdPlacement(tx)
    const [row] = await tx.run(end, [target])
    return row?.revision ?? null
  })
}

export function sealUrl(secret: string | null, url: string): string {
  return sealText(sealingKey(secret), url)
}

export function openUrl(secret: string | null, sealed: string): string {
  try {
    return openText(sealingKey(secret), sealed)
  } catch (error) {
    throw new FileStoreUnavailableError(
      'The place of the files was recorded under another secret of the cluster. Set ' +
        'STOA_FILES_URL to that place, or STOA_SECRET to that secret.',
      {},
      { cause: error },
    )
  }
}

function sealingKey(secret: string | null): Buffer {
  return createHmac('sha256', secret ?? '')
    .update('the URL of a file store')
    .digest()
}
