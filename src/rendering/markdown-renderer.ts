import { ChildPool, TaskCrashedError, TaskFailedError, TaskTimeoutError } from '#lib/child-pool.ts'
import type { Clock } from '#lib/clock.ts'
import { QueueBusyError } from '#lib/fair-queue.ts'
import type { Logger } from '#lib/logger.ts'

/** Longer Markdown is shown as plain text. No field takes more characters than this. */
const charactersMax = 500_000
/** Long honest pages take a tenth of this; the rest is for a busy machine and a child's start. */
const timeoutMs = 5_000
const heapBytesMax = 96 * 1024 ** 2
const memoryBytesMax = 192 * 1024 ** 2
const queue = { runningMax: 2, waitingMax: 64, waitingPerCallerMax: 4, waitMs: 3_000 }

export type MarkdownTask = { readonly text: string; readonly anchors: boolean }

export type MarkdownJob = MarkdownTask & {
  /** The actor or address that asked, and the entry or page that the text belongs to. */
  readonly caller: string
  readonly group: string
}

/**
 * `refused`: the text is too long or took too much time or memory, and will again.
 * `busy`: there was no free child process in time; a later attempt may succeed.
 */
export type RenderedMarkdown =
  | { readonly kind: 'html'; readonly html: string }
  | { readonly kind: 'refused' | 'busy' }

/**
 * Renders Markdown in child processes, so that no text can hold or end this process. Each job has a
 * deadline and a memory bound, and each caller a bounded number of waiting jobs.
 */
export class MarkdownRenderer {
  readonly #pool: ChildPool

  constructor({ clock, logger }: { readonly clock: Clock; readonly logger: Logger }) {
    this.#pool = new ChildPool({
      module: new URL('./markdown-tasks.ts', import.meta.url),
      memoryBytesMax,
      heapBytesMax,
      queue,
      clock,
      logger,
    })
  }

  async render({ text, anchors, caller, group }: MarkdownJob): Promise<RenderedMarkdown> {
    if (text.length > charactersMax) return { kind: 'refused' }
    const input: MarkdownTask = { text, anchors }
    try {
      const task = { task: 'markdown', input, timeoutMs }
      const html = await this.#pool.run({ caller, group }, task)
      return { kind: 'html', html: html as string }
    } catch (error) {
      if (error instanceof QueueBusyError) return { kind: 'busy' }
      const refusals = [TaskTimeoutError, TaskCrashedError, TaskFailedError]
      if (refusals.some((refusal) => error instanceof refusal)) return { kind: 'refused' }
      throw error
    }
  }

  stop(): Promise<void> {
    return this.#pool.stop()
  }
}
