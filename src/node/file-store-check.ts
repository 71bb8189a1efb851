import { randomBytes } from 'node:crypto'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import type { FileStore, FileStoreIdentity } from '#file-store/file-store.ts'
import { FilesMismatchError } from '#node/errors.ts'
import { readFileRow } from '#node/file-placement.ts'
import type { FileRow } from '#node/file-placement.ts'

const identityBytes = 16

/** Sets this lock apart from other advisory locks of the database. */
const lockSeed = 20_261_130

const lockClaims = sql(`select pg_advisory_xact_lock(${lockSeed})::text as locked`)
const insertIdentity = sql<{ identity: string }>(
  `insert into stoa.file_store (identity) values ($1) on conflict do nothing returning identity`,
)

type Stores = { readonly database: Database; readonly fileStore: FileStore }

/**
 * Throws `FilesMismatchError` unless the file store is the one that the database remembers, and
 * changes nothing. A node that sees an empty folder, because its mount is missing, would store
 * uploads where no other node finds them; one on the files of another database would in time delete
 * them as orphans.
 */
export async function checkFileStore({ database, fileStore }: Stores): Promise<void> {
  const { identity } = fileStore
  const row = await readFileRow(database)
  const found = await identity.read()
  const isUndecided = row === null && found !== null
  // Another first node may be between the store and its commit: it holds the lock until then.
  if (isUndecided) await database.run(lockClaims)
  compareIdentities(identity, isUndecided ? await readFileRow(database) : row, found)
}

/**
 * Gives the file store of a new site its identity, once. The schema must be there. The row is
 * committed after the store has it, so a process that dies between leaves a store that is claimed
 * and not remembered, and the error says how to free it.
 */
export async function claimFileStore({ database, fileStore }: Stores): Promise<void> {
  const { identity } = fileStore
  await checkFileStore({ database, fileStore })
  if ((await readFileRow(database)) !== null) return
  await database.transaction(async (tx) => {
    await tx.run(lockClaims)
    const [mine] = await tx.run(insertIdentity, [randomBytes(identityBytes).toString('hex')])
    const found = mine === undefined ? await identity.read() : await identity.claim(mine.identity)
    compareIdentities(identity, await readFileRow(tx), found)
  })
}

/** Both ends of a move are the site's, and so is the place before the last one. */
function compareIdentities(
  { place, where }: FileStoreIdentity,
  row: FileRow | null,
  found: string | null,
): void {
  const expected = row?.identity ?? null
  const own: (string | null)[] = [expected]
  if (typeof row?.target === 'string') own.push(row.target)
  if (typeof row?.url === 'string' && row.previous !== null) own.push(row.previous)
  if (!own.includes(found)) throw new FilesMismatchError({ place, where }, { expected, found })
}
