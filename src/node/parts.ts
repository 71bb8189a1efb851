import { resolve } from 'node:path'
import { hidePassword } from '#config/config.ts'
import type { Config } from '#config/config.ts'
import type { ClusterParts } from '#api/api-context.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import type { FileStore } from '#file-store/file-store.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import {
  commandNameOf,
  openCommandDatabase,
  openFileStore,
  openLink,
  openSecondLevel,
  readStandbys,
} from '#node/drivers.ts'
import { urlOfListening } from '#embedded-postgres/embedded-postgres.ts'
import type { PartReport, PartReports } from '#nodes/cluster-status.ts'

/** A service that has not responded by then is down, for a report. */
const probeMaxMs = 1_000
/** From outside a connection has to be made first. */
const connectMaxMs = 2_000
const lookEveryMs = 50

/** The address of a link that has no server of its own. */
const notify = 'NOTIFY of the database'

const versionOf = sql<{ version: string }>(`select current_setting('server_version') as version`)

export type OwnParts = {
  readonly config: Config
  readonly database: Database
  readonly cluster: Pick<ClusterParts, 'cache' | 'link' | 'files'>
  readonly secondLevel: SecondLevel | null
}

/** The services that this node uses, as its own connections show them. */
export async function partsOf(parts: OwnParts): Promise<PartReports> {
  const { config, database, cluster, secondLevel } = parts
  const { cache, link } = cluster
  const version = await withTimeout(databaseVersion(database), probeMaxMs)
  const files = cluster.files?.now ?? null
  return {
    database: {
      state: cache.leased ? 'up' : 'down',
      address: config.databaseUrl === null ? 'embedded' : addressIn(config.databaseUrl),
      version: version === timedOut ? null : version,
    },
    standby: cache.config.replica
      ? report(!cache.missing.replica, addressIn(config.databaseReadUrl), null)
      : null,
    link: linkReport(link, config),
    secondLevel: levelReport(secondLevel, config),
    fileStore: files === null ? null : report(files.state === 'up', files.address, null),
  }
}

/**
 * The services of this configuration as this machine reaches them, for a command while the database
 * is away. Takes two seconds at most.
 */
export async function partsFromHere(config: Config): Promise<PartReports> {
  await using opened = new AsyncDisposableStack()
  const dataDir = resolve(config.data)
  const url = config.databaseUrl ?? (await urlOfListening(dataDir))
  const clock = systemClock
  const database =
    url === null ? null : openCommandDatabase({ config, url, logger: silentLogger }, 1)
  opened.defer(async () => database?.close())
  const fileStore = await openFileStore(config.filesUrl, { dataDir, clock })
  opened.defer(() => fileStore.close())
  // The name of a cluster is not needed to see whether its server responds.
  const identity = async (): Promise<string> => 'probe'
  const link =
    config.linkUrl === null
      ? null
      : await openLink({
          url: '',
          linkUrl: config.linkUrl,
          identity,
          applicationName: commandNameOf(),
          logger: silentLogger,
        })
  opened.defer(async () => link?.close())
  const secondLevel = await openSecondLevel(config.cacheUrl, null)
  opened.defer(async () => secondLevel?.close())
  const [version, files, standbys] = await Promise.all([
    database === null ? null : withTimeout(databaseVersion(database), connectMaxMs),
    filesReport(fileStore),
    readStandbys(config),
    link === null ? null : connected(link),
    secondLevel === null ? null : connected(secondLevel),
  ])
  const isUp = typeof version === 'string'
  const address = config.databaseUrl === null ? 'embedded' : addressIn(config.databaseUrl)
  return {
    database: report(isUp, address, isUp ? version : null),
    standby:
      standbys.length === 0
        ? null
        : report(
            standbys.some((one) => 'isStandby' in one && one.isStandby),
            addressIn(config.databaseReadUrl),
            null,
          ),
    link: link === null ? report(isUp, notify, null) : linkReport(link, config),
    secondLevel: levelReport(secondLevel, config),
    fileStore: files,
  }
}

async function connected(one: { readonly connected: boolean }): Promise<void> {
  const end = performance.now() + connectMaxMs
  while (!one.connected && performance.now() < end)
    await new Promise((resume) => setTimeout(resume, lookEveryMs))
}

/** Null: it did not respond. */
async function databaseVersion(database: Database): Promise<string | null> {
  try {
    const [row] = await (database.control ?? database).run(versionOf)
    return row?.version.split(' ')[0] ?? null
  } catch {
    // The state of the database is reported by itself.
    return null
  }
}

async function filesReport({ identity }: FileStore): Promise<PartReport> {
  const found = await withTimeout(
    identity.read().catch(() => null),
    probeMaxMs,
  )
  return report(typeof found === 'string', identity.place, null)
}

function linkReport({ connected: isUp, server }: ClusterLink, config: Config): PartReport {
  if (config.linkUrl === null) return report(isUp, notify, null)
  return report(isUp, server?.address ?? addressIn(config.linkUrl), server?.version ?? null)
}

function levelReport(level: SecondLevel | null, { cacheUrl }: Config): PartReport | null {
  if (level === null) return null
  const { connected: isUp, server } = level
  return report(isUp, server?.address ?? addressIn(cacheUrl), server?.version ?? null)
}

function report(isUp: boolean, address: string | null, version: string | null): PartReport {
  return { state: isUp ? 'up' : 'down', address, version }
}

/** The hosts of a URL, without its account and options. */
function addressIn(url: string | null): string | null {
  if (url === null) return null
  return /^[a-z0-9]+:\/\/(?:.*@)?([^/?#]*)/.exec(hidePassword(url))?.[1] ?? null
}
