/**
 * The root of every expected failure. Each part derives its own classes in its `errors.ts`; the
 * `code` is stable and documented in docs/reference/errors.md. The HTTP status is decided in `api/`
 * alone.
 *
 * `message` is one sentence for people that says what to do next. `facts` are the typed details
 * that a program may act on; they must never hold a secret or content that the reader may not see.
 */
export abstract class StoaError extends Error {
  abstract readonly code: `E_${string}`
  readonly facts: Readonly<Record<string, unknown>>

  constructor(
    message: string,
    facts: Readonly<Record<string, unknown>> = {},
    options?: { cause?: unknown },
  ) {
    super(message, options)
    this.name = new.target.name
    this.facts = facts
  }
}
