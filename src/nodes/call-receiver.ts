import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { FailureLog } from '#lib/failure-log.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import { callChannel, callReplyMax } from '#nodes/calls.ts'
import type { CallHandler } from '#nodes/calls.ts'
import { CallTooLargeError, CallUnknownError } from '#nodes/errors.ts'
import { Tasks } from '#lib/tasks.ts'

/** Calls that one node runs at once; the others wait in the table until their deadlines. */
const runningMax = 64
/**
 * A call counts as running for this long beyond its deadline: by then it is over by the clock of
 * the database too, so that it is not run twice.
 */
const overMarginMs = 100

type CallRow = {
  readonly call: string
  readonly caller: string
  readonly method: string
  readonly payload: string
  readonly left_ms: number
}

const readWaiting = sql<CallRow>(`
  select call, caller, method, payload,
    extract(epoch from expires_at - now())::float8 * 1000 as left_ms
  from stoa.node_call
  where target = $1 and reply is null and failure is null and expires_at > now()
    and not call = any($2::text[])
  order by expires_at, call limit $3`)
const writeReply = sql(
  `update stoa.node_call set reply = $2, failure = $3 where call = $1 and target = $4`,
)

export type CallReceiverOptions = {
  readonly id: string
  readonly database: Queryable
  readonly link: ClusterLink | null
  readonly logger: Logger
}

/**
 * The receiving half of calls: it reads the calls to this node after a hint or a beat, runs their
 * handlers, and writes the replies.
 */
export class CallReceiver {
  readonly #options: CallReceiverOptions
  readonly #failureLog: FailureLog
  readonly #handlers = new Map<string, CallHandler>()
  readonly #running = new Set<string>()
  readonly #tasks = new Tasks()
  readonly #stopping = new AbortController()
  readonly #listening: Disposable | null
  #looking = false
  #again = false

  constructor(options: CallReceiverOptions) {
    this.#options = options
    this.#failureLog = new FailureLog(options.logger, {
      failing: 'calls of other nodes could not be read; the next beat reads them',
      recovered: 'calls of other nodes are read again',
    })
    this.#listening =
      options.link?.listen(callChannel, (text) => {
        if (text === 'ask *' || text === `ask ${options.id}`) this.look()
      }) ?? null
  }

  handle(method: string, handler: CallHandler): Disposable {
    this.#handlers.set(method, handler)
    return { [Symbol.dispose]: () => void this.#handlers.delete(method) }
  }

  /** Runs the handler of a method, also for calls of this node to itself. */
  async run(
    method: string,
    payload: unknown,
    call: { readonly caller: string; readonly leftMs: number },
  ): Promise<unknown> {
    const handler = this.#handlers.get(method)
    if (handler === undefined) throw new CallUnknownError(`This node has no method "${method}".`)
    const deadline = AbortSignal.timeout(Math.max(1, Math.ceil(call.leftMs)))
    return handler(payload, { ...call, signal: AbortSignal.any([deadline, this.#stopping.signal]) })
  }

  /** Reads the waiting calls; requests that come meanwhile are one more reading together. */
  look(): void {
    if (this.#stopping.signal.aborted) return
    this.#again = true
    if (this.#looking) return
    this.#looking = true
    this.#tasks.add(this.#lookAll())
  }

  async stop(): Promise<void> {
    this.#listening?.[Symbol.dispose]()
    this.#stopping.abort()
    await this.#tasks.ended()
  }

  async #lookAll(): Promise<void> {
    const { id, database } = this.#options
    try {
      while (this.#again && this.#running.size < runningMax) {
        this.#again = false
        const calls = await database.run(readWaiting, [
          id,
          [...this.#running],
          runningMax - this.#running.size,
        ])
        this.#failureLog.success()
        for (const call of calls) {
          this.#running.add(call.call)
          this.#tasks.add(this.#reply(call))
        }
      }
    } catch (error) {
      this.#failureLog.failure(error)
    } finally {
      this.#looking = false
    }
  }

  async #reply(row: CallRow): Promise<void> {
    const { id, database, logger, link } = this.#options
    const outcome = await this.#outcome(row)
    if (outcome === null) {
      this.#finish(row.call)
      return
    }
    try {
      await database.run(writeReply, [row.call, outcome.reply, outcome.failure, id])
      this.#finish(row.call)
    } catch (error) {
      // The call counts as running until its deadline, so that it is not run twice.
      setTimeout(() => this.#running.delete(row.call), row.left_ms).unref()
      logger.warn({ err: error, method: row.method }, 'a reply to another node was not written')
      return
    }
    try {
      await link?.send(callChannel, `replied ${row.caller} ${row.call}`)
    } catch (error) {
      logger.debug({ err: error }, 'a hint was not sent; the caller looks by itself')
    }
  }

  #finish(call: string): void {
    this.#running.delete(call)
    if (this.#again) this.look()
  }

  /**
   * Returns null after the deadline: a handler that goes on all the same must not keep other calls
   * from being run, nor this node from leaving.
   */
  async #outcome({
    method,
    payload,
    caller,
    left_ms,
  }: CallRow): Promise<{ readonly reply: string | null; readonly failure: string | null } | null> {
    try {
      const value = await withTimeout(
        this.run(method, JSON.parse(payload), { caller, leftMs: left_ms }),
        left_ms + overMarginMs,
        this.#stopping.signal,
      )
      if (value === timedOut) return null
      const reply = JSON.stringify(value ?? null)
      if (reply.length > callReplyMax)
        throw new CallTooLargeError(`A reply carries up to ${callReplyMax} characters.`, {
          method,
          length: reply.length,
        })
      return { reply, failure: null }
    } catch (error) {
      const known = error instanceof StoaError
      if (!known)
        this.#options.logger.error({ err: error, method }, 'a call of another node failed')
      return {
        reply: null,
        failure: JSON.stringify({
          code: known ? error.code : 'E_INTERNAL',
          message: known ? error.message : 'a defect; its log says more',
        }),
      }
    }
  }
}
