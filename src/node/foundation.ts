import { randomBytes } from 'node:crypto'
import { resolve } from 'node:path'
import type { Config } from '#config/config.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import {
  hasDatabase,
  startEmbeddedPostgres,
  urlOfRunning,
} from '#embedded-postgres/embedded-postgres.ts'
import { DataFolderInUseError } from '#embedded-postgres/errors.ts'
import type { FileStore } from '#file-store/file-store.ts'
import { PlacedFileStore } from '#file-store/placed-file-store.ts'
import type { Logger } from '#lib/logger.ts'
import { openDataFolder } from '#node/data-folder.ts'
import { DatabaseClock } from '#node/database-clock.ts'
import { openDatabase, openFileStore } from '#node/drivers.ts'
import { NoDatabaseError } from '#node/errors.ts'
import { readPlacement } from '#node/file-placement.ts'

const secretBytes = 32
const hasSecret = sql<{ there: boolean }>(`select to_regclass('stoa.secret') is not null as there`)
const makeSecret = sql(`insert into stoa.secret (value) values ($1) on conflict do nothing`)
const readSecret = sql<{ value: string }>(`select value from stoa.secret`)

/** The ground of a node and of a command. Opening it changes nothing in the database. */
export type Foundation = {
  readonly config: Config
  readonly logger: Logger
  readonly dataDir: string
  /** The URL of the primary, be it embedded or not. */
  readonly url: string
  readonly database: Database
  readonly fileStore: PlacedFileStore
  /** Opens another place of files, as a setting would name it. */
  readonly openFiles: (url: string) => Promise<FileStore>
  /** The database's, for times that decide. */
  readonly clock: DatabaseClock
}

export type FoundationOptions = {
  /**
   * Use the embedded database of a node that runs on the data folder. A node itself must not, since
   * that database ends with its owner.
   */
  readonly besideNode: boolean
  /** Make the embedded database beside a node where there is none. A node always does. */
  readonly createDatabase?: boolean
}

/** Errors: `DataFolderError`, `NoDatabaseError`, and those of the embedded database. */
export async function openFoundation(
  config: Config,
  logger: Logger,
  options: FoundationOptions,
): Promise<Foundation & AsyncDisposable> {
  // A node reports a folder that it cannot use before anything in it is looked for.
  if (!options.besideNode) await openDataFolder(config)
  const isNew = config.databaseUrl === null && !(await hasDatabase(config.data))
  if (options.besideNode && isNew) {
    if (options.createDatabase !== true) throw new NoDatabaseError(resolve(config.data))
    logger.warn({ folder: resolve(config.data) }, 'there was no database here: a new one is made')
  }
  const dataDir = await openDataFolder(config)
  await using opened = new AsyncDisposableStack()
  const url = config.databaseUrl ?? (await embeddedUrl(dataDir, logger, { ...options, opened }))
  const database = openDatabase({ config, url, logger })
  opened.defer(() => database.close())
  const clock = await DatabaseClock.read(database)
  const openFiles = (url: string | null): Promise<FileStore> =>
    openFileStore(url, { dataDir, clock })
  const configured = await openFiles(config.filesUrl)
  const secret = (): Promise<string | null> => knownSecret({ config, database })
  const placement = { database, configured, secret, open: openFiles }
  const fileStore = new PlacedFileStore(configured, () => readPlacement(placement))
  opened.defer(() => fileStore.close())
  const closing = opened.move()
  return {
    config,
    logger,
    dataDir,
    url,
    database,
    fileStore,
    openFiles,
    clock,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

async function embeddedUrl(
  dataDir: string,
  logger: Logger,
  { besideNode, opened }: FoundationOptions & { readonly opened: AsyncDisposableStack },
): Promise<string> {
  try {
    return opened.use(await startEmbeddedPostgres({ dataDir, logger })).url
  } catch (error) {
    const running =
      besideNode && error instanceof DataFolderInUseError ? await urlOfRunning(dataDir) : null
    if (running === null) throw error
    return running
  }
}

/** The cluster's secret if it is known already. */
export async function knownSecret({
  config,
  database,
}: Pick<Foundation, 'config' | 'database'>): Promise<string | null> {
  if (config.secret !== null) return config.secret
  const [found] = await database.run(hasSecret)
  if (found?.there !== true) return null
  const [kept] = await database.run(readSecret)
  return kept?.value ?? null
}

/** The cluster's secret, made by whichever node comes first. The schema must be there. */
export async function secretOf(foundation: Foundation): Promise<string> {
  const known = await knownSecret(foundation)
  if (known !== null) return known
  await foundation.database.run(makeSecret, [randomBytes(secretBytes).toString('hex')])
  const [kept] = await foundation.database.run(readSecret)
  return kept!.value
}
