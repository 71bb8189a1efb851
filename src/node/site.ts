import type { Access } from '#access/access.ts'
import type { Config } from '#config/config.ts'
import type { Content } from '#content/content.ts'
import type { Database } from '#database/database.ts'
import type { Logger } from '#lib/logger.ts'
import type { Media } from '#media/media.ts'
import type { CallReply, CallOptions } from '#nodes/calls.ts'

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
}

/** The cluster as seen from a process that is no node. */
export type ClusterAccess = AsyncDisposable & {
  readonly database: Database
  /** Asks every node that lives; see `Calls.onAll`. */
  ask(method: string, options: CallOptions): Promise<CallReply[]>
}

/** What `main.ts` gives to the commands, so that they pick no driver. */
export type Assembly = {
  openSite(config: Config): Promise<Site>
  /**
   * Reads the cluster's tables and changes nothing. Null: no node has ever run on this database, or
   * the embedded one is not running.
   */
  openCluster(config: Config): Promise<ClusterAccess | null>
  /** Serves until `signal` aborts, then drains and resolves. */
  runNode(config: Config, signal: AbortSignal): Promise<void>
  /** The same with several nodes as processes of their own behind one port. */
  runNodes(config: Config, count: number, signal: AbortSignal): Promise<void>
}
