import type { Logger } from '#lib/logger.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/**
 * Waits for background work to end, but not for longer than a node has that was asked to stop:
 * what takes longer, such as building an index, is left, and any node takes it up again.
 */
export async function endWithin(work: Promise<unknown>, ms: number, logger: Logger): Promise<void> {
  if ((await withTimeout(work, ms)) === timedOut)
    logger.warn(
      { afterMs: ms },
      'background work did not end in time; a node that runs takes it up again',
    )
}
