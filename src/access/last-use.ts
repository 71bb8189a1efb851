import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { sql } from '#database/database.ts'
import type { Statement } from '#database/database.ts'
import { DatabaseTimeoutError, DatabaseUnavailableError } from '#database/errors.ts'

/**
 * How exactly the last use of sessions and API tokens is recorded: one write in ten minutes for
 * each on a node, whatever the traffic. Uses are rows of tables of their own, which the change feed
 * does not announce: a use changes nothing that a node has in memory.
 */
export const lastUseResolutionMs = 600_000
/** Uses being recorded at once; more are recorded at a later request. */
const recordingMax = 20

/** When a session or API token was last used, as far as this node knows. */
export type LastUse = { atMs: number }

export function lastUseOf(recordedAt: string | null): LastUse {
  return { atMs: recordedAt === null ? Number.NEGATIVE_INFINITY : Date.parse(recordedAt) }
}

export function isUseDue(use: LastUse, nowMs: number): boolean {
  return nowMs - use.atMs >= lastUseResolutionMs
}

// A session that ends while its use is recorded leaves no row behind: the foreign key refuses it.
const statements = {
  session: sql(`
    insert into stoa.session_use as u (id_hash, last_used_at)
    select id_hash, $2 from stoa.session where id_hash = $1 for key share
    on conflict (id_hash) do update set last_used_at = excluded.last_used_at
    where u.last_used_at < excluded.last_used_at`),
  token: sql(`
    insert into stoa.api_token_use as u (token_id, last_used_at)
    select id, $2 from stoa.api_token where id = $1 for key share
    on conflict (token_id) do update set last_used_at = excluded.last_used_at
    where u.last_used_at < excluded.last_used_at`),
} satisfies Record<string, Statement<object>>

/** Records uses in the background: no request waits for it, or fails with it. */
export class LastUseRecorder {
  readonly #context: Pick<AccessContext, 'database' | 'clock' | 'logger'>
  #recording = 0

  constructor(context: Pick<AccessContext, 'database' | 'clock' | 'logger'>) {
    this.#context = context
  }

  record(kind: keyof typeof statements, key: unknown, use: LastUse): void {
    const nowMs = this.#context.clock.nowMs()
    if (!isUseDue(use, nowMs) || this.#recording >= recordingMax) return
    use.atMs = nowMs
    this.#recording += 1
    void this.#write(statements[kind], [key, timestamp(nowMs)])
  }

  async #write(statement: Statement<object>, values: readonly unknown[]): Promise<void> {
    const { database, logger } = this.#context
    try {
      await database.run(statement, values)
    } catch (error) {
      const away =
        error instanceof DatabaseUnavailableError || error instanceof DatabaseTimeoutError
      logger[away ? 'debug' : 'error']({ err: error }, 'the last use was not recorded')
    } finally {
      this.#recording -= 1
    }
  }
}
