import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import { newId } from '#lib/id.ts'
import type { Logger } from '#lib/logger.ts'
import type { StoaError } from '#lib/stoa-error.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import { callChannel, callPayloadMax } from '#nodes/calls.ts'
import type { CallReply } from '#nodes/calls.ts'
import {
  CallDeadlineError,
  CallFailedError,
  CallNodeGoneError,
  CallTooLargeError,
  CallUnknownError,
} from '#nodes/errors.ts'
import { Tasks } from '#lib/tasks.ts'

/** Without hints the caller looks this often for replies, more and more rarely. */
const lookFirstMs = 25
const lookMaxMs = 200
/** A call deletes up to this many expired rows, which callers left that were killed. */
const trimBatch = 100

type Target = {
  readonly id: string
  readonly counter: string
  readonly name: string
  readonly silent_ms: number
}
type ReplyRow = {
  readonly target: string
  readonly reply: string | null
  readonly failure: string | null
  readonly there: boolean
  readonly silent_ms: number | null
}

const ask = sql<Target>(`
  with trimmed as (
    delete from stoa.node_call where ctid = any(array(
      select ctid from stoa.node_call where expires_at < now()
      limit ${trimBatch} for update skip locked))),
  target as (
    select n.id, n.counter, n.info->>'name' as name,
      extract(epoch from now() - n.seen_at)::float8 * 1000 as silent_ms
    from stoa.node n
    where ($6::text is null or n.id = $6) and n.info->>'starting' is null),
  asked as (
    insert into stoa.node_call (call, caller, target, method, payload, expires_at)
    select $1, $2, t.id, $3, $4, now() + $5 * interval '1 ms' from target t where t.id <> $2)
  select id, counter, name, silent_ms from target`)
const readReplies = sql<ReplyRow>(`
  select c.target, c.reply, c.failure, n.id is not null as there,
    extract(epoch from now() - n.seen_at)::float8 * 1000 as silent_ms
  from stoa.node_call c left join stoa.node n on n.id = c.target
  where c.call = $1 and not c.target = any($2::text[])`)
const forget = sql(`delete from stoa.node_call where call = $1`)

export type CallSenderOptions = {
  /** The id of this node, or one of its own where a command calls. */
  readonly id: string
  readonly database: Queryable
  readonly link: ClusterLink | null
  readonly clock: Clock
  readonly logger: Logger
  /**
   * Whether the node is known to be gone. `counter` is the one just read, or null for whichever it
   * has now. `silentMs` counts from its last beat, by the database's clock.
   */
  readonly isGone: (node: string, counter: number | null, silentMs: number) => boolean
}

/** `hinted`: a reply has come that was not read yet, perhaps before the caller waited. */
type Waiting = { hinted: boolean; wake: (() => void) | null }

/** The calling half: it writes the calls, waits for the replies, and removes the rows. */
export class CallSender {
  readonly #options: CallSenderOptions
  readonly #listening: Disposable | null
  readonly #waiting = new Map<string, Waiting>()
  readonly #tasks = new Tasks()
  #stopped = false

  constructor(options: CallSenderOptions) {
    this.#options = options
    this.#listening =
      options.link?.listen(callChannel, (text) => {
        const [kind, caller, call = ''] = text.split(' ')
        const one =
          kind === 'replied' && caller === options.id ? this.#waiting.get(call) : undefined
        if (one === undefined) return
        one.hinted = true
        one.wake?.()
      }) ?? null
  }

  /**
   * Resolves with one reply per live node, or that of the `only` one; this node itself is left out
   * and named in `self`.
   */
  async send(
    method: string,
    payload: unknown,
    options: { readonly deadlineMs: number; readonly only: string | null },
  ): Promise<{ readonly self: Target | null; readonly replies: Promise<CallReply[]> }> {
    const { id, database, clock, isGone } = this.#options
    const until = clock.monotonicMs() + options.deadlineMs
    const text = JSON.stringify(payload ?? null)
    if (text.length > callPayloadMax)
      throw new CallTooLargeError(`A call carries up to ${callPayloadMax} characters.`, {
        method,
        length: text.length,
      })
    const call = newId(clock.nowMs())
    const waiting: Waiting = { hinted: false, wake: null }
    this.#waiting.set(call, waiting)
    const collect = async (others: readonly Target[]): Promise<CallReply[]> => {
      try {
        return await this.#collect(call, waiting, others, until)
      } finally {
        this.#waiting.delete(call)
        if (others.length > 0) this.#tasks.add(this.#forget(call))
      }
    }
    try {
      const targets = await database.run(ask, [
        call,
        id,
        method,
        text,
        options.deadlineMs,
        options.only,
      ])
      const self = targets.find((target) => target.id === id) ?? null
      const others = targets.filter(
        (target) =>
          target.id !== id && !isGone(target.id, Number(target.counter), target.silent_ms),
      )
      if (others.length > 0) this.#hint(`ask ${options.only ?? '*'}`)
      return { self, replies: collect(others) }
    } catch (error) {
      this.#waiting.delete(call)
      throw error
    }
  }

