import type { Origin } from '#access/access.ts'
import type { AccessContext } from '#access/access-context.ts'
import type { AuditLog } from '#access/audit.ts'
import { anonymousActor } from '#access/permissions.ts'

/**
 * Rows of the audit log that refused sign-ins may add in an hour on one node: strangers can cause
 * them, and each is kept for more than a year.
 */
const rowsPerHourMax = 200
const hourMs = 60 * 60 * 1_000

/** Records refused sign-ins, a bounded number of them; the next row says how many were left out. */
export class RefusalAudit {
  readonly #context: Pick<AccessContext, 'database' | 'clock' | 'logger'>
  readonly #log: AuditLog
  #sinceMs = Number.NEGATIVE_INFINITY
  #rows = 0
  #leftOut = 0

  constructor(context: Pick<AccessContext, 'database' | 'clock' | 'logger'>, log: AuditLog) {
    this.#context = context
    this.#log = log
  }

  async record(origin: Origin, userId: string | null, reason: string): Promise<void> {
    const { clock, database, logger } = this.#context
    const nowMs = clock.monotonicMs()
    if (nowMs - this.#sinceMs >= hourMs) {
      this.#sinceMs = nowMs
      this.#rows = 0
    }
    if (this.#rows >= rowsPerHourMax) {
      if (this.#leftOut === 0)
        logger.warn({ rowsPerHourMax }, 'refused sign-ins are left out of the audit log for now')
      this.#leftOut += 1
      return
    }
    this.#rows += 1
    const leftOut = this.#leftOut
    this.#leftOut = 0
    await this.#log.record(database, anonymousActor, origin, {
      action: 'session.refuse',
      subject: `user:${userId ?? 'unknown'}`,
      facts: { reason, ...(leftOut > 0 ? { leftOut } : {}) },
    })
  }
}
