import { resolve } from 'node:path'
import type { ClusterParts } from '#api/api-context.ts'
import type { ForwardingLog } from '#api/http/forwarding-log.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import type { Config } from '#config/config.ts'
import { checks } from '#doctor/checks.ts'
import type { Surroundings } from '#doctor/check.ts'
import { diagnose, doctorMethod, inspectHere } from '#doctor/doctor.ts'
import type { Diagnosis } from '#doctor/doctor.ts'
import { urlOfListening } from '#embedded-postgres/embedded-postgres.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { DatabaseClock } from '#node/database-clock.ts'
import {
  identityOf,
  openCommandDatabase,
  openFileStore,
  openLink,
  openSecondLevel,
  readStandbys,
} from '#node/drivers.ts'
import { checkFileStore } from '#node/file-store-check.ts'
import type { Foundation } from '#node/foundation.ts'
import { CallSender } from '#nodes/call-sender.ts'
import { silentAfterMs } from '#nodes/cluster-status.ts'
import { newId } from '#lib/id.ts'
import type { Nodes } from '#nodes/nodes.ts'

/** Checks run at once, each with its own statements; few of them are long. */
const connectionsMax = 8
/** A database that is away is reported after this, whatever the timeout of the nodes is. */
const databaseTimeoutMs = 3_000

export type NodeDoctor = {
  readonly foundation: Foundation
  readonly nodes: Nodes
  readonly cluster: Omit<ClusterParts, 'findings'>
  readonly secondLevel: SecondLevel | null
  readonly forwarding: ForwardingLog
}

/**
 * Lets other nodes have this one inspected, and returns how it diagnoses them all. Callers that
 * come while a diagnosis runs share its result.
 */
export function nodeDoctor(parts: NodeDoctor): () => Promise<Diagnosis> {
  const { calls } = parts.cluster
  calls.handle(doctorMethod, () => inspectHere(checks, 'node', nodeSurroundings(parts)))
  let running: Promise<Diagnosis> | null = null
  return () => {
    running ??= diagnose({
      checks,
      here: nodeSurroundings(parts),
      name: null,
      ask: (method, options) => calls.onAll(method, null, options),
    }).finally(() => {
      running = null
    })
    return running
  }
}

function nodeSurroundings(parts: NodeDoctor): Surroundings {
  const { foundation, nodes, cluster, secondLevel, forwarding } = parts
  const { config, database, dataDir } = foundation
  return {
    config,
    database,
    dataDir,
    epoch: cluster.feed.state.epoch,
    clockSkewMs: async () => nodes.clockSkewMs,
    address: nodes.info.address,
    link: cluster.link,
    secondLevel,
    checkFiles: () => checkFileStore(foundation),
    standbys: () => readStandbys(config),
    forwarding: forwarding.counts,
  }
}

/**
 * For the command: inspects all nodes, or this machine where none can be asked. Null: there is no
 * database, because no node has run here.
 */
export async function diagnoseFromOutside(given: Config): Promise<Diagnosis | null> {
  const config = {
    ...given,
    databaseTimeoutMs: Math.min(given.databaseTimeoutMs, databaseTimeoutMs),
  }
  const logger = silentLogger
  const dataDir = resolve(config.data)
  const url = config.databaseUrl ?? (await urlOfListening(dataDir))
  if (url === null) return null
  await using opened = new AsyncDisposableStack()
  const database = openCommandDatabase({ config, url, logger }, connectionsMax)
  opened.defer(() => database.close())
  const link = await openLink({
    url: config.databaseDirectUrl ?? url,
    linkUrl: config.linkUrl,
    identity: identityOf(database),
    applicationName: 'stoa doctor',
    logger,
  })
  opened.defer(() => link.close())
  const secondLevel = await openSecondLevel(config.cacheUrl, database)
  opened.defer(async () => secondLevel?.close())
  const sender = new CallSender({
    id: newId(),
    database,
    link,
    clock: systemClock,
    logger,
    isGone: (_node, _counter, silentMs) => silentMs > silentAfterMs,
  })
  opened.defer(() => sender.stop())
  const surroundings = { config, database, dataDir, link, secondLevel }
  return await diagnose({
    checks,
    here: outerSurroundings(surroundings),
    name: 'this machine',
    ask: async (method, { deadlineMs }) =>
      (await sender.send(method, null, { deadlineMs, only: null })).replies,
  })
}

type Outside = Pick<Surroundings, 'config' | 'database' | 'dataDir' | 'link' | 'secondLevel'>

function outerSurroundings(outside: Outside): Surroundings {
  const { config, database, dataDir } = outside
  return {
    ...outside,
    epoch: null,
    clockSkewMs: async () => Date.now() - (await DatabaseClock.read(database)).nowMs(),
    address: null,
    checkFiles: async () => {
      const clock = await DatabaseClock.read(database)
      const fileStore = await openFileStore(config.filesUrl, { dataDir, clock })
      try {
        await checkFileStore({ database, fileStore })
      } finally {
        await fileStore.close()
      }
    },
    standbys: () => readStandbys(config),
    forwarding: null,
  }
}
