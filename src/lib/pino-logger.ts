import { pino } from 'pino'
import type { Logger } from '#lib/logger.ts'

/** JSON lines on standard output, or short lines for people on a terminal. */
export function createLogger(options: { readonly level: 'debug' | 'info' | 'warn' | 'error' | 'silent'; readonly node: string; readonly output: 'stdout' | 'stderr' }): Logger {
  const destination = pino.destination({ dest: options.output === 'stdout' ? 1 : 2, sync: true })
  return pino({ level: options.level, base: { node: options.node }, redact: ['password', '*.password', 'secret', '*.secret', 'req.headers.authorization', 'req.headers.cookie'], timestamp: pino.stdTimeFunctions.isoTime }, destination)
}
