import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import type { Logger } from '#lib/logger.ts'
import { Tasks } from '#lib/tasks.ts'

/** The channel of Cluster Link. */
export const jobsChannel = 'jobs'
/** At least so long between two hints of a node; what comes meanwhile goes in one. */
const gapMs = 20
/** Kinds in one hint; the others are found by looking. */
const kindsMax = 50

export type Hint =
  /** Jobs of these kinds wait. */
  | { readonly kind: 'wake'; readonly jobs: readonly string[] }
  /** A job that runs was cancelled. */
  | { readonly kind: 'compare' }

/** Null: it is not one of ours, or of a newer version. */
export function parseHint(text: string): Hint | null {
  const [verb, ...jobs] = text.split(' ')
  if (verb === 'compare') return { kind: 'compare' }
  return verb === 'wake' ? { kind: 'wake', jobs: jobs.slice(0, kindsMax) } : null
}

/** Sends hints after commits, never in the transaction of a write. One that is lost costs time. */
export class HintSender {
  readonly #link: ClusterLink | null
  readonly #logger: Logger
  readonly #tasks = new Tasks()
  readonly #waiting = new Set<string>()
  #timer: NodeJS.Timeout | null = null
  #isStopped = false

  constructor(link: ClusterLink | null, logger: Logger) {
    this.#link = link
    this.#logger = logger
  }

  get connected(): boolean {
    return this.#link?.connected === true
  }

  wake(job: string): void {
    if (this.#waiting.size < kindsMax) this.#waiting.add(job)
    if (this.#timer === null) this.#flush()
  }

  compare(): void {
    this.#send('compare')
  }

  async stop(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer)
    if (this.#waiting.size > 0) this.#sendWaiting()
    this.#isStopped = true
    await this.#tasks.ended()
  }

  /** The first goes out at once. */
  #flush(): void {
    this.#timer = null
    if (this.#waiting.size === 0) return
    this.#sendWaiting()
    this.#timer = setTimeout(() => this.#flush(), gapMs)
  }

  #sendWaiting(): void {
    this.#send(['wake', ...this.#waiting].join(' '))
    this.#waiting.clear()
  }

  #send(text: string): void {
    if (this.#link === null || this.#isStopped) return
    this.#tasks.add(
      this.#link
        .send(jobsChannel, text)
        .catch((error: unknown) => this.#logger.debug({ err: error }, 'a hint was not sent')),
    )
  }
}
