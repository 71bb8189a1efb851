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

/** Calls that one node works on at once; the others wait in the table until their deadlines. */
const inHandMax = 64
/**
 * Beyond its deadline a question stays in hand for so long: by then the database too calls it over,
 * and it is not run twice.
 */
const overMarginMs = 100

type Question = {
  readonly call: string
  readonly caller: string
  readonly method: string
  readonly payload: string
  readonly left_ms: number
}

const waiting = sql<Question>(`
  select call, caller, method, payload, extract(epoch from expires_at - now())::float8 * 1000 as left_ms from stoa.node_call
  where target = $1 and reply is null and failure is null and expires_at > now() and not call = any($2::text[]) order by expires_at, call limit $3`)
const answer = sql(
  `update stoa.node_call set reply = $2, failure = $3 where call = $1 and target = $4`,
)

/**
 * The answering half of calls: it looks when a hint or a beat says so, runs the handlers, and
 * writes what came of it.
 */
export class CallReceiver {
  readonly #options: {
    readonly id: string
    readonly database: Queryable
    readonly link: ClusterLink | null
    readonly logger: Logger
  }
  readonly #failureLog: FailureLog
  readonly #handlers = new Map<string, CallHandler>()
  readonly #inHand = new Set<string>()
  readonly #tasks = new Tasks()
  readonly #stopping = new AbortController()
  readonly #listening: Disposable | null
  #looking = false
  #again = false

  constructor(options: {
    readonly id: string
    readonly database: Queryable
    readonly link: ClusterLink | null
    readonly logger: Logger
  }) {
    this.#options = options
    this.#failureLog = new FailureLog(options.logger, {
      failing: 'calls of other nodes could not be read; they are looked for at the next beat',
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

  /** What a call of this node to itself runs. */
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

  /** Looks for calls that wait; while it looks, further wishes are one more look. */
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
      while (this.#again && this.#inHand.size < inHandMax) {
        this.#again = false
        const questions = await database.run(waiting, [
          id,
          [...this.#inHand],
          inHandMax - this.#inHand.size,
        ])
        this.#failureLog.success()
        for (const question of questions) {
          this.#inHand.add(question.call)
          this.#tasks.add(this.#answer(question))
        }
      }
    } catch (error) {
      this.#failureLog.failure(error)
    } finally {
      this.#looking = false
    }
  }

  async #answer(question: Question): Promise<void> {
    const { database, logger, link } = this.#options
    const outcome = await this.#outcome(question)
    if (outcome === null) {
      this.#letGo(question.call)
      return
    }
    try {
      await database.run(answer, [question.call, outcome.reply, outcome.failure, this.#options.id])
      this.#letGo(question.call)
    } catch (error) {
      // Kept in hand until nobody waits for it, so that it is not run twice.
      setTimeout(() => this.#inHand.delete(question.call), question.left_ms).unref()
      logger.warn(
        { err: error, method: question.method },
        'an answer could not be given to another node',
      )
      return
    }
    try {
      await link?.send(callChannel, `answered ${question.caller} ${question.call}`)
    } catch (error) {
      logger.debug({ err: error }, 'a hint was not sent; the caller looks by itself')
    }
  }

  #letGo(question: string): void {
    this.#inHand.delete(question)
    if (this.#again) this.look()
  }

  /**
   * Null: nobody waits for it any more, and a handler that goes on all the same must not keep
   * others from being called, nor this node from leaving.
   */
  async #outcome({
    method,
    payload,
    caller,
    left_ms,
  }: Question): Promise<{ readonly reply: string | null; readonly failure: string | null } | null> {
    try {
      const value = await withTimeout(
        this.run(method, JSON.parse(payload), { caller, leftMs: left_ms }),
        left_ms + overMarginMs,
        this.#stopping.signal,
      )
      if (value === timedOut) return null
      const reply = JSON.stringify(value ?? null)
      if (reply.length > callReplyMax)
        throw new CallTooLargeError(`An answer carries up to ${callReplyMax} characters.`, {
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
