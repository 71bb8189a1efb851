import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import { FileStoreUnavailableError } from '#file-store/errors.ts'
import { systemClock } from '#lib/clock.ts'
import { FilesMismatchError } from '#node/errors.ts'
import { checkFileStore, claimFileStore } from '#node/file-store-check.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing

type Place = AsyncDisposable & {
  readonly path: string
  readonly store: (mayCreateFolder?: boolean) => DiskFileStore
}

async function place(): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-place-'))
  const path = join(folder, 'files')
  return {
    path,
    store: (mayCreateFolder = false) =>
      new DiskFileStore({ folder: path, mayCreateFolder, clock: systemClock }),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
}

test(
  'a node whose mount is missing does not start on the empty folder, whichever node comes first',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using mounted = await place()
    await using empty = await place()
    const { database } = db
    await assert.rejects(
      claimFileStore({ database, fileStore: empty.store() }),
      FileStoreUnavailableError,
      'a folder that a setting names is not made',
    )
    await mkdir(mounted.path)
    await claimFileStore({ database, fileStore: mounted.store() })
    await mkdir(empty.path)
    for (const check of [checkFileStore, claimFileStore]) {
      await assert.rejects(
        check({ database, fileStore: empty.store() }),
        (error) => error instanceof FilesMismatchError && error.message.includes('is empty'),
      )
      await assert.rejects(
        check({ database, fileStore: (await place()).store(true) }),
        FilesMismatchError,
        'also below the data folder',
      )
    }
    assert.deepEqual(await readdir(empty.path), [])
    await checkFileStore({ database, fileStore: mounted.store() })
    await claimFileStore({ database, fileStore: mounted.store() })
  },
)

test(
  "a new database does not take another one's files, and restored files can be adopted",
  { skip },
  async () => {
    await using one = await testDatabase()
    await using other = await testDatabase()
    await using files = await place()
    await claimFileStore({ database: one.database, fileStore: files.store(true) })
    const refused = await claimFileStore({
      database: other.database,
      fileStore: files.store(true),
    }).catch((error: unknown) => error)
    assert.ok(refused instanceof FilesMismatchError)
    await using restored = await place()
    await mkdir(restored.path)
    const missing = await checkFileStore({
      database: one.database,
      fileStore: restored.store(),
    }).catch((error: unknown) => error)
    assert.ok(missing instanceof FilesMismatchError)
    const { expected } = missing.facts
    assert.ok(typeof expected === 'string' && missing.message.includes(expected))
    await writeFile(join(restored.path, 'stoa-files'), `${expected}\n`)
    await claimFileStore({ database: one.database, fileStore: restored.store() })
  },
)

test('nodes that start at the same moment on one folder share it', { skip }, async () => {
  await using db = await testDatabase()
  await using files = await place()
  const { database } = db
  await Promise.all(
    [1, 2, 3, 4].map(() => claimFileStore({ database, fileStore: files.store(true) })),
  )
  await checkFileStore({ database, fileStore: files.store() })
})
