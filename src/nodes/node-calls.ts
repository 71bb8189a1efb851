import { setTimeout as sleep } from 'node:timers/promises'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import type { CallReply, CallHandler, CallOptions, Calls } from '#nodes/calls.ts'
import { CallReceiver } from '#nodes/call-receiver.ts'
import { CallSender } from '#nodes/call-sender.ts'
import {
  CallDeadlineError,
  CallFailedError,
  CallNodeGoneError,
  NoLeaderError,
} from '#nodes/errors.ts'
import type { Nodes } from '#nodes/nodes.ts'

/** While a duty has no holder, its row is looked at this often. */
const leaderLookMs = 100

const leader = sql<{ holder: string }>(
  `select r.holder from stoa.leadership r join stoa.node n on n.id = r.holder where r.duty = $1`,
)

export type NodeCallsOptions = {
  readonly nodes: Nodes
  /**
   * Runs short statements. It needs more than one connection, since a caller waits while its
   * callees reply.
   */
  readonly database: Queryable
  readonly link: ClusterLink | null
  readonly clock: Clock
  readonly logger: Logger
}

/** Calls to and from this node. Ends with `stop`, before the node leaves. */
export class NodeCalls implements Calls {
  readonly #options: NodeCallsOptions
  readonly #sender: CallSender
  readonly #receiver: CallReceiver
  readonly #news: Disposable

  constructor(options: NodeCallsOptions) {
    this.#options = options
    const { nodes, database, link, clock, logger } = options
    this.#sender = new CallSender({
      id: nodes.id,
      database,
      link,
      clock,
      logger,
      isGone: (node, counter) => nodes.isGone(node, counter),
    })
    this.#receiver = new CallReceiver({ id: nodes.id, database, link, logger })
    this.#news = nodes.subscribe((news) => {
      if (news.kind === 'beaten' && news.callsWaiting) this.#receiver.look()
    })
  }

  handle(method: string, handler: CallHandler): Disposable {
    return this.#receiver.handle(method, handler)
  }

  async onAll(method: string, payload: unknown, options: CallOptions): Promise<CallReply[]> {
    const { self, replies } = await this.#sender.send(method, payload, { ...options, only: null })
    const own = self === null ? [] : [this.#own(self.name, method, payload, options)]
    return [...(await Promise.all(own)), ...(await replies)]
  }

  async onOne(
    nodeId: string,
    method: string,
    payload: unknown,
    options: CallOptions,
  ): Promise<unknown> {
    const { nodes } = this.#options
    const reply =
      nodeId === nodes.id
        ? await this.#own(nodeId, method, payload, options)
        : (
            await (
              await this.#sender.send(method, payload, { ...options, only: nodeId })
            ).replies
          )[0]
    if (reply === undefined) throw new CallNodeGoneError('The node is gone.', { node: nodeId })
    if (!reply.ok) throw reply.error
    return reply.value
  }

  async onLeader(
    duty: string,
    method: string,
    payload: unknown,
    options: CallOptions,
  ): Promise<unknown> {
    const { clock, database } = this.#options
    const until = clock.monotonicMs() + options.deadlineMs
    for (;;) {
      const [row] = await database.run(leader, [duty])
      const leftMs = until - clock.monotonicMs()
      if (row !== undefined && leftMs > 0)
        return this.onOne(row.holder, method, payload, { deadlineMs: leftMs })
      if (leftMs <= leaderLookMs) throw new NoLeaderError(`No node leads as ${duty}.`, { duty })
      await sleep(leaderLookMs)
    }
  }

  async stop(): Promise<void> {
    this.#news[Symbol.dispose]()
    await this.#receiver.stop()
    await this.#sender.stop()
  }

  async #own(
    name: string,
    method: string,
    payload: unknown,
    { deadlineMs }: CallOptions,
  ): Promise<CallReply> {
    const { nodes } = this.#options
    const node = nodes.id
    try {
      // The payload arrives as it would on another node.
      const sent: unknown = JSON.parse(JSON.stringify(payload ?? null))
      const value = await withTimeout(
        this.#receiver.run(method, sent, { caller: node, leftMs: deadlineMs }),
        deadlineMs,
      )
      if (value === timedOut)
        throw new CallDeadlineError('This node did not reply to itself in time.', { node })
      return { node, name, ok: true, value: JSON.parse(JSON.stringify(value ?? null)) as unknown }
    } catch (error) {
      if (error instanceof StoaError && error.code.startsWith('E_CALL_'))
        return { node, name, ok: false, error }
      const known = error instanceof StoaError
      if (!known)
        this.#options.logger.error({ err: error, method }, 'a call of this node to itself failed')
      return {
        node,
        name,
        ok: false,
        error: new CallFailedError(
          known ? error.message : 'On this node it failed.',
          { node, code: known ? error.code : 'E_INTERNAL' },
          { cause: error },
        ),
      }
    }
  }
}
