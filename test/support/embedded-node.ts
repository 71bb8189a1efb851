/**
 * A node reduced to its database: starts the embedded PostgreSQL on the folder named by the first argument, prints one
 * line of JSON, and stays until it gets SIGTERM or is killed. Tests run it as a process of its own to be able to kill it.
 */
import { startEmbeddedPostgres } from '#database/drivers/embedded/embedded-postgres.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { silentLogger } from '#lib/logger.ts'

const dataDir = process.argv[2]
if (dataDir === undefined) throw new Error('usage: embedded-node.ts DATA_DIR')
const say = (facts: object): void => void process.stdout.write(`${JSON.stringify(facts)}\n`)
const startedAt = performance.now()
try {
  const embedded = await startEmbeddedPostgres({ dataDir, logger: silentLogger })
  const hold = setInterval(() => undefined, 60_000)
  process.once('SIGTERM', () => {
    clearInterval(hold)
    void embedded.stop().then(() => say({ stopped: true }))
  })
  say({ url: embedded.url, ms: performance.now() - startedAt })
} catch (error) {
  if (!(error instanceof StoaError)) throw error
  say({ code: error.code, message: error.message, facts: error.facts })
  process.exitCode = 1
}
