import { checkSchema, migrate } from '#database/migrate.ts'
import type { Foundation } from '#node/foundation.ts'
import { OlderNodesError } from '#nodes/errors.ts'
import { livingBeside } from '#nodes/join.ts'
import { nodeLeaseMsDefault } from '#nodes/nodes.ts'

export type UpToDateOptions = {
  /** The node that migrates; empty for a command. */
  readonly id: string
  readonly signal?: AbortSignal
}

/** Changes nothing. Errors: `MigrationError` if this program refuses the schema. */
export async function checkDatabase({ database }: Foundation): Promise<void> {
  await checkSchema(database)
}

/**
 * Migrates the schema. A migration that older versions cannot work with is refused while other
 * nodes run. Errors: `OlderNodesError`, and those of `migrate`.
 */
export async function bringUpToDate(
  { database, logger }: Foundation,
  { id, signal }: UpToDateOptions,
): Promise<void> {
  const applied = await migrate(database, {
    ...(signal === undefined ? {} : { signal }),
    beforeIncompatible: async (names) => {
      const living = await livingBeside({ id, database, leaseMs: nodeLeaseMsDefault })
      if (living.length === 0) return
      const nodes = living.map(({ name }) => name).join(', ')
      throw new OlderNodesError(
        `The migration ${names.join(', ')} cannot run beside nodes of an older version, ` +
          `and these run: ${nodes}. ` +
          'Stop all of them (stoa drain), then start this version.',
        { migrations: names, nodes: living.map(({ name }) => name) },
      )
    },
  })
  if (applied.length > 0) logger.info({ applied }, 'the database schema was brought up to date')
}
