import { createHash } from 'node:crypto'
import { hostname, networkInterfaces } from 'node:os'
import type { Config } from '#config/config.ts'
import { settingNames } from '#config/config.ts'
import type { SettingName } from '#config/settings.ts'
import type { Logger } from '#lib/logger.ts'
import { silentAfterMs } from '#nodes/cluster-status.ts'
import { DatabaseNotSharedError, SecretDiffersError } from '#nodes/errors.ts'
import type { OtherNode } from '#nodes/join.ts'
import type { NodeInfo } from '#nodes/node-info.ts'

/** Settings that may differ from node to node, or are compared apart. */
const ownSettings: ReadonlySet<SettingName> = new Set<SettingName>([
  'databaseUrl',
  'databaseDirectUrl',
  'databaseConnections',
  'databaseTimeoutMs',
  'filesUrl',
  'host',
  'port',
  'node',
  'data',
  'secret',
  'logLevel',
  'starter',
  'work',
  'cacheBytes',
  'drainGraceMs',
])

/** A node without a beat for so long has no claim to its name. */
const nameHeldMs = 10_000
const digestLength = 12

export type JoiningNode = {
  readonly config: Config
  /** The name of its place under a supervisor. Null: its address is its place. */
  readonly supervisedAs: string | null
  readonly secret: string
  /** Throws when the files are not those that the database remembers. */
  readonly checkFiles: () => Promise<void>
  readonly version: string
  readonly logger: Logger
}

/**
 * The description of a node that fits beside the others; else the reason why it does not, with the
 * setting to change.
 */
export async function admit(
  { config, supervisedAs, secret, checkFiles, version, logger }: JoiningNode,
  others: readonly OtherNode[],
): Promise<NodeInfo> {
  const mine: Readonly<Record<string, string>> = {
    database: config.databaseUrl === null ? 'embedded' : 'external',
    secret: digest(`secret ${secret}`),
    ...comparedSettings(config, secret),
  }
  refuseOtherDatabase(mine, others)
  refuseOtherSecret(mine, others)
  await checkFiles()
  logDifferences(mine, version, others, logger)
  const address = supervisedAs === null ? addressOf(config) : null
  const place = supervisedAs ?? address
  const wanted = config.node ?? hostname()
  const name = freeName(wanted, place, others)
  if (name !== wanted)
    logger.warn(
      { wanted, name },
      'another node has this name: this one is called otherwise; STOA_NODE names it',
    )
  return {
    name,
    address,
    version,
    fingerprint: digest(JSON.stringify(mine)),
    traits: mine,
    ...(place === null ? {} : { place }),
  }
}

function differing(
  trait: string,
  mine: Readonly<Record<string, string>>,
  others: readonly OtherNode[],
): OtherNode[] {
  return others.filter(
    ({ info }) => info.traits?.[trait] !== undefined && info.traits[trait] !== mine[trait],
  )
}

function refuseOtherDatabase(
  mine: Readonly<Record<string, string>>,
  others: readonly OtherNode[],
): void {
  const local = others.filter(
    ({ info }) => info.traits?.['database'] === 'embedded' || mine['database'] === 'embedded',
  )
  if (local.length === 0) return
  throw new DatabaseNotSharedError(
    `${runningNodes(local)} on this database, which is embedded in one of them and ends with ` +
      `it. Set STOA_DATABASE_URL to a PostgreSQL of its own on every node.`,
    local.map(({ id }) => id),
  )
}

function refuseOtherSecret(
  mine: Readonly<Record<string, string>>,
  others: readonly OtherNode[],
): void {
  const unlike = differing('secret', mine, others)
  if (unlike.length === 0) return
  throw new SecretDiffersError(
    `${runningNodes(unlike)} with another secret: sessions and tokens of one node would be ` +
      `refused by the next. Set STOA_SECRET to the same value on every node, or on none.`,
    unlike.map(({ id }) => id),
  )
}

function logDifferences(
  mine: Readonly<Record<string, string>>,
  version: string,
  others: readonly OtherNode[],
  logger: Logger,
): void {
  for (const name of Object.keys(mine).filter((each) => each.startsWith('setting.'))) {
    const unlike = differing(
      name,
      mine,
      others.filter(({ silentMs }) => silentMs <= silentAfterMs),
    )
    if (unlike.length > 0)
      logger.warn(
        { setting: name.slice('setting.'.length), nodes: unlike.map(({ info }) => info.name) },
        'a setting differs from that of other nodes',
      )
  }
  const versions = [...new Set(others.map(({ info }) => info.version))].filter(
    (each) => each !== version,
  )
  if (versions.length > 0)
    logger.info({ version, others: versions }, 'other nodes run another version')
}

/** Names those that live, if any does: the row of a killed node stands there for a while. */
function runningNodes(others: readonly OtherNode[]): string {
  const living = others.filter(({ silentMs }) => silentMs <= silentAfterMs)
  const names = (living.length > 0 ? living : others).map(
    ({ info }) => `${info.name}${info.address === null ? '' : ` (${info.address})`}`,
  )
  return names.length === 1 ? `The node ${names[0]!} runs` : `The nodes ${names.join(', ')} run`
}

/** Keyed with the cluster's secret, so that the digests give away no password. */
function comparedSettings(config: Config, secret: string): Record<string, string> {
  return Object.fromEntries(
    settingNames
      .filter((name) => !ownSettings.has(name))
      .map((name) => [`setting.${name}`, digest(`${secret} ${JSON.stringify(config[name])}`)]),
  )
}

/**
 * A node that was restarted at the same place takes its old name, though the row of its former life
 * may still be there.
 */
function freeName(wanted: string, place: string | null, others: readonly OtherNode[]): string {
  const taken = new Set(
    others
      .filter(
        ({ info, silentMs }) =>
          silentMs < nameHeldMs && !(info.name === wanted && isSuccessor(place, info)),
      )
      .map(({ info }) => info.name),
  )
  let name = wanted
  for (let number = 2; taken.has(name); number += 1) name = `${wanted}-${number}`
  return name
}

export function isSuccessor(place: string | null | undefined, former: NodeInfo): boolean {
  return place !== null && place !== undefined && former.place === place
}

/** Where people, and load balancers, find this node. Null: known when it listens. */
export function addressOf({
  host,
  port,
}: {
  readonly host: string
  readonly port: number
}): string | null {
  if (port === 0) return null
  const everywhere = host === '0.0.0.0' || host === '::'
  if (everywhere) return `${outerAddress()}:${port}`
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

function outerAddress(): string {
  const outer = Object.values(networkInterfaces())
    .flatMap((each) => each ?? [])
    .find(({ internal, family }) => !internal && family === 'IPv4')
  return outer?.address ?? hostname()
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, digestLength)
}
