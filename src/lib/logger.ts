/**
 * The injected logger: pino's shape, as far as Stoa uses it. Facts are fields, the message is a
 * constant sentence.
 */
export interface Logger {
  debug(facts: object, message: string): void
  info(facts: object, message: string): void
  warn(facts: object, message: string): void
  error(facts: object, message: string): void
  child(bindings: { part: string }): Logger
}

/** Says nothing. For tests, and for commands whose output is their result. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
}
