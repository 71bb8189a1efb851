import type { Access } from '#access/access.ts'
import type { Cache } from '#cache/cache.ts'
import type { Config } from '#config/config.ts'
import type { Content } from '#content/content.ts'
import type { Database } from '#database/database.ts'
import { purgeKeyOf } from '#http-cache/varnish-vcl.ts'
import type { JobQueue } from '#jobs/job-queue.ts'
import type { Diagnosis } from '#doctor/doctor.ts'
import type { Logger } from '#lib/logger.ts'
import type { Media } from '#media/media.ts'
import type { VerifyOptions, VerifyReport } from '#media/verify-files.ts'
import { endWithin } from '#node/end-within.ts'
import type { MoveOptions, MoveReport } from '#node/file-move.ts'
import type { Foundation } from '#node/foundation.ts'
import type { PartReports } from '#nodes/cluster-status.ts'
import type { CallOptions, CallReply } from '#nodes/calls.ts'

/**
 * Everything behind the API, wired and migrated, without listening: what a command works on.
 * Commands act through it with `access.systemIdentity`, in this process, against the node's own
 * database: an embedded one that a running node has started already is used as it is.
 */
export type Site = AsyncDisposable & {
  readonly config: Config
  readonly logger: Logger
  readonly database: Database
  readonly content: Content
  readonly access: Access
  readonly media: Media
  /** Jobs that a command adds are found by the nodes within seconds; those of a node at once. */
  readonly queue: JobQueue
  /** A request with this key purges the HTTP cache; its VCL has it. */
  readonly purgeKey: string
}

/** The files of a site as `stoa files` sees them. */
export type SiteFiles = AsyncDisposable & {
  move(options: MoveOptions): Promise<MoveReport>
  verify(options: Omit<VerifyOptions, 'nowMs'>): Promise<VerifyReport>
}

/** The cluster as seen from a process that is no node. */
export type ClusterAccess = AsyncDisposable & {
  readonly database: Database
  /** Calls every node that lives; see `Calls.onAll`. `payload`: by default null. */
  ask(method: string, options: CallOptions, payload?: unknown): Promise<CallReply[]>
}

export type OpenSiteOptions = {
  /** Make the embedded database where there is none, as the first start of a node does. */
  readonly createDatabase?: boolean
  /**
   * The command reads or writes uploads: the file store must be the one that the database
   * remembers. Other commands do not look at it, and can run where it is not mounted.
   */
  readonly usesFiles?: boolean
}

/** `command-line.ts` gives this to the commands, so that they pick no driver. */
export type Assembly = {
  openSite(config: Config, options?: OpenSiteOptions): Promise<Site>
  /** Opens the files and the rows that name them; the place must be that of the site. */
  openFiles(config: Config): Promise<SiteFiles>
  /**
   * Reads the cluster's tables and changes nothing. Null: no node has ever run on this database, or
   * the embedded one is not running.
   */
  openCluster(config: Config): Promise<ClusterAccess | null>
  /**
   * What `stoa doctor` finds, from the nodes and from here. Null: the embedded database of this
   * folder is not running.
   */
  diagnose(config: Config): Promise<Diagnosis | null>
  /** The services of the configuration as this machine reaches them; takes two seconds. */
  partsFromHere(config: Config): Promise<PartReports>
  /** Serves until `signal` aborts, then drains and resolves. */
  runNode(config: Config, signal: AbortSignal): Promise<void>
  /** The same with several nodes as processes of their own behind one port. */
  runNodes(config: Config, count: number, signal: AbortSignal): Promise<void>
}

/** How long background work may take to end when the site is closed. */
const backgroundMs = 5_000

/** Loaded while the database starts: both take about as long. */
export async function loadParts() {
  const [{ createAccess }, { createContent }, { createMedia }] = await Promise.all([
    import('#access/create-access.ts'),
    import('#content/create-content.ts'),
    import('#media/create-media.ts'),
  ])
  return { createAccess, createContent, createMedia }
}

export type SiteOptions = {
  readonly parts: Awaited<ReturnType<typeof loadParts>>
  readonly secret: string
  readonly queue: JobQueue
  /** Null: for one command, which keeps nothing. */
  readonly cache: Cache | null
}

/** Puts the parts together on a migrated database. Disposing leaves the foundation open. */
export function createSite(
  { config, logger, database, fileStore, dataDir, clock }: Foundation,
  { parts, secret, queue, cache }: SiteOptions,
): Site {
  const content = parts.createContent({ clock, logger, queue })
  const access = parts.createAccess({
    database,
    clock,
    logger,
    secret,
    ...(cache === null ? {} : { cache }),
  })
  const media = parts.createMedia({
    database,
    fileStore,
    dataDir,
    clock,
    logger,
    limits: { uploadBytesMax: config.uploadBytesMax },
  })
  return {
    config,
    logger,
    database,
    content,
    access,
    media,
    queue,
    purgeKey: purgeKeyOf(secret),
    [Symbol.asyncDispose]: async () => {
      await media.stop()
      await endWithin(content.stop(), backgroundMs, logger)
    },
  }
}