  /** Ends waiting calls with `CallDeadlineError`. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#listening?.[Symbol.dispose]()
    for (const { wake } of this.#waiting.values()) wake?.()
    await this.#tasks.ended()
  }

  async #collect(
    call: string,
    waiting: Waiting,
    targets: readonly Target[],
    until: number,
  ): Promise<CallReply[]> {
    const { clock, logger, database } = this.#options
    const pending = new Map(targets.map((target) => [target.id, target]))
    const replies: CallReply[] = []
    const settle = ({ id, name }: Target, outcome: Outcome): void => {
      pending.delete(id)
      replies.push({ node: id, name, ...outcome })
    }
    for (let pauseMs = lookFirstMs; pending.size > 0; pauseMs = Math.min(pauseMs * 2, lookMaxMs)) {
      const leftMs = until - clock.monotonicMs()
      if (leftMs <= 0 || this.#stopped) break
      if (!waiting.hinted) await hinted(waiting, Math.min(pauseMs, leftMs))
      waiting.hinted = false
      try {
        // The deadline holds also where the database hangs.
        const rows = await withTimeout(
          database.run(readReplies, [call, replies.map(({ node }) => node)]),
          Math.max(1, until - clock.monotonicMs()),
        )
        if (rows === timedOut) break
        this.#sort(rows, pending, settle)
      } catch (error) {
        logger.warn({ err: error }, 'replies of other nodes could not be read')
      }
    }
    for (const target of pending.values())
      settle(target, {
        ok: false,
        error: new CallDeadlineError(`The node ${target.name} did not reply in time.`, {
          node: target.id,
        }),
      })
    return replies
  }

  #sort(
    rows: readonly ReplyRow[],
    pending: ReadonlyMap<string, Target>,
    settle: (target: Target, outcome: Outcome) => void,
  ): void {
    for (const row of rows) {
      const target = pending.get(row.target)
      if (target === undefined) continue
      if (row.reply !== null) settle(target, replyOf(target, row.reply))
      else if (row.failure !== null)
        settle(target, { ok: false, error: failureOf(target, row.failure) })
      else if (!row.there || this.#options.isGone(row.target, null, row.silent_ms ?? 0))
        settle(target, { ok: false, error: goneError(target) })
    }
  }

  async #forget(call: string): Promise<void> {
    try {
      await this.#options.database.run(forget, [call])
    } catch (error) {
      this.#options.logger.debug({ err: error }, 'the rows of a call are left to be trimmed')
    }
  }

  #hint(text: string): void {
    this.#tasks.add(
      (this.#options.link?.send(callChannel, text) ?? Promise.resolve()).catch((error: unknown) =>
        this.#options.logger.debug(
          { err: error },
          'a hint was not sent; the others look at their next beat',
        ),
      ),
    )
  }
}

/** Resolves when a hint says that a reply is there, or after `ms`. */
async function hinted(waiting: Waiting, ms: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms)
    waiting.wake = () => {
      clearTimeout(timer)
      resolve()
    }
  })
  waiting.wake = null
}

function goneError({ id, name }: { readonly id: string; readonly name: string }): StoaError {
  return new CallNodeGoneError(`The node ${name} is gone.`, { node: id })
}

function failureOf({ id, name }: Target, text: string): StoaError {
  const { code, message } = failureIn(text)
  if (code === 'E_CALL_UNKNOWN')
    return new CallUnknownError(
      `The node ${name} does not know what it was asked; it runs another version.`,
      { node: id },
    )
  if (code === 'E_CALL_TOO_LARGE')
    return new CallTooLargeError(`The reply of the node ${name} was too large.`, { node: id })
  return new CallFailedError(`On the node ${name} it failed: ${message}`, { node: id, code })
}

type Outcome =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: StoaError }

/** Replies are read defensively: other programs may write to the table. */
function replyOf({ id, name }: Target, text: string): Outcome {
  try {
    return { ok: true, value: JSON.parse(text) }
  } catch (error) {
    const message = `The reply of the node ${name} cannot be read.`
    const facts = { node: id, code: 'E_INTERNAL' }
    return { ok: false, error: new CallFailedError(message, facts, { cause: error }) }
  }
}

function failureIn(text: string): { readonly code: string; readonly message: string } {
  try {
    const { code, message } = JSON.parse(text) as { code?: unknown; message?: unknown }
    if (typeof code === 'string' && typeof message === 'string') return { code, message }
  } catch {
    // Handled below, like a failure of another shape.
  }
  return { code: 'E_INTERNAL', message: 'its failure cannot be read' }
}
